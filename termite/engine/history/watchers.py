"""Send a master's events to the readers of its live stream, none of which it ever waits for."""

from collections.abc import Awaitable, Callable

import trio

from termite.engine.history.logic.event_queue import EventQueue
from termite.engine.history.logic.live_events import Event, Missed, Snapshot, pack_event
from termite.engine.wire.protocol import launcher_frames

PAUSE_S = 0.05  # between two writes to one reader, so that a busy master makes few system calls

SendFrames = Callable[[bytes], Awaitable[None]]


class Watchers:
    """The readers of one master's live stream. `snapshot` returns the present state.

    The state must change together with `emit`, without an `await` between them.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._readers: set[_Reader] = set()
        self.are_there = False  # True if anybody reads; otherwise nobody needs to make events

    def emit(self, event: Event) -> None:
        """Put an event into the queue of each reader. This never blocks and never fails."""
        if not self._readers:
            return
        frame = launcher_frames.frame(launcher_frames.EVENT, pack_event(event))
        for reader in self._readers:
            reader.queue.add(frame)
            reader.is_filled.set()

    async def serve(self, send: SendFrames) -> None:
        """Send the present state and then all events to a new reader, until cancelled.

        `send` may block for as long as the reader is stopped. Its errors end the call.
        """
        reader = _Reader()
        self._readers.add(reader)
        self.are_there = True
        try:
            await send(self._snapshot_frame())
            while True:
                await reader.is_filled.wait()
                reader.is_filled = trio.Event()
                frames, missed = reader.queue.take()
                if missed:
                    frames = (
                        launcher_frames.frame(launcher_frames.EVENT, pack_event(Missed(missed)))
                        + self._snapshot_frame()
                    )
                await send(frames)
                await trio.sleep(PAUSE_S)
        finally:
            self._readers.discard(reader)
            self.are_there = bool(self._readers)

    def _snapshot_frame(self) -> bytes:
        return launcher_frames.frame(launcher_frames.EVENT, pack_event(self._snapshot()))


class _Reader:
    """A reader: what waits for it, and an event that is set when something does."""

    def __init__(self) -> None:
        self.queue = EventQueue()
        self.is_filled = trio.Event()
