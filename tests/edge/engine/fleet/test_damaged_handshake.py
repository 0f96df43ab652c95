"""One damaged byte in a handshake costs a second attempt, and not a minute without the worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from termite.engine.errors import UserError
from tests.edge.engine.fleet.test_pool import FakeWorker, pool

LIMIT_S = 4.0  # half a second of rest, and a handshake on a busy machine
FROM_MASTER, FROM_WORKER = (0, 1, 3, 5, 60, 180, 400, 700), (0, 3, 5, 40, 90, 130, 300, 600, 900)


class Relay:
    """A relay to a worker, which changes one byte of its first connection."""

    def __init__(self, is_from_worker: bool, offset: int) -> None:
        self.connections = 0
        self._is_from_worker = is_from_worker
        self._offset = offset

    async def pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, is_bad: bool) -> None:
        passed = 0
        try:
            async for received in source:
                piece = bytearray(received)
                at = self._offset - passed
                if is_bad and 0 <= at < len(piece):
                    piece[at] ^= 0x10
                passed += len(piece)
                await sink.send_all(piece)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.aclose()

    async def serve(self, near: trio.SocketStream, port: int) -> None:
        self.connections += 1
        is_first = self.connections == 1
        async with near, await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
            nursery.start_soon(self.pass_on, near, far, is_first and not self._is_from_worker)
            nursery.start_soon(self.pass_on, far, near, is_first and self._is_from_worker)


@asynccontextmanager
async def through(relay: Relay, worker: FakeWorker) -> AsyncIterator[str]:
    """Yield the address of a worker behind the relay."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(UserError):
            await worker.serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        doors = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, lambda near: relay.serve(near, port), doors)
        yield f"127.0.0.1:{doors[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("is_from_worker", "offset"),
    [(False, offset) for offset in FROM_MASTER] + [(True, offset) for offset in FROM_WORKER],
)
async def test_one_damaged_byte_costs_one_attempt(
    monkeypatch: pytest.MonkeyPatch, is_from_worker: bool, offset: int
) -> None:
    monkeypatch.setattr("termite.engine.wire.tls.HANDSHAKE_S", 1.0)  # a damaged length is waited for
    relay = Relay(is_from_worker, offset)
    async with through(relay, FakeWorker(1)) as address, pool(FakeWorker(0), odd=address) as made:
        start = trio.current_time()
        async with made.slot():
            pass
        assert trio.current_time() - start < LIMIT_S
    assert relay.connections == 2
