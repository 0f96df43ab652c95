"""A TCP relay that is as slow as a given link: it limits and delays the bytes of each direction.

    python -m bench.relay HOST:PORT DELAY_S FORTH_BYTES_S BACK_BYTES_S

The relay prints the address on which it listens. SIGUSR1 makes it thin, which it is at the start.
SIGUSR2 opens it: then it passes all bytes on as fast as it can. `forth` is the direction of the
bytes that the connecting side (the master) sends.
"""

import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from termite.engine.wire.addresses import listen, port_of, split_address

HOST = "127.0.0.1"
CHUNK_BYTES = 16 * 1024
QUEUED = 64  # chunks that may be underway in one direction: 1 MiB, far more than the link holds


@dataclass(slots=True)
class Link:
    """A link is one direction of the line.

    `free_at` is the time at which the last accepted byte leaves the sender's end.
    """

    bytes_s: float
    delay_s: float
    free_at: float = 0.0

    def arrival(self, now: float, size: int) -> float:
        """Accept `size` bytes at time `now`; return the time at which they reach the other end."""
        self.free_at = max(self.free_at, now) + size / self.bytes_s
        return self.free_at + self.delay_s


class Relay:
    """A relay passes connections on to `target`; they share its two links, as on a real line."""

    def __init__(self, target: tuple[str, int], forth: Link, back: Link) -> None:
        self.is_thin = True
        self._target = target
        self._forth = forth
        self._back = back

    async def serve(self, near: trio.SocketStream) -> None:
        """Pass one connection on in both directions until one side closes it."""
        async with near, await trio.open_tcp_stream(*self._target) as far, trio.open_nursery() as nursery:
            for source, sink, link in ((near, far, self._forth), (far, near, self._back)):
                nursery.start_soon(self.pass_on, source, sink, link, nursery.cancel_scope)

    async def pass_on(
        self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, link: Link, scope: trio.CancelScope
    ) -> None:
        """Pass all bytes from `source` to `sink`; cancel the connection's `scope` at the end."""
        arriving, on_its_way = trio.open_memory_channel[tuple[float, bytes]](QUEUED)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_deliver, on_its_way, sink)
                async with arriving:
                    while received := await source.receive_some(CHUNK_BYTES):
                        now = trio.current_time()
                        at = link.arrival(now, len(received)) if self.is_thin else now
                        await arriving.send((at, bytes(received)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # an end has closed the connection, as builds do
        scope.cancel()


async def _deliver(on_its_way: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.abc.SendStream) -> None:
    async for at, content in on_its_way:
        await trio.sleep_until(at)
        await sink.send_all(content)


async def _obey(relay: Relay, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        if number == signal.SIGTERM:
            scope.cancel()
        relay.is_thin = number == signal.SIGUSR1


async def serve(relay: Relay) -> None:
    """Listen on a free port, print it, and pass connections on until SIGTERM."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2) as signals:
        listeners = await listen(HOST, 0, "relay")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, relay, signals, nursery.cancel_scope)
            print(f"relay: listens on {HOST}:{port_of(listeners)}", flush=True)
            await trio.serve_listeners(relay.serve, listeners)


def main() -> None:
    """Run the relay of the command line."""
    target, delay_s, forth, back = sys.argv[1:]
    links = Link(float(forth), float(delay_s)), Link(float(back), float(delay_s))
    trio.run(serve, Relay(split_address(target, 0), *links))


if __name__ == "__main__":
    main()
