"""A lack of descriptors or memory ends one lease, connection or handshake, and never the daemon."""

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from errno import EMFILE
from pathlib import Path
from typing import Any

import pytest
import trio

from termite.engine.errors import Reason, Retryable, UserError
from termite.engine.fleet import coordinator_link
from termite.engine.fleet.coordinator import COORDINATOR_PORT, CoordinatorConfig, serve_coordinator
from termite.engine.fleet.coordinator_dial import dial_coordinator
from termite.engine.fleet.logic.pool_config import PoolConfig
from termite.engine.fleet.pool import REFUSED_REST_S, NoWorker, Pool
from termite.engine.launch import launcher_calls
from termite.engine.launch import listener as listeners
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.wire import identity, wire_calls
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import ListWorkers, Register, Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL
from termite.engine.wire.protocol.peer import Peer
from termite.engine.wire.tls import TlsStream
from termite.engine.wire.transport import Connection, SendChunk, dial
from termite.engine.worker import registration
from termite.engine.worker import worker_daemon as workers
from termite.engine.worker.registration import stay_registered
from termite.engine.worker.worker_daemon import WorkerConfig, serve_worker
from tests.edge.engine.fleet.test_pool import SECRET, FakeWorker, pool

FULL = OSError(EMFILE, os.strerror(EMFILE))
SHORTAGES = [FULL, MemoryError()]
HOST = "127.0.0.1"


class Failing:
    """A function that raises `error` for the next `times` calls, and then does as `real`."""

    def __init__(self, real: Callable[..., Any], error: Exception, times: int = 0) -> None:
        self.real = real
        self.error = error
        self.times = times

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.times:
            self.times -= 1
            raise self.error
        return self.real(*args, **kwargs)


