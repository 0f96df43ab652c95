"""The worker daemon, which offers this machine's slots and starts a mirror process for each master.

The daemon reads no byte from the network. Each connection goes unread to a new mirror process. The
mirror asks for slots as soon as it knows that the peer has the cluster's secret. A stranger
therefore costs a process. Only a few peers may be unauthenticated at a time, and members go first:
their hello has a proof that only who has the secret can make.
"""

import logging
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio

from termite import __version__
from termite.engine.errors import Reason, Retryable
from termite.engine.fleet.coordinator import COORDINATOR_PORT
from termite.engine.host.descriptors import Descriptors, shortage_text
from termite.engine.host.log_tail import LogTail
from termite.engine.host.machine import read_facts
from termite.engine.host.meminfo import read_memory
from termite.engine.model import JobLimits, JobNetwork, MachineFacts, StoreLimits
from termite.engine.wire.addresses import join_address, listen, peer_name, port_of, split_address
from termite.engine.wire.authority import Role, member_key, mint
from termite.engine.wire.protocol.control_lines import MirrorNotice, WorkerOrder
from termite.engine.wire.protocol.fleet_messages import LeaseReport, Register
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.messages import PROTOCOL
from termite.engine.wire.strangers import Dropped, Strangers, source_of
from termite.engine.worker.job_shares import SCRATCH_SHARE
from termite.engine.worker.mirror_homes import MirrorHouse
from termite.engine.worker.mirror_process import MirrorProcess, MirrorSettings, run_mirror
from termite.engine.worker.registration import stay_registered
from termite.engine.worker.reports.lease_accounts import LeaseAccount, total_of, uses_of
from termite.engine.worker.reports.store_sizes import StoreSizes
from termite.engine.worker.reports.worker_questions import WorkerQuestions
from termite.engine.worker.shown_log import log_order
from termite.engine.worker.slot_shares import share_among_masters

WORKER_PORT = 1235
MAX_UNAUTHENTICATED = 8  # simultaneous mirrors that have not asked for a lease; further connections wait
STRANGER_REST_S = 3.0  # between two mirrors for peers that do not prove membership: each takes 0.3 s of CPU
COMPLAINT_S = 600.0  # between two logged errors of mirrors with one reason; a mirror is not trusted
MAX_LEASES_OF_MASTER = 8  # each costs a mirror process of 40 MB; an honest master has one, and two while it renews it
REFUSAL_S = 2.0  # for a mirror to tell its master that it gets no lease
MIRROR_DESCRIPTORS = 8  # of the worker for one mirror: sockets, pipes, a pidfd and locks
LEASE_REQUEST_S = 15.0  # deadline for a mirror to start, shake hands with its master, and ask for a lease

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of a worker.

    `coordinator` is `host:port`, or "" for none. `advertise` is the address for masters; if it is
    "", they use the address that the coordinator sees. `users` are the user ids for the mirrors of
    a root worker, or None for an ordinary user. `name`, `listen` and `program` may be empty: the
    name is then made of host and port, the worker listens on all addresses, and mirrors run the
    usual program. `store` limits the stores of all mirrors together. `network` is what jobs get to
    which a rule gives a network. `limits` hold for each job. All leases together may fill
    `scratch_bytes` of memory with files of running jobs; 0 means a share of what is available.
    `log_tail` has the last records of the worker's log.
    Mirrors join the control group whose cgroup.procs is `group`.
    At the signal `drain_signal` the worker drains, and ends when it has no lease; 0: never.
    """

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
    port: int = WORKER_PORT
    advertise: str = ""
    log_level: str = "info"
    program: tuple[str, ...] = ()
    store: StoreLimits = field(default_factory=StoreLimits)
    network: JobNetwork = field(default_factory=JobNetwork)
    limits: JobLimits = field(default_factory=JobLimits)
    scratch_bytes: int = 0
    log_tail: LogTail = field(default_factory=LogTail)
    group: Path | None = None
    drain_signal: int = 0


async def serve_worker(config: WorkerConfig, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve masters until cancelled, or told by a signal to drain and to end.

    `task_status` gets the address as `host:port`. Raise UserError if the worker cannot listen on
    its address, or cannot use its directories.
    """
    listeners = await listen(config.listen, config.port, "worker")
    port = port_of(listeners)
    worker = _WorkerServer(config, port)
    try:
        async with trio.open_nursery() as nursery:
            if config.coordinator:
                host, coordinator_port = split_address(config.coordinator, COORDINATOR_PORT)
                sizes = StoreSizes(config.cache, config.users, config.store)
                questions = WorkerQuestions(worker, config.log_tail, sizes)
                nursery.start_soon(sizes.keep_measuring)
                address = (host, coordinator_port, config.secret, worker.name)
                nursery.start_soon(stay_registered, *address, worker.describe, questions.answer)
            if config.drain_signal:
                await nursery.start(worker.end_when_drained, config.drain_signal, nursery.cancel_scope)
            nursery.start_soon(trio.serve_listeners, worker.serve, listeners)
            task_status.started(join_address(config.listen or "0.0.0.0", port))
    finally:
        worker.homes.close()


