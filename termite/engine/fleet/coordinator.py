"""The coordinator, which gives masters the list of workers.

It grants no slots. While it is away, masters keep their leases and workers keep running jobs.
"""

import ipaddress
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec
import trio

from termite import __version__
from termite.engine.errors import Reason, RemoteProtocolError, Retryable, TermiteError, UserError
from termite.engine.fleet.farm_desk import FarmDesk
from termite.engine.fleet.logic.worker_registry import Registry
from termite.engine.fleet.trouble import detail_of
from termite.engine.host.descriptors import Descriptors, shortage_text
from termite.engine.wire.addresses import join_address, listen, peer_name, port_of, split_address
from termite.engine.wire.authority import Role, member_key, mint
from termite.engine.wire.protocol.fleet_messages import (
    Deregister,
    DrainWorker,
    GetWorkerReport,
    ListedWorker,
    ListFarm,
    ListWorkers,
    Register,
    Registered,
    Workers,
)
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done
from termite.engine.wire.strangers import HERE, Dropped, Strangers
from termite.engine.wire.transport import Connection, SendChunk, accepted

COORDINATOR_PORT = 1233
LONG_POLL_S = 30.0
MAX_REFUSED = 1000  # hosts for which the last logged reason is remembered
MAX_UNAUTHENTICATED = 64  # simultaneous connections that have not shown a certificate yet
PEER_DESCRIPTORS = 2  # the connection, and one for its key
MISSED_HEARTBEATS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """The settings of a coordinator.

    `listen` is an address of this machine, or "" for all of them. Port 0 means any free port.
    Workers register every `interval_s`. A reader with `pages_key` learns the users of the workers;
    b"": nobody does.
    """

    secret: bytes
    listen: str = ""
    port: int = COORDINATOR_PORT
    interval_s: float = 5.0
    pages_key: bytes = b""