async def nothing(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


async def wait_until_listed(made: Pool) -> None:
    """Wait until the pool knows a worker."""
    while not made.fleet.workers:
        await trio.lowlevel.checkpoint()


@pytest.fixture(params=SHORTAGES, ids=["EMFILE", "MemoryError"])
def memfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Let the file fail that each TLS context needs."""
    failing = Failing(os.memfd_create, request.param)
    monkeypatch.setattr(wire_calls, "memfd_create", failing)
    return failing


async def test_a_handshake_without_a_descriptor_is_retryable(memfd: Failing) -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, HOST, 0))
        memfd.times = 1
        with pytest.raises(Retryable) as caught:
            async with dial(*split_address(address, 0), mint(SECRET, "m", Role.CLIENT), nothing):
                raise AssertionError
        assert caught.value.reason is Reason.NO_RESOURCES
        nursery.cancel_scope.cancel()


async def test_a_lease_without_a_descriptor_is_tried_again_and_the_master_lives(memfd: Failing) -> None:
    async with pool(FakeWorker(1)) as made:
        await wait_until_listed(made)
        memfd.times = 1
        async with made.slot():
            pass
        assert memfd.times == 0


async def test_a_bug_in_one_lease_does_not_end_the_master(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(Pool._open_message, RuntimeError("a bug"), times=1)
    monkeypatch.setattr(Pool, "_open_message", lambda *args: failing(*args))
    async with pool(FakeWorker(1)) as made, made.slot():
        pass
    assert "lease-failed" in caplog.text


@pytest.mark.logs("coordinator-failed", "coordinator-found")
@pytest.mark.parametrize("error", SHORTAGES, ids=["EMFILE", "MemoryError"])
async def test_a_master_whose_handshake_with_the_coordinator_fails_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing = Failing(coordinator_link._take_lists, error, times=2)
    monkeypatch.setattr(coordinator_link, "_take_lists", lambda *args: failing(*args))
    async with pool(FakeWorker(1)) as made:
        await wait_until_listed(made)


@pytest.mark.attack
@pytest.mark.logs("peer-refused")
async def test_a_coordinator_without_a_descriptor_serves_the_next_peer(memfd: Failing) -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, HOST, 0))
        context = mint(SECRET, "m", Role.CLIENT).client_context()
        memfd.times = 1
        stream = await trio.open_tcp_stream(*split_address(address, 0))
        with pytest.raises(Retryable):
            await TlsStream(stream, context, identity.SERVER_NAME).shake_hands("it")
        async with dial(*split_address(address, 0), mint(SECRET, "m", Role.CLIENT), nothing) as connection:
            assert isinstance(await connection.request(ListWorkers(PROTOCOL, 0)), Workers)
        nursery.cancel_scope.cancel()


@pytest.mark.attack
async def test_a_peer_that_has_gone_costs_the_coordinator_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, HOST, 0))
        stream = await trio.open_tcp_stream(*split_address(address, 0))
        secure = TlsStream(stream, mint(SECRET, "w", Role.CLIENT).client_context(), identity.SERVER_NAME)
        async with dial(*split_address(address, 0), mint(SECRET, "m", Role.CLIENT), nothing) as connection:
            await secure.shake_hands("it")
            ask = Peer(client=True).ask(Register(PROTOCOL, "w", ":1", 1, 0, 0.0, 0), chunks=False)[1]
            secure.send_nowait(ask)
            # The reset follows the request immediately, so that the request is read when nobody is
            # there.
            secure._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            secure._socket.close()
            assert isinstance(await connection.request(ListWorkers(PROTOCOL, 0)), Workers)
        nursery.cancel_scope.cancel()
    assert "Traceback" not in caplog.text
    assert "request-failed" not in caplog.text


@pytest.mark.logs("coordinator-failed")
@pytest.mark.parametrize("error", SHORTAGES, ids=["EMFILE", "MemoryError"])
async def test_a_worker_whose_registration_fails_registers_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing = Failing(dial_coordinator, error, times=1)
    monkeypatch.setattr(registration, "dial_coordinator", failing)
    monkeypatch.setattr(registration, "FIRST_PAUSE_S", 0.01)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, HOST, 0))
        beat = Register(PROTOCOL, "w", ":1235", 1, 0, 0.0, 0)
        nursery.start_soon(stay_registered, *split_address(address, COORDINATOR_PORT), SECRET, "w", lambda: beat)
        async with dial(*split_address(address, 0), mint(SECRET, "m", Role.CLIENT), nothing) as connection:
            version = 0
            with trio.fail_after(10):
                while not (listed := await connection.request(ListWorkers(PROTOCOL, version))).workers:  # type: ignore[attr-defined]
                    version = listed.version  # type: ignore[attr-defined]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [*SHORTAGES, ExceptionGroup("tasks", [FULL])], ids=["EMFILE", "MemoryError", "group"])
async def test_a_worker_that_cannot_start_one_mirror_serves_the_next_master(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    served = trio.Event()

    @asynccontextmanager
    async def run_mirror(*args: object) -> AsyncIterator[object]:
        served.set()
        raise RuntimeError("there is no program for a mirror")
        yield

    failing = Failing(run_mirror, error, times=1)
    monkeypatch.setattr(workers, "run_mirror", failing)
    monkeypatch.setattr(workers, "STRANGER_REST_S", 0.0)
    config = WorkerConfig(SECRET, 1, "", tmp_path / "cache", tmp_path, tmp_path, True, None, "w", HOST, 0)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_worker, config)
        for _ in range(2):
            async with await trio.open_tcp_stream(*split_address(address, 0)) as stream:
                await stream.send_all(b"\x16\x03\x01\x00\x00")  # an empty record of a TLS handshake
                with suppress(trio.BrokenResourceError):  # the worker has not read the hello
                    await stream.receive_some()
        await served.wait()
        nursery.cancel_scope.cancel()
    assert "mirror-crashed" in caplog.text


async def test_no_memory_in_a_task_of_a_connection_loses_that_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(Connection._take, MemoryError())
    monkeypatch.setattr(Connection, "_take", lambda *args: failing(*args))
    async with pool(FakeWorker(1)) as made:
        async with made.slot() as lease:
            connection = lease._connection
            assert connection is not None
            failing.times = 1
            with pytest.raises(Retryable):
                await connection.request(ListWorkers(PROTOCOL, 0), timeout_s=5)
        async with made.slot() as again:
            assert again is not lease


@pytest.mark.logs("launcher-not-accepted")
async def test_no_memory_for_a_launchers_connection_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "ACCEPT_RETRY_S", 0.01)

    times = iter((1, 2))

    def accept(listening: socket.socket) -> tuple[socket.socket, object]:
        if next(times, 0):
            raise MemoryError
        return listening.accept()

    monkeypatch.setattr(launcher_calls, "accept", accept)
    watcher = FdWatcher()
    accepted = trio.Event()
    listener = listeners.LauncherListener(None, None, watcher)  # type: ignore[arg-type]  # no launcher says anything
    monkeypatch.setattr(listener, "serve_connection", lambda connection: (connection.close(), accepted.set()))
    with socket.create_server((HOST, 0)) as server:
        server.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            nursery.start_soon(listener.listen, server)
            async with await trio.open_tcp_stream(*server.getsockname()):
                with trio.fail_after(5):
                    await accepted.wait()
            nursery.cancel_scope.cancel()


# -- refusals ---------------------------------------------------------------------------------------------------------


class CorruptingWorker(FakeWorker):
    """A worker behind a line that damages one byte of the first connection."""

    def __init__(self, position: int) -> None:
        super().__init__(1)
        self.position = position
        self.connected = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connected += 1
        if self.connected > 1:
            await super().serve(stream)
            return
        (inner,) = await trio.open_tcp_listeners(0, host=HOST)
        async with inner, trio.open_nursery() as nursery:
            near = await trio.open_tcp_stream(*inner.socket.getsockname())
            nursery.start_soon(self._serve_once, await inner.accept())
            nursery.start_soon(self._forward, stream, near, self.position)
            nursery.start_soon(self._forward, near, stream, -1)

    async def _serve_once(self, stream: trio.SocketStream) -> None:
        try:
            await super().serve(stream)
        except UserError:
            await stream.aclose()

    async def _forward(self, source: trio.SocketStream, target: trio.SocketStream, position: int) -> None:
        try:
            async for received in source:
                content = bytearray(received)
                if 0 <= position < len(content):
                    content[position] ^= 0x55
                position -= len(content)
                await target.send_all(content)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await source.aclose()
        await target.aclose()


@pytest.mark.parametrize("position", [3, 60, 200, 700])
async def test_a_damaged_byte_in_a_handshake_costs_seconds(position: int) -> None:
    worker = CorruptingWorker(position)
    async with pool(worker) as made:
        with trio.fail_after(15):
            while True:
                try:
                    async with made.slot():
                        break
                except NoWorker:  # a handshake that hangs has a deadline of its own
                    continue
    assert worker.connected == 2


@pytest.mark.parametrize(
    ("reasons", "is_left_alone"),
    [
        ([Reason.NOT_TRUSTED], False),
        ([Reason.NOT_TRUSTED, Reason.UNFIT_WORKER], False),
        ([Reason.NOT_TRUSTED, Reason.NO_ANSWER, Reason.NOT_TRUSTED], False),
        ([Reason.NOT_TRUSTED, Reason.NOT_TRUSTED], True),
        ([Reason.CLOCKS_DIFFER] * 2, True),
    ],
)
def test_only_a_worker_that_is_refused_twice_for_one_reason_rests(
    reasons: list[Reason], is_left_alone: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    config = PoolConfig((HOST, 1), SECRET, "m", 0, 0, 0, b"home", b"")
    made = Pool(config, lambda: 0, lambda *_: None)  # type: ignore[arg-type]  # nobody asks
    rest_s = 0.0
    for reason in reasons:
        error = Retryable(reason) if reason is Reason.NO_ANSWER else UserError("refused", reason=reason)
        rest_s = made._note_failure("w", error)
    assert rest_s == (REFUSED_REST_S if is_left_alone else 0.0)
    assert ("worker-refused" in caplog.text) == is_left_alone