@dataclass(slots=True)
class _GrantedLease:
    mirror: MirrorProcess
    master: str
    wanted: int
    account: LeaseAccount
    granted: int = 0
    scratch_bytes: int = 0


class _WorkerServer:
    def __init__(self, config: WorkerConfig, port: int) -> None:
        self.name = config.name or f"{os.uname().nodename}:{port}"
        self.homes = MirrorHouse(config.cache, config.tmpdir, config.users)
        self._config = config
        self._address = _address_for_masters(config, port)
        self._machine = read_facts()
        self._mirrors = _mirror_settings(config, self.name, self._machine)
        self._strangers = Strangers(MAX_UNAUTHENTICATED, member_key(config.secret), STRANGER_REST_S)
        self._leases: dict[int, _GrantedLease] = {}
        self._scratch_bytes = 0  # for all leases together
        self._complained_s: dict[Reason, float] = {}
        self._descriptors = Descriptors()
        self._ended = LeaseAccount("", time.monotonic())  # all leases that have ended
        self._lease_ended = trio.lowlevel.ParkingLot()
        self.is_drained = False

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection, of a master or a stranger."""
        peer, source = peer_name(stream), source_of(stream)
        try:
            async with stream, AsyncExitStack() as stack:
                async with self._strangers.turn(stream):
                    if not self._descriptors.has_room(MIRROR_DESCRIPTORS):
                        raise Retryable(Reason.NO_RESOURCES, shortage_text())
                    home = await stack.enter_async_context(self.homes.claim())
                    identity = mint(self._config.secret, self.name, Role.MIRROR)
                    mirror = await stack.enter_async_context(run_mirror(self._mirrors, identity, home, stream))
                    asked = await self._wait_for_master(mirror, peer)
                if asked is None:
                    self._strangers.punish(source)
                else:
                    self._strangers.forgive(source)
                    await self._serve_lease(mirror, asked)
        except Dropped:
            pass  # logged there
        except (Retryable, OSError) as error:
            log.warning("mirror-not-started peer=%s reason=%s", peer, error)
        except Exception:  # around one master: its jobs are retried, and all others are served
            log.exception("mirror-crashed peer=%s", peer)

    def describe(self) -> Register:
        """Return the worker's present state, for the coordinator."""
        return Register(
            protocol=PROTOCOL,
            name=self.name,
            address=self._address,
            slots=self._config.slots,
            leased=sum(lease.granted for lease in self._leases.values()),
            load=os.getloadavg()[0],
            free_memory_bytes=read_memory("MemAvailable"),
            draining=self.is_drained,
            machine=self._machine,
            release=__version__,
            uses=uses_of((lease.account, lease.granted) for lease in self._leases.values()),
        )

    def drain(self, *, is_drained: bool) -> None:
        """Take no new jobs, or take jobs again. Jobs that run go on to their ends."""
        if is_drained == self.is_drained:
            return
        self.is_drained = is_drained
        running = sum(lease.account.running for lease in self._leases.values())
        if is_drained:
            log.info("worker-drained running=%d", running)
        else:
            log.info("worker-undrained")
        self._share()
        self._lease_ended.unpark_all()

    async def end_when_drained(
        self, number: int, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Drain at the signal `number`, and cancel `scope` when the last lease has ended.

        Masters close the leases of a drained worker when their last job has come home. A worker
        that is told to take jobs again meanwhile goes on.
        """
        with trio.open_signal_receiver(number) as signals:
            task_status.started()
            async for _ in signals:
                self.drain(is_drained=True)
                while self._leases and self.is_drained:
                    await self._lease_ended.park()
                if self.is_drained:
                    log.info("worker-ended reason=drained")
                    scope.cancel()

    def lease_reports(self, *, is_private: bool) -> tuple[LeaseReport, list[LeaseReport]]:
        """Return the sum over all leases since the start, and each open lease."""
        now_s = time.monotonic()
        leases = [lease.account.report(lease.granted, now_s, is_private=is_private) for lease in self._leases.values()]
        return total_of(self._ended.report(0, now_s, is_private=False), leases), leases

    async def _wait_for_master(self, mirror: MirrorProcess, peer: str) -> MirrorNotice | None:
        with trio.move_on_after(LEASE_REQUEST_S):
            while (line := await mirror.receive()) is not None:
                if line.unfit is not None:
                    self._complain(line.unfit, line)
                elif line.lease is not None:
                    return line
            return None
        log.warning("lease-not-requested peer=%s seconds=%d", peer, LEASE_REQUEST_S)
        return None

    async def _serve_lease(self, mirror: MirrorProcess, asked: MirrorNotice) -> None:
        """Grant a lease, and serve it until its mirror ends.

        A new lease gets its share immediately, even if older leases still use more than theirs. The
        excess ends with the jobs that run now.
        """
        if sum(lease.master == asked.master for lease in self._leases.values()) >= MAX_LEASES_OF_MASTER:
            log.warning("lease-refused pid=%d master=%s leases=%d", mirror.pid, asked.master, MAX_LEASES_OF_MASTER)
            mirror.send_nowait(WorkerOrder(refused=MAX_LEASES_OF_MASTER))
            with trio.move_on_after(REFUSAL_S):  # the mirror tells its master
                while await mirror.receive() is not None:
                    pass
            return
        if not self._leases:  # now nothing of it is in use, so that what is available is known
            self._scratch_bytes = self._config.scratch_bytes or int(read_memory("MemAvailable") * SCRATCH_SHARE)
        account = LeaseAccount(asked.user, time.monotonic())
        lease = self._leases[mirror.pid] = _GrantedLease(mirror, asked.master, max(asked.lease or 0, 0), account)
        self._share(new=lease)
        log.info(
            "lease-granted pid=%d master=%s wanted=%d slots=%d", mirror.pid, lease.master, lease.wanted, lease.granted
        )
        try:
            while (line := await mirror.receive()) is not None:
                account.note(line, time.monotonic())
                if line.log_after is not None:
                    mirror.send_nowait(log_order(self._config.log_tail, mirror.pid, line))
                if line.unfit is not None:
                    self._complain(line.unfit, line)
        finally:
            del self._leases[mirror.pid]
            self._ended.add(account)
            self._share()
            self._lease_ended.unpark_all()
            log.info("lease-ended pid=%d master=%s jobs=%d", mirror.pid, lease.master, account.jobs)

    def _share(self, new: _GrantedLease | None = None) -> None:
        slots = 0 if self.is_drained else self._config.slots
        shares = share_among_masters(slots, {pid: (lease.master, lease.wanted) for pid, lease in self._leases.items()})
        scratch = share_among_masters(
            self._scratch_bytes, {pid: (lease.master, self._scratch_bytes) for pid, lease in self._leases.items()}
        )
        for pid, lease in self._leases.items():
            size_bytes = None if scratch[pid] == lease.scratch_bytes else scratch[pid]
            if lease is new:
                lease.mirror.send_nowait(WorkerOrder(granted=shares[pid], scratch_bytes=size_bytes))
            elif lease.granted != shares[pid]:
                lease.mirror.send_nowait(WorkerOrder(slots=shares[pid], scratch_bytes=size_bytes))
            elif size_bytes is not None:
                lease.mirror.send_nowait(WorkerOrder(scratch_bytes=size_bytes))
            lease.granted, lease.scratch_bytes = shares[pid], scratch[pid]

    def _complain(self, reason: Reason, line: MirrorNotice) -> None:
        """Log a mirror's error, unless one with this reason was logged less than COMPLAINT_S ago.

        Such an error is a defect of this machine, and each further mirror would repeat it.
        """
        now_s = time.monotonic()
        if now_s - self._complained_s.get(reason, -COMPLAINT_S) >= COMPLAINT_S:
            self._complained_s[reason] = now_s
            log.warning(
                "mirror-unfit detail=%r hint=%r reason=%s", printable(line.detail), printable(line.hint), reason
            )


def _address_for_masters(config: WorkerConfig, port: int) -> str:
    """Return the address for masters. The coordinator replaces a host "" by the one it sees."""
    if config.advertise:
        return join_address(*split_address(config.advertise, port))
    return join_address("" if config.listen in ("", "0.0.0.0", "::") else config.listen, port)


def _mirror_settings(config: WorkerConfig, name: str, machine: MachineFacts) -> MirrorSettings:
    places = (name, config.tmpfs, config.sandbox)
    common = (*places, machine, config.log_level, config.store, config.network, config.limits, config.group)
    return MirrorSettings(*common, program=config.program) if config.program else MirrorSettings(*common)
