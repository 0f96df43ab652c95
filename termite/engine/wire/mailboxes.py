"""Keep what a connection has received for its requests, and what it has to send.

A posted frame is written immediately. If the socket is full, the frame and all later ones are
queued, and the writer task sends the queue as one write. A large message comes in parts, which are
made one by one as there is room for them.
"""

from collections import deque
from collections.abc import Callable, Iterator

import trio

from termite.engine.wire.protocol.peer import Chunked, Replied
from termite.engine.wire.tls import TlsStream, why_broken

BACKLOG_BYTES = 512 * 1024  # of queued frames; a task that wants to post more waits


class Inbox:
    """The chunks and the reply of one request of ours that its task has not processed yet."""

    __slots__ = ("arrived", "parked")

    def __init__(self) -> None:
        self.arrived: deque[Chunked | Replied] = deque()
        self.parked = trio.lowlevel.ParkingLot()

    def put(self, event: Chunked | Replied) -> None:
        """Add an event, and wake the task."""
        self.arrived.append(event)
        self.parked.unpark_all()


class Outbox:
    """The frames of a connection that wait to be written.

    `lose` is called with the reason if the stream is broken, and calls `close`.
    """

    def __init__(self, stream: trio.abc.Stream, lose: Callable[[str], None]) -> None:
        self.backlog_bytes = 0
        self.sent_bytes = 0
        self.writes = 0
        self._stream = stream
        self._lose = lose
        self._send_nowait = stream.send_nowait if isinstance(stream, TlsStream) else None
        self._is_behind = False  # the writer task has something to write
        self._is_closed = False
        self._queue: list[bytes] = []
        self._posted = trio.lowlevel.ParkingLot()
        self._sent = trio.lowlevel.ParkingLot()
        self._parting = trio.Lock()  # held by the task that sends the parts of a message

    def post(self, frame: bytes) -> None:
        """Write a frame or queue it, unless it is b"" or the outbox is closed."""
        if not frame or self._is_closed:
            return
        self.sent_bytes += len(frame)
        if self._send_nowait is None or self._is_behind:
            self._queue.append(frame)
        else:
            try:
                self.writes += 1
                if self._send_nowait(frame):
                    return
            except trio.BrokenResourceError as error:
                self._lose(why_broken(error))
                return
        self._is_behind = True
        self.backlog_bytes += len(frame)
        self._posted.unpark_all()

    async def post_parts(self, parts: Iterator[bytes]) -> None:
        """Post the parts of one message, and let other tasks run and post between two of them."""
        async with self._parting:
            while not self._is_closed:
                if self.backlog_bytes > BACKLOG_BYTES:
                    await self._sent.park()
                elif part := next(parts, b""):
                    self.post(part)
                    await trio.lowlevel.checkpoint()
                else:
                    return

    @property
    def is_full(self) -> bool:
        """True if `wait_for_room` would wait."""
        return self.backlog_bytes > BACKLOG_BYTES and not self._is_closed

    async def wait_for_room(self) -> None:
        """Wait while too much is queued, and the outbox is not closed."""
        while self.is_full:
            await self._sent.park()

    async def wait_until_written(self) -> None:
        """Wait until nothing is queued, or the outbox is closed."""
        while self.backlog_bytes and not self._is_closed:
            await self._sent.park()

    async def run(self) -> None:
        """Write what is queued, until the stream is broken. This is the writer task."""
        try:
            while True:
                while not self._is_behind:
                    await self._posted.park()
                batch = self._queue[0] if len(self._queue) == 1 else b"".join(self._queue)
                self._queue.clear()
                size = self.backlog_bytes
                await self._stream.send_all(batch)
                self.writes += 1
                self.backlog_bytes -= size
                self._is_behind = bool(self._queue)
                self._sent.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(why_broken(error))

    def close(self) -> None:
        """Ignore all later frames, and wake the tasks that wait."""
        self._is_closed = True
        self._sent.unpark_all()