async def serve_coordinator(
    config: CoordinatorConfig, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve workers and masters until cancelled.

    `task_status` gets the address as `host:port`. Raise UserError if the address cannot be listened
    on.
    """
    listeners = await listen(config.listen, config.port, "coordinator")
    coordinator = _Coordinator(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coordinator.drop_lost_workers)
        nursery.start_soon(trio.serve_listeners, coordinator.serve, listeners)
        task_status.started(join_address(config.listen or "0.0.0.0", port_of(listeners)))


class _Coordinator:
    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self._registry = Registry(time.time_ns() // 1_000_000, config.interval_s * MISSED_HEARTBEATS)
        self._changed = trio.Event()
        self._strangers = Strangers(MAX_UNAUTHENTICATED, member_key(config.secret))
        self._descriptors = Descriptors()
        self._refused: dict[str, Reason] = {}  # the last logged reason by host
        self._desk = FarmDesk(self._registry, config.interval_s, config.pages_key)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection, of a worker, a master or a stranger."""
        peer = peer_name(stream)
        try:
            await self._serve_peer(stream, peer)
        except Exception:  # around one connection: all others are served
            log.exception("peer-crashed peer=%s", peer)

    async def _serve_peer(self, stream: trio.SocketStream, peer: str) -> None:
        host = peer.rpartition(":")[0]
        try:
            own_host, peer_host = _host(stream.socket.getsockname()), _host(stream.socket.getpeername())
        except OSError:  # it has gone already, and nobody waits for an answer
            await trio.aclose_forcefully(stream)
            return

        async def answer(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
            try:
                return await self._answer(connection, message, peer_host=peer_host, own_host=own_host)
            except UserError as error:
                if error.reason is Reason.OTHER_PROTOCOL:
                    self._complain(host, peer, error)
                raise

        if not self._descriptors.has_room(PEER_DESCRIPTORS):
            log.warning("handshake-refused peer=%s reason=%s", peer, shortage_text())
            await trio.aclose_forcefully(stream)
            return
        try:
            async with stream, AsyncExitStack() as stack:
                async with self._strangers.turn(stream):
                    identity = mint(self._config.secret, "coordinator", Role.COORDINATOR)
                    connection = await stack.enter_async_context(accepted(stream, identity, answer))
                if self._refused.get(host) is not Reason.OTHER_PROTOCOL:  # which only its messages show
                    self._refused.pop(host, None)
                self._strangers.forgive(peer_host)
                await connection.lost.wait()
        except Dropped:
            pass  # logged there
        except (UserError, Retryable) as error:
            self._strangers.punish(peer_host)
            self._complain(host, peer, error)

    def _complain(self, host: str, peer: str, error: UserError | Retryable) -> None:
        """Log why a host was refused, once, although a machine with another secret tries again."""
        if self._refused.get(host) is not error.reason:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused[host] = error.reason
            log.warning("peer-refused peer=%s detail=%r reason=%s", peer, detail_of(error), error.reason)

    async def drop_lost_workers(self) -> None:
        """Remove the workers that no longer register, until cancelled."""
        while True:
            await trio.sleep(self._config.interval_s)
            for name in self._registry.forget(trio.current_time()):
                log.warning("worker-lost worker=%s", name)
                self._notify()

    async def _answer(self, connection: Connection, message: Message, *, peer_host: str, own_host: str) -> Message:
        match message:
            case Register():
                _check_protocol(message.protocol)
                self._desk.note_line(message.name, connection)
                return self._register(message, peer_host)
            case Deregister(name=name):
                is_own = self._desk.is_line(name, connection)  # another member may not say goodbye for a worker
                if is_own and self._registry.deregister(name, trio.current_time()):
                    log.info("worker-left worker=%s", name)
                    self._notify()
                return Done()
            case ListWorkers(protocol=protocol, after=after):
                _check_protocol(protocol)
                with trio.move_on_after(LONG_POLL_S):
                    while self._registry.version == after:
                        await self._changed.wait()
                as_reachable = tuple(_reachable(worker, peer_host, own_host) for worker in self._registry.workers())
                gone = self._registry.gone(trio.current_time())
                return Workers(self._registry.version, as_reachable, __version__, gone)
            case ListFarm(protocol=protocol, key=key):
                _check_protocol(protocol)
                return self._desk.list_farm(key, trio.current_time())
            case GetWorkerReport(protocol=protocol):
                _check_protocol(protocol)
                return await self._desk.get_report(message)
            case DrainWorker(protocol=protocol):
                _check_protocol(protocol)
                if await self._desk.drain(message, connection.peer):
                    self._notify()
                return Done()
        raise RemoteProtocolError(f"a coordinator does not answer {type(message).__name__}")

    def _register(self, message: Register, peer_host: str) -> Message:
        host, port = split_address(message.address, default_port=0)
        address = join_address(host or peer_host, port)
        had_rival = self._registry.rival_of(message.name)
        is_changed = self._registry.register(message, address, trio.current_time())
        if rival := "" if had_rival else self._registry.rival_of(message.name):
            log.warning("worker-name-twice worker=%s address=%s rival=%s", message.name, address, rival)
        if is_changed:
            log.info("worker-registered worker=%s address=%s slots=%d", message.name, address, message.slots)
            self._notify()
        return Registered(self._config.interval_s)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _check_protocol(theirs: int) -> None:
    if theirs != PROTOCOL:
        raise UserError(
            f"the coordinator speaks protocol {PROTOCOL}, this daemon speaks {theirs}",
            hint="install one version of termite on every machine",
            reason=Reason.OTHER_PROTOCOL,
        )


def _reachable(worker: ListedWorker, peer_host: str, own_host: str) -> ListedWorker:
    """Return the worker with an address that the peer can reach.

    A worker on the coordinator's machine may have registered through loopback. Peers on other
    machines get the coordinator's own address in its place.
    """
    host, port = split_address(worker.address, 0)
    if not _is_loopback(host) or _is_loopback(peer_host):
        return worker
    return msgspec.structs.replace(worker, address=join_address(own_host, port))


def _host(name: object) -> str:
    """Return the host of a socket's name; HERE if it is in this process."""
    return str(name[0]) if isinstance(name, tuple) else HERE


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # the name of a host: those of loopback are addresses, or `localhost`
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def coordinator_error_text(error: TermiteError) -> str:
    """Return why the coordinator cannot be reached, with a hint for the user."""
    if isinstance(error, UserError):
        return str(error)
    return f"{error} (is termite-coordinator running there? see -coordinator)"
