"""The worker: offers this machine's slots, and gives every master that comes a mirror process.

It reads no byte that comes from the network: a connection goes to a new mirror process unread, which asks for slots
when it knows that a master with the cluster's secret is there. So whoever connects costs a process, and few may be
unknown at a time.
"""

import logging
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import Retryable
from termite.engine.wire.addresses import join_address, listen, port_of, split_address
from termite.engine.wire.authority import mint
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.messages import PROTOCOL, Register
from termite.engine.wire.transport import peer_name
from termite.engine.worker.mirror_homes import House
from termite.engine.worker.mirror_process import Line, Mirror, MirrorConfig, mirror_process
from termite.engine.worker.registration import stay_registered
from termite.engine.worker.shares import share

DEFAULT_PORT = 1235
COORDINATOR_PORT = 1233
MAX_STRANGERS = 8  # mirrors at once that have not asked for a lease; more connections wait
MOST_COMPLAINTS = 100  # different ones: a mirror is not trusted
LEASE_S = 15.0  # for a mirror to start and its master to shake hands

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """`coordinator` is `host:port`, empty: none. `advertise` is the address for masters, empty: as the coordinator sees
    us. `users` are ids for the mirrors of a root worker, None for an ordinary user. `program`: see MirrorConfig."""

    secret: bytes
    slots: int
    coordinator: str
    cache: Path
    tmpdir: Path
    sandbox: Path
    tmpfs: bool
    users: range | None = None
    name: str = ""
    listen: str = ""
    port: int = DEFAULT_PORT
    advertise: str = ""
    log_level: str = "info"
    program: tuple[str, ...] = ()


async def serve_worker(config: WorkerConfig, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    """Until cancelled. Reports `host:port`, where it listens."""
    listeners = await listen(config.listen, config.port, "worker")
    port = port_of(listeners)
    worker = _Worker(config, port)
    try:
        async with trio.open_nursery() as nursery:
            if config.coordinator:
                host, coordinator_port = split_address(config.coordinator, COORDINATOR_PORT)
                nursery.start_soon(stay_registered, host, coordinator_port, config.secret, worker.name, worker.describe)
            nursery.start_soon(trio.serve_listeners, worker.serve, listeners)
            task_status.started(join_address(config.listen or "0.0.0.0", port))
    finally:
        worker.house.close()


@dataclass(slots=True)
class _Lease:
    mirror: Mirror
    master: str
    wanted: int
    granted: int = 0
    jobs: int = 0


class _Worker:
    def __init__(self, config: WorkerConfig, port: int) -> None:
        self.name = config.name or f"{os.uname().nodename}:{port}"
        self.house = House(config.cache, config.tmpdir, config.users)
        self._config = config
        self._address = _address_for_masters(config, port)
        self._mirrors = _mirror_config(config, self.name)
        self._strangers = trio.Semaphore(MAX_STRANGERS)
        self._leases: dict[int, _Lease] = {}
        self._complaints: set[str] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, whoever it is."""
        peer = peer_name(stream)
        try:
            async with stream, AsyncExitStack() as stack:
                async with self._strangers:
                    quarters = await stack.enter_async_context(self.house.quarters())
                    identity = mint(self._config.secret, self.name)
                    mirror = await stack.enter_async_context(mirror_process(self._mirrors, identity, quarters, stream))
                    asked = await self._wait_for_master(mirror, peer)
                if asked is not None:
                    await self._serve_lease(mirror, asked)
        except (Retryable, OSError) as error:
            log.warning("mirror-not-started peer=%s reason=%s", peer, error)

    def describe(self) -> Register:
        """This worker, for the coordinator."""
        return Register(
            protocol=PROTOCOL,
            name=self.name,
            address=self._address,
            slots=self._config.slots,
            leased=sum(lease.granted for lease in self._leases.values()),
            load=os.getloadavg()[0],
            free_memory_bytes=_free_memory_bytes(),
        )

    async def _wait_for_master(self, mirror: Mirror, peer: str) -> Line | None:
        with trio.move_on_after(LEASE_S):
            while (line := await mirror.receive()) is not None:
                if line.error:
                    self._complain(line)
                elif line.lease is not None:
                    return line
            return None
        log.warning("lease-not-requested peer=%s seconds=%d", peer, LEASE_S)
        return None

    async def _serve_lease(self, mirror: Mirror, asked: Line) -> None:
        """A new lease gets its share at once, even while older ones still use more than theirs: what is too much for a
        moment ends with the jobs that run now."""
        lease = self._leases[mirror.pid] = _Lease(mirror, asked.master, max(asked.lease or 0, 0))
        self._share(new=lease)
        log.info(
            "lease-granted pid=%d master=%s wanted=%d slots=%d", mirror.pid, lease.master, lease.wanted, lease.granted
        )
        try:
            while (line := await mirror.receive()) is not None:
                lease.jobs = max(lease.jobs, line.jobs)
                if line.error:
                    self._complain(line)
        finally:
            del self._leases[mirror.pid]
            self._share()
            log.info("lease-ended pid=%d master=%s jobs=%d", mirror.pid, lease.master, lease.jobs)

    def _share(self, new: _Lease | None = None) -> None:
        shares = share(self._config.slots, {pid: lease.wanted for pid, lease in self._leases.items()})
        for pid, lease in self._leases.items():
            if lease is new:
                lease.granted = shares[pid]
                lease.mirror.tell_nowait(granted=lease.granted)
            elif lease.granted != shares[pid]:
                lease.granted = shares[pid]
                lease.mirror.tell_nowait(slots=lease.granted)

    def _complain(self, line: Line) -> None:
        """Once for each thing that is wrong with this machine, not for each master that comes."""
        error = printable(line.error)
        if error not in self._complaints and len(self._complaints) < MOST_COMPLAINTS:
            self._complaints.add(error)
            log.warning("mirror-unfit hint=%r reason=%s", printable(line.hint), error)


def _address_for_masters(config: WorkerConfig, port: int) -> str:
    """An empty host lets the coordinator fill in where it sees us."""
    if config.advertise:
        return join_address(*split_address(config.advertise, port))
    return join_address("" if config.listen in ("", "0.0.0.0", "::") else config.listen, port)


def _mirror_config(config: WorkerConfig, name: str) -> MirrorConfig:
    cores = len(os.sched_getaffinity(0))
    common = (name, config.tmpfs, config.sandbox, cores, config.log_level)
    return MirrorConfig(*common, program=config.program) if config.program else MirrorConfig(*common)


def _free_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
