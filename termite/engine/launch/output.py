"""Hold a job's output until its result is accepted, and show it once if the job runs twice.

A job runs again if its worker was lost or its result was refused. The launcher cannot take back
output that it has printed. Therefore output is held for a moment, so that nearly no job has shown
anything when it has to run again. Output of a later run is compared with the output that was shown.
"""

import hashlib
import logging
import math
from collections import deque

import trio

from termite.engine.errors import TermiteError
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import JobRequest, OutputKind
from termite.engine.launch.output_tail import OutputTail

HOLD_S = 1.0  # a person or a pipe waits at most this long for the first output
HELD_BYTES = 64 * 1024  # a quarter of a socket's buffer, so that releasing it does not block
PUSH_RETRY_S = 0.05  # the launcher's socket was full
# For each of stdout and stderr. Output beyond it is compared by its hash, at its end.
KEPT_OUTPUT_BYTES = 1024 * 1024
KEPT_RUN_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 100  # what a piece takes beside its content; a program may write byte by byte
RAN_TWICE = "termite: 1 command ran again and printed something else; some output above may be of the first run"
# Kinds of stdout and stderr that nobody reads before the end of the job.
UNREAD = {OutputKind.FILE, OutputKind.NULL, OutputKind.COLLECTED}


log = logging.getLogger(__name__)


class OutputDiffers(TermiteError):
    """An error about a job: a later run printed something else than the launcher has shown.

    `run_job` ends the job, because no reader of a pipe or a file can be told.
    """


class HeldOutputs:
    """The outputs that are held now, each with the time at which it is due.

    Every output is held for the same time, so the queue is in order. Most outputs are released
    before they are due and are skipped then; the timer wakes about once a second in a busy build.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[float, JobOutput]] = deque()
        self._is_filled = trio.Event()

    def add(self, output: "JobOutput") -> float:
        """Release `output` in HOLD_S from now, and return that time."""
        due_s = trio.current_time() + HOLD_S
        self._queue.append((due_s, output))
        self._is_filled.set()
        return due_s

    async def run(self) -> None:
        """Release outputs that are due, until cancelled."""
        while True:
            while self._queue:
                due_s, output = self._queue[0]
                if output.due_s != due_s:
                    self._queue.popleft()
                elif due_s > trio.current_time():
                    await trio.sleep_until(due_s)
                else:
                    self._queue.popleft()
                    self._release(output)
            self._is_filled = trio.Event()
            await self._is_filled.wait()

    def _release(self, output: "JobOutput") -> None:
        try:
            is_sent = output.release_due()
        except Exception:  # around one job, whose next frame sends its output: the others and the master go on
            log.exception("output-not-released pid=%d", output.launcher.pid)
            return
        if not is_sent:
            output.due_s = trio.current_time() + PUSH_RETRY_S
            self._queue.appendleft((output.due_s, output))


class JobOutput:
    """The output of one job, which the launcher gets once even if the job runs twice.

    `due_s` is the time at which held output is released, or infinity if nobody waits for it. `tail`
    is the end of what the present run has written, `kept` all of it, or None if nobody wants it.
    """

    def __init__(self, launcher: Launcher, request: JobRequest, held_outputs: HeldOutputs) -> None:
        self.launcher = launcher
        self._held_outputs = held_outputs
        self._shown = {1: _Shown(request.out), 2: _Shown(request.err)}
        self._hold_s = hold_s(request)
        self._held: deque[tuple[int, bytes]] = deque()  # in order of arrival
        self._held_bytes = 0
        self._is_streaming = False  # True if output of this run is not held, or no longer
        self.due_s = math.inf
        self.tail = OutputTail()
        self.kept: KeptOutput | None = None
        self.rewind()

    async def forward(self, chunk: bytes) -> None:
        """Hold or forward the part of `chunk` that the launcher has not shown yet.

        The first byte of `chunk` is b"1" for stdout or b"2" for stderr. Block while the launcher's
        socket is full. Raise LauncherGone if the launcher has closed the connection, and
        OutputDiffers if an earlier run has shown other bytes and no terminal shows them.
        """
        fd = 2 if chunk[:1] == b"2" else 1
        content = chunk[1:]
        self.tail.add(content)
        if self.kept is not None:
            self.kept.add(fd, content)
        shown = self._shown[fd]
        if shown.is_ahead:
            content, differs = shown.skip(content)
            if differs:
                await self.launcher.notice(RAN_TWICE)
        if not content:
            return
        if self._is_streaming:
            shown.add(content)
            await self.launcher.output(fd, content)
            return
        self._held.append((fd, content))
        self._held_bytes += len(content)
        if self._held_bytes > HELD_BYTES:
            await self.flush()
        elif self.due_s == math.inf and self._hold_s != math.inf:
            self.due_s = self._held_outputs.add(self)

    def hold(self, fd: int, content: bytes) -> None:
        """Hold a part of a stored result, however long it is, until its publication is certain."""
        self.tail.add(content)
        self._held.append((fd, content))
        self._held_bytes += len(content)

    async def flush_large(self) -> None:
        """Forward the held output now if releasing it might block. Block and raise as `forward`."""
        if self._held_bytes > HELD_BYTES:
            await self.flush()

    def rewind(self) -> None:
        """Prepare for another run of the job, which writes everything again. Drop held output."""
        self.drop()
        self.tail.clear()
        if self.kept is not None:
            self.kept.clear()
        self._is_streaming = not self._hold_s
        for shown in self._shown.values():
            shown.rewind()

    def drop(self) -> None:
        """Drop the held output, because its run does not count."""
        self._held.clear()
        self._held_bytes, self.due_s = 0, math.inf

    def forget(self) -> None:
        """Free what was kept of the output, but for its end: the job is done."""
        self.drop()
        self._shown.clear()
        self.kept = None

    async def check_end(self) -> None:
        """Compare the end of a run, which wrote all its output, with the output that was shown.

        Raise OutputDiffers if an earlier run has shown more and no terminal shows it.
        """
        differs = False
        for shown in self._shown.values():
            if shown.is_ahead:
                shown.refuse()
                differs = True
        if differs:
            await self.launcher.notice(RAN_TWICE)

    def release_nowait(self) -> None:
        """Hand the held output over to the launcher's next frame, sent in the same write."""
        while self._held:
            fd, content = self._held[0]
            self.launcher.queue_output(fd, content)
            self._held.popleft()  # after the line that may run out of memory
            self._shown[fd].add(content)
        self.drop()
        self._is_streaming = True

    async def flush(self) -> None:
        """Forward the held output now. Block and raise as `forward` does."""
        self.release_nowait()
        await self.launcher.push()

    def show_held_nowait(self) -> bool:
        """Forward all output that the launcher has not got yet, without blocking.

        Return False if the socket is full, so that only `push` can send the rest. Raise
        LauncherGone.
        """
        if self._held:
            self.release_nowait()
        return self.launcher.push_all_nowait()

    def release_due(self) -> bool:
        """Forward the held output without blocking. Return False if some must be tried again."""
        self.release_nowait()
        return self.launcher.push_nowait()

    @property
    def has_shown(self) -> bool:
        """True if the launcher has received any output."""
        return any(shown.size for shown in self._shown.values())


