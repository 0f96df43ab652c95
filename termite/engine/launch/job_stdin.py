"""Pass the standard input of a job from its launcher to its worker.

A job runs again if its worker was lost. The launcher cannot read its input twice, so the input is
kept, and a second run reads the kept bytes.
"""

from contextlib import suppress
from errno import EIO, ESPIPE
from stat import S_ISREG

from termite.engine.errors import FsError
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import JobRequest

# A job that has read more cannot run again. Few remote jobs read their stdin.
KEPT_STDIN_BYTES = 16 * 1024 * 1024
HELD_FILE_BYTES = 1024 * 1024  # of a file that is part of what a command is known by


class JobStdin:
    """The standard input of one job, which is read from the launcher when the job asks for it.

    Bytes of a stream are kept for a second run. A file is read by position, and nothing is kept
    unless somebody calls `hold_file`. `held` is then the content of the file, or None.
    """

    def __init__(self, launcher: Launcher, request: JobRequest) -> None:
        self._launcher = launcher
        self._file = request.stdin_file
        self.held: bytes | None = None
        self._read = bytearray()
        self._at = 0
        self._dropped_bytes = 0
        self._runs = 0
        self._is_ended = not request.has_stdin or self._file is not None

    async def read(self, size: int, *, peek: bool = False) -> bytes:
        """Return up to `size` bytes of a stream, or b"" at its end.

        Block until the launcher has read some. With `peek`, the bytes also stay in the launcher's
        stdin if its kind allows that. Raise FsError for the job if the stdin cannot be read.
        """
        if self._at >= len(self._read) and not self._is_ended:
            run = self._runs
            content = await self._launcher.read_stdin(size, peek=peek)
            self._is_ended = not content
            self._read += content
            if run != self._runs:  # the run that asked was lost; the next one begins with these bytes
                raise FsError(EIO)
        given = bytes(self._read[self._at : self._at + size])
        self._at += len(given)
        self._forget()
        return given

    async def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` of a file; fewer only at its end.

        Raise FsError for the job if the stdin is no file or cannot be read.
        """
        if self._file is None:
            raise FsError(ESPIPE)
        if self.held is not None:
            return self.held[offset : offset + size]
        return await self._launcher.read_stdin_at(offset, size)

    async def hold_file(self) -> None:
        """Read a small file whole, so that each run reads the same. Nothing is consumed.

        Block until the launcher has read it. A stream, a large file, and one that cannot be read
        are left as they are.
        """
        file = self._file
        if self.held is None and file is not None and S_ISREG(file.mode) and file.size <= HELD_FILE_BYTES:
            with suppress(FsError):  # the job gets it when it reads
                self.held = await self._launcher.read_stdin_at(0, file.size) if file.size else b""

    async def consume(self, taken: int) -> None:
        """Consume the first `taken` bytes of the stream; later bytes may stay with the launcher."""
        await self._launcher.drop_stdin(self._total_bytes - taken)

    def rewind(self) -> None:
        """Prepare for another run of the job, which reads from the beginning.

        Raise FsError if the first bytes are no longer kept.
        """
        if not self.can_rewind:
            raise FsError(EIO)
        self._at = 0
        self._runs += 1

    def finish(self, offset: int, taken: int) -> int:
        """Apply the job's final stdin position to the launcher's stdin.

        `offset` is the final position in a file, or -1 if it is not known. `taken` is
        the number of bytes that the job consumed of a stream. Return how many bytes of a stream
        were consumed on the master's machine but never reached the job.
        """
        if self._file is not None:
            if offset not in (-1, self._file.offset):
                self._launcher.leave_stdin(stdin_offset=offset)
            return 0
        left = self._total_bytes - taken
        peeked = self._launcher.peeked_bytes
        if peeked > left:
            self._launcher.leave_stdin(stdin_taken=peeked - left)
        return max(left - peeked, 0) + self._launcher.unused_bytes

    @property
    def is_consumed(self) -> bool:
        """True if bytes were consumed from the launcher's stdin: no other process gets them."""
        return self._total_bytes > self._launcher.peeked_bytes or self._launcher.unused_bytes > 0

    @property
    def can_rewind(self) -> bool:
        """False if the first bytes are no longer kept."""
        return not self._dropped_bytes

    @property
    def _total_bytes(self) -> int:
        return self._dropped_bytes + len(self._read)

    def _forget(self) -> None:
        if self._at > KEPT_STDIN_BYTES:
            self._dropped_bytes += self._at
            del self._read[: self._at]
            self._at = 0
