"""Notice that the other side of a connection is silent, and have it pinged.

Every connection is pinged after SILENCE_S without a byte. If no byte comes for ANSWER_S after that,
the connection is lost. A connection that is watched closely is also pinged after CLOSE_SILENCE_S,
as long as an answer is awaited there. If no byte comes for CLOSE_ANSWER_S after that, the other
side counts as silent until its next byte. A connection on which bytes come is never pinged.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import trio

SILENCE_S = 10.0  # without a received byte; then a ping is sent
ANSWER_S = 20.0  # if no byte comes for this time after the ping, the connection is lost
CLOSE_SILENCE_S = 1.0  # the same for a connection on which a job runs
CLOSE_ANSWER_S = 2.0  # so that the other side counts as silent 3 s after its last byte
OVERSLEPT_S = 1.0  # if this process wakes so much later than it wanted, it stood still itself
# Of struct tcp_info in linux/tcp.h.
_INFO_BYTES = 148
_UNACKNOWLEDGED = struct.Struct("=24xI")  # tcpi_unacked, in packets
_COUNTS = struct.Struct("=120xQQ8xI")  # tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes


class Patience:
    """The deadlines of those who wait for something that a connection brings.

    A deadline counts silence: each piece that arrives moves all of them, because all messages share
    one line. A piece is a part of a message, a chunk, or bytes of a frame that is not complete.
    Short messages are none: pings come for ever.
    """

    def __init__(self) -> None:
        self._waiting: dict[trio.CancelScope, float] = {}  # with the seconds of silence that each allows

    @contextmanager
    def within(self, silence_s: float) -> Iterator[trio.CancelScope]:
        """Cancel the block after so many seconds of silence, as `trio.move_on_after` does."""
        with trio.move_on_after(silence_s) as scope:
            self._waiting[scope] = silence_s
            try:
                yield scope
            finally:
                del self._waiting[scope]

    def note_piece(self) -> None:
        """Move all deadlines, because a piece of a message has come or was taken."""
        if self._waiting:
            now_s = trio.current_time()
            for scope, silence_s in self._waiting.items():
                scope.deadline = now_s + silence_s


class LinkProgress(NamedTuple):
    """The bytes that the other machine has acknowledged and sent so far.

    `is_under_way` is True if it has not acknowledged everything.
    """

    acknowledged_bytes: int = 0
    received_bytes: int = 0
    is_under_way: bool = False

    def is_beyond(self, earlier: "LinkProgress") -> bool:
        """Return whether the link has moved bytes since `earlier`, and the peer is not at fault.

        The kernel of a machine acknowledges a few bytes even for a process that was stopped. Such
        bytes count only while others still wait.
        """
        has_taken = self.is_under_way and self.acknowledged_bytes > earlier.acknowledged_bytes
        return has_taken or self.received_bytes > earlier.received_bytes


def read_progress(connection: trio.socket.SocketType) -> LinkProgress:
    """Return the progress of a TCP connection. Other sockets, and closed ones, never progress."""
    try:
        text = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return LinkProgress()
    if len(text) < _INFO_BYTES:  # an older kernel
        return LinkProgress()
    acknowledged, received, unsent = _COUNTS.unpack_from(text)
    return LinkProgress(acknowledged, received, bool(unsent or _UNACKNOWLEDGED.unpack_from(text)[0]))


@dataclass(frozen=True, slots=True)
class WatchedLine:
    """The connection under watch.

    `is_asking` returns whether an answer is awaited. `ping` sends a ping. `progress` returns how
    far the kernels of the two machines are.
    """

    is_asking: Callable[[], bool]
    ping: Callable[[], None]
    progress: Callable[[], LinkProgress]


class SilenceWatch:
    """The watch over one connection. The connection notes each arrival in `heard_s`.

    If `is_resting`, a new request must call `wake`. If `is_pinged`, an arrival must call
    `note_answer`. Both are attributes because they are checked for each message.
    """

    def __init__(self, line: WatchedLine) -> None:
        self.heard_s = trio.current_time()
        self.is_resting = False
        self.is_pinged = False
        self.is_silent = False
        self._line = line
        self._is_close = False
        self._began_s = self.heard_s  # silence before this time does not count
        self._woken = trio.lowlevel.ParkingLot()
        self._changed = trio.lowlevel.ParkingLot()

    def watch_closely(self) -> None:
        """Watch the connection closely from now on."""
        self._is_close = True
        self.wake()

    def wake(self) -> None:
        """Note that an answer is awaited from now on."""
        self.is_resting = False
        self._began_s = trio.current_time()
        self._woken.unpark_all()

    def note_answer(self) -> None:
        """Note that a byte has come after a ping."""
        self.is_pinged = False
        self._woken.unpark_all()
        self._set_silent(is_silent=False)

    async def wait_change(self) -> None:
        """Wait until the other side becomes silent, or answers again."""
        await self._changed.park()

    async def run(self) -> None:
        """Watch until the connection counts as lost, or until cancelled."""
        while True:
            await self._wait_for_silence()
            self.is_pinged = True
            before = self._line.progress()
            self._line.ping()
            if await self._is_lost(trio.current_time(), before):
                return
            self.is_pinged = self.is_silent

    @property
    def silent_since_s(self) -> float:
        """The time from which the other side is silent, or was heard the last time."""
        return max(self.heard_s, self._began_s)

    async def _wait_for_silence(self) -> None:
        while True:
            is_close = self._is_close and self._line.is_asking()
            self.is_resting = self._is_close and not is_close
            due_s = self.silent_since_s + (CLOSE_SILENCE_S if is_close else SILENCE_S)
            if trio.current_time() >= due_s:
                self.is_resting = False
                return
            await self._sleep_until(due_s)

    async def _is_lost(self, pinged_s: float, before: LinkProgress) -> bool:
        """Wait for a byte after a ping, and return whether the connection is lost.

        On a slow link a ping waits behind what was sent before. While that moves, nobody is silent.
        """
        lost_s = max(self.silent_since_s + SILENCE_S, pinged_s) + ANSWER_S
        while self.is_pinged:
            is_asking = self._line.is_asking()
            self.is_resting = self._is_close and not is_asking
            is_close = self._is_close and is_asking and not self.is_silent
            is_due = await self._sleep_until(min(pinged_s + CLOSE_ANSWER_S, lost_s) if is_close else lost_s)
            if self._began_s > pinged_s:
                return False
            if is_due and self._line.progress().is_beyond(before):
                self._began_s = trio.current_time()
                return False
            if is_due and trio.current_time() >= lost_s:
                return True
            if is_due and is_close:
                self._set_silent(is_silent=True)
        return False

    async def _sleep_until(self, due_s: float) -> bool:
        """Sleep, and return True at `due_s`, or False if woken earlier.

        If this process stood still, arrivals may wait to be read, and the silence begins anew.
        """
        with trio.move_on_at(due_s) as patience:
            await self._woken.park()
        if patience.cancelled_caught and trio.current_time() > due_s + OVERSLEPT_S:
            self._began_s = trio.current_time()
            return False
        return patience.cancelled_caught

    def _set_silent(self, *, is_silent: bool) -> None:
        if self.is_silent is not is_silent:
            self.is_silent = is_silent
            self._changed.unpark_all()
