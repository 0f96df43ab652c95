"""The coordinator: tells masters which workers there are. It grants nothing, and nothing breaks while it is away."""

import ipaddress
import logging
import time
from dataclasses import dataclass

import msgspec
import trio

from termite.engine.errors import ConnectionLost, Reason, RemoteProtocolError, TermiteError, UserError
from termite.engine.fleet.logic.registry import Registry
from termite.engine.wire.addresses import join_address, listen, port_of, split_address
from termite.engine.wire.authority import mint
from termite.engine.wire.protocol.messages import (
    PROTOCOL,
    Deregister,
    Done,
    ListWorkers,
    Message,
    Register,
    Registered,
    Worker,
    Workers,
)
from termite.engine.wire.transport import Connection, SendChunk, accepted, peer_name

DEFAULT_PORT = 1233
LONG_POLL_S = 30.0
MAX_REFUSED = 1000  # hosts of which it is remembered why
MAX_STRANGERS = 64  # connections at once that have not shown a certificate yet
MISSED_HEARTBEATS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """`listen` is an address of this machine, empty for all; port 0 is any free one."""

    secret: bytes
    listen: str = ""
    port: int = DEFAULT_PORT
    interval_s: float = 5.0


async def serve_coordinator(
    config: CoordinatorConfig, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Until cancelled. Reports `host:port`, where it listens."""
    listeners = await listen(config.listen, config.port, "coordinator")
    coordinator = _Coordinator(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coordinator.forget_the_lost)
        nursery.start_soon(trio.serve_listeners, coordinator.serve, listeners)
        task_status.started(join_address(config.listen or "0.0.0.0", port_of(listeners)))


class _Coordinator:
    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self._registry = Registry(time.time_ns() // 1_000_000, config.interval_s * MISSED_HEARTBEATS)
        self._changed = trio.Event()
        self._strangers = 0
        self._refused: dict[str, str] = {}  # by host, why

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, whoever it is."""
        peer = peer_name(stream)
        host = peer.rpartition(":")[0]
        here = stream.socket.getsockname()[0]

        async def answer(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
            return await self._answer(message, there=stream.socket.getpeername()[0], here=here)

        if self._strangers >= MAX_STRANGERS:
            log.warning("handshake-refused peer=%s", peer)
            await trio.aclose_forcefully(stream)
            return
        self._strangers += 1
        known = False
        try:
            async with accepted(stream, mint(self._config.secret, "coordinator"), answer) as connection:
                self._strangers -= 1
                known = True
                self._refused.pop(host, None)
                await connection.lost.wait()
        except (UserError, ConnectionLost) as error:
            self._complain(host, str(error).replace(peer, host))
        finally:
            self._strangers -= not known

    def _complain(self, host: str, reason: str) -> None:
        """Once, not for every time that a machine with another secret tries again."""
        if self._refused.get(host) != reason:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused[host] = reason
            log.warning("peer-refused reason=%s", reason)

    async def forget_the_lost(self) -> None:
        """Drop the workers that no longer register."""
        while True:
            await trio.sleep(self._config.interval_s)
            for name in self._registry.forget(trio.current_time()):
                log.warning("worker-lost worker=%s", name)
                self._tell()

    async def _answer(self, message: Message, *, there: str, here: str) -> Message:
        match message:
            case Register():
                _check_protocol(message.protocol)
                return self._register(message, there)
            case Deregister(name=name):
                if self._registry.deregister(name):
                    log.info("worker-left worker=%s", name)
                    self._tell()
                return Done()
            case ListWorkers(protocol=protocol, after=after):
                _check_protocol(protocol)
                with trio.move_on_after(LONG_POLL_S):
                    while self._registry.version == after:
                        await self._changed.wait()
                seen_from_there = tuple(_reachable(worker, there, here) for worker in self._registry.workers())
                return Workers(self._registry.version, seen_from_there)
        raise RemoteProtocolError(f"a coordinator does not answer {type(message).__name__}")

    def _register(self, message: Register, there: str) -> Message:
        host, port = split_address(message.address, default_port=0)
        address = join_address(host or there, port)
        if self._registry.register(message, address, trio.current_time()):
            log.info("worker-registered worker=%s address=%s slots=%d", message.name, address, message.slots)
            self._tell()
        return Registered(self._config.interval_s)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _check_protocol(theirs: int) -> None:
    if theirs != PROTOCOL:
        raise UserError(
            f"the coordinator speaks protocol {PROTOCOL}, you speak {theirs}",
            hint="install one version of termite on every machine",
            reason=Reason.OTHER_PROTOCOL,
        )


def _reachable(worker: Worker, there: str, here: str) -> Worker:
    """A worker beside the coordinator may have registered through loopback, which says nothing to other machines."""
    host, port = split_address(worker.address, 0)
    if not _is_loopback(host) or _is_loopback(there):
        return worker
    return msgspec.structs.replace(worker, address=join_address(here, port))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def with_advice(error: TermiteError) -> str:
    """Why there is no coordinator, and what to do."""
    if isinstance(error, UserError):
        return str(error)
    return f"{error} (is termite-coordinator running there? see -coordinator)"