class KeptOutput:
    """All that a run has written, as pairs of the descriptor and the bytes.

    If that is more than KEPT_RUN_BYTES, nothing is kept, and `is_too_long`.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self._size = 0

    def add(self, fd: int, content: bytes) -> None:
        """Add what the run has written to 1 or 2."""
        self._size += len(content) + PIECE_BYTES
        if self.is_too_long:
            self.pieces.clear()
        else:
            self.pieces.append((fd, content))

    def clear(self) -> None:
        """Begin anew, because the run begins anew."""
        self.pieces.clear()
        self._size = 0

    @property
    def is_too_long(self) -> bool:
        """True if the run has written more than is kept."""
        return self._size > KEPT_RUN_BYTES


def hold_s(request: JobRequest) -> float:
    """Return for how long output is held: 0 means not at all, infinity until the job's end.

    A person at a terminal sees everything at once. A regular file, or a pipe that a build tool
    reads to its end before it prints, has no reader who waits.
    """
    out, err = request.out, request.err
    if out is OutputKind.TERMINAL or err is OutputKind.TERMINAL or request.is_stdin_terminal:
        return 0.0
    return math.inf if out in UNREAD and err in UNREAD else HOLD_S


class _Shown:
    """The bytes of one stream that the launcher received, and the position of the current run."""

    def __init__(self, kind: OutputKind) -> None:
        self.size = 0
        self._is_terminal = kind is OutputKind.TERMINAL
        self._at = 0
        self._kept = bytearray()
        self._rest: hashlib._Hash | None = None  # of the bytes behind `_kept`; None: there are none
        self._rest_of_run: hashlib._Hash | None = None

    def add(self, content: bytes) -> None:
        room = KEPT_OUTPUT_BYTES - len(self._kept)
        self._kept += content[:room]
        if len(content) > room:
            self._rest = self._rest or hashlib.sha256()
            self._rest.update(content[room:])
        self.size += len(content)
        self._at = self.size

    @property
    def is_ahead(self) -> bool:
        return self._at < self.size

    def rewind(self) -> None:
        self._at = 0
        self._rest_of_run = None

    def skip(self, content: bytes) -> tuple[bytes, bool]:
        """Return the bytes of `content` to show, and True if the run differs from the shown bytes.

        Raise OutputDiffers if it differs and no terminal shows the stream.
        """
        start = self._at
        repeated = content[: self.size - start]
        kept = bytes(self._kept[start : start + len(repeated)])
        if not repeated.startswith(kept):
            self.refuse()
            return bytes(self._kept[:start]) + content, True
        if beyond := repeated[len(kept) :]:
            self._rest_of_run = self._rest_of_run or hashlib.sha256()
            self._rest_of_run.update(beyond)
        self._at += len(repeated)
        is_equal = self.is_ahead or _digest(self._rest_of_run) == _digest(self._rest)
        if not is_equal:
            self.refuse()
        return content[len(repeated) :], not is_equal

    def refuse(self) -> None:
        """Raise OutputDiffers, or go on behind the shown bytes if a terminal shows them."""
        if not self._is_terminal:
            raise OutputDiffers
        self._at = self.size


def _digest(content: "hashlib._Hash | None") -> bytes:
    return content.digest() if content else b""
