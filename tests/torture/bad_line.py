"""A TCP relay between the master and one worker that delays, throttles, stalls, cuts or corrupts.

    python -m tests.torture.bad_line PORT

The program prints the port on which it listens on 127.0.0.1; PORT is the worker's. Each line of its
standard input is an order:

    delay SECONDS    pass each byte on so much later
    rate BYTES       pass on so many bytes a second in each direction; 0 is no limit
    stall, go        pass nothing on, and go on
    cut BYTES        break all connections after so many more bytes; 0: at once
    reset            break all connections at once by RST
    corrupt          change one bit of the next piece of at least 64 bytes
    refuse           close new connections at once
"""

import socket
import struct
import sys
from collections.abc import Callable

import trio

HOST = "127.0.0.1"
PIECE_BYTES = 16 * 1024
QUEUED = 64  # pieces on their way in one direction
CORRUPTIBLE_BYTES = 64  # a shorter piece may be a ping, whose loss is another fault


class BadLine:
    """A bad line passes connections on to `port` until it is told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._delay_s = 0.0
        self._rate = 0.0
        self._bytes_left: int | None = None
        self._is_corrupting = False
        self._is_refusing = False
        self._gate = trio.Event()
        self._gate.set()
        self._scopes: set[trio.CancelScope] = set()
        self._near: set[trio.SocketStream] = set()

    async def serve(self, near: trio.SocketStream) -> None:
        """Pass one connection on in both directions until one side ends or an order breaks it."""
        if self._is_refusing:
            await near.aclose()
            return
        try:
            async with near, await trio.open_tcp_stream(HOST, self._port) as far, trio.open_nursery() as nursery:
                self._scopes.add(nursery.cancel_scope)
                self._near.add(near)
                for source, sink in ((near, far), (far, near)):
                    nursery.start_soon(self._pass_on, source, sink, nursery.cancel_scope)
        except OSError:
            pass  # the worker does not listen: the connection ends, as it does without a relay
        finally:
            self._near.discard(near)

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        arriving, on_its_way = trio.open_memory_channel[tuple[float, bytes]](QUEUED)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver, on_its_way, sink)
                async with arriving:
                    while received := await source.receive_some(PIECE_BYTES):
                        await arriving.send((trio.current_time() + self._delay_s, bytes(received)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()
        self._scopes.discard(scope)

    async def _deliver(
        self, on_its_way: "trio.MemoryReceiveChannel[tuple[float, bytes]]", sink: trio.SocketStream
    ) -> None:
        async for at, piece in on_its_way:
            await trio.sleep_until(at)
            await self._gate.wait()
            if self._rate:
                await trio.sleep(len(piece) / self._rate)
            await sink.send_all(self._spoiled(piece))
            if self._bytes_left == 0:
                self._cut()

    def _spoiled(self, piece: bytes) -> bytes:
        """Return the bytes of a piece that pass, one bit changed if that was ordered."""
        if self._is_corrupting and len(piece) >= CORRUPTIBLE_BYTES:
            self._is_corrupting = False
            middle = len(piece) // 2
            return piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]
        if self._bytes_left is not None:
            piece = piece[: self._bytes_left]
            self._bytes_left -= len(piece)
        return piece

    def _cut(self) -> None:
        self._bytes_left = None
        scopes, self._scopes = self._scopes, set()
        for scope in scopes:
            scope.cancel()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        for stream in self._near:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._cut()

    def obey(self, order: str) -> None:
        """Carry out one order. A ValueError or KeyError is a bug of the sender."""
        word, _, number = order.partition(" ")
        orders: dict[str, Callable[[], None]] = {
            "delay": lambda: setattr(self, "_delay_s", float(number)),
            "rate": lambda: setattr(self, "_rate", float(number)),
            "stall": lambda: setattr(self, "_gate", trio.Event()),
            "go": lambda: self._gate.set(),
            "cut": lambda: setattr(self, "_bytes_left", int(number)) if int(number) else self._cut(),
            "reset": self._reset,
            "corrupt": lambda: setattr(self, "_is_corrupting", True),
            "refuse": lambda: setattr(self, "_is_refusing", True),
        }
        orders[word]()


async def _main(port: int) -> None:
    line = BadLine(port)
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    print(listeners[0].socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, line.serve, listeners)
        buffered = b""
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as orders:
            while received := await orders.receive_some():
                *lines, buffered = (buffered + received).split(b"\n")
                for order in lines:
                    line.obey(order.decode())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, int(sys.argv[1]))
