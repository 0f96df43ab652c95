"""Fill the pipe that is a job's standard input when, and only when, the job waits for it.

Other programs may share the stream on the master's machine, so bytes that the job does not ask for
must stay there. While the pipe is empty, `PipeWatcher` looks for a thread that waits for it. A read
says how many bytes it wants, and just these are taken from the stream. A poll says no number. It is
shown the bytes of one read (`peek`), which stay in the stream too, if possible, until the job has
read them.
"""

import array
import fcntl
import os
import platform
import termios
from types import TracebackType
from typing import Self

import trio

from termite.engine.errors import FsError, Reason, Retryable, TermiteError
from termite.engine.wire.protocol.messages import ReadStdin, StdinBytes, StdinTaken
from termite.engine.wire.transport import Connection
from termite.fuse import mirror_calls
from termite.fuse.running_jobs import RunningJob
from termite.fuse.stdin.pipe_watcher import PEEKED_BYTES, PipeWatcher, StdinDemand

# The pause between two searches for a waiting thread. A job that reads all the time is served at
# once; one that computes for seconds costs twenty searches a second.
MIN_PAUSE_S, MAX_PAUSE_S = 0.0005, 0.05
PAUSE_GROWTH = 1.5


class StdinSource:
    """The master, as the source of the streams that its launchers read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, job: RunningJob, size: int, *, offset: int = -1, peek: bool = False) -> bytes:
        """Read at most `size` bytes of a job's standard input; b"" is its end.

        `offset` is a position in a file, or -1 for a stream. `peek` leaves the bytes in the stream.
        Wait without a limit. Raises FsError if the input cannot be read or the job must die, and
        another TermiteError if the connection fails. The job fails, or runs once more.
        """

        async def ask() -> bytes:
            reply = await self._connection.request(ReadStdin(job.number, size, offset, peek))
            if not isinstance(reply, StdinBytes):
                raise Retryable(Reason.BAD_ANSWER, f"{type(reply).__name__} in place of StdinBytes")
            return reply.content

        return await job.wait(ask)

    async def notify_taken(self, job: RunningJob, taken: int) -> None:
        """Notify the master that the job has read `taken` bytes in all. Raises TermiteError."""
        await self._connection.request(StdinTaken(job.number, taken))


class StdinPipe:
    """The pipe of one job, used in a `with` statement. The sandbox gets the descriptor `reader`."""

    def __init__(self) -> None:
        self.reader, self._writer = mirror_calls.pipe()
        os.set_blocking(self._writer, False)
        self._capacity = fcntl.fcntl(self._writer, fcntl.F_GETPIPE_SZ)
        self._watcher = PipeWatcher(mirror_calls.fstat(self.reader).st_ino, platform.machine())
        self._written = 0
        self._peeked = 0  # bytes in the pipe that are still in the stream too

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()
        os.close(self.reader)

    @property
    def taken(self) -> int:
        """The number of bytes that the job has read."""
        return self._written - self._left()

    async def feed(self, job: RunningJob, source: StdinSource) -> None:
        """Feed the pipe until the stream ends, or until cancelled.

        If the stream cannot be read, the job must not take that for its end. The job is stopped
        then, and runs once more.
        """
        try:
            await self._feed(job, source)
        except TermiteError as error:
            if not job.is_ending:
                reason = os.strerror(error.errno) if isinstance(error, FsError) else str(error)
                job.retry(Retryable(Reason.STDIN_UNREADABLE, reason))

    def end(self) -> None:
        """Close the pipe for writing: the job reads its end when it has read the rest."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    async def _feed(self, job: RunningJob, source: StdinSource) -> None:
        pause_s = MIN_PAUSE_S
        while True:
            await trio.sleep(pause_s)
            pause_s = min(PAUSE_GROWTH * pause_s, MAX_PAUSE_S)
            left = self._left()
            demand = await self._find_demand(job.pid) if not left and job.pid else None
            if demand is not None:
                content = await source.read(job, min(demand.size, self._capacity), peek=not demand.is_exact)
                if not content:
                    self.end()
                    return
                await self._write(content)
                self._peeked = 0 if demand.is_exact else len(content)
                pause_s = MIN_PAUSE_S
            elif left < self._peeked:  # other readers of the stream must not see these bytes a second time
                self._peeked = left
                await source.notify_taken(job, self._written - left)

    async def _find_demand(self, pid: int) -> StdinDemand | None:
        if fcntl.fcntl(self.reader, fcntl.F_GETFL) & os.O_NONBLOCK:
            return StdinDemand(PEEKED_BYTES, is_exact=False)  # the job may read without ever being blocked
        # This runs in a thread, because the memory of a process may have to be read from its
        # program, which is in our own mount.
        return await trio.to_thread.run_sync(
            self._watcher.find_demand, pid, trio.current_time(), abandon_on_cancel=True
        )

    async def _write(self, content: bytes) -> None:
        while content:
            try:
                written = mirror_calls.write(self._writer, content)
                content = content[written:]
                self._written += written
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._writer)

    def _left(self) -> int:
        """Return the number of bytes in the pipe."""
        count = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, count)
        return count[0]
