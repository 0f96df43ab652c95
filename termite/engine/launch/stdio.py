"""Standard input and output of a job, between its launcher and its worker.

A job may run twice, when its worker was lost. Output that the launcher has passed on cannot be taken back, and input
that was read cannot be read again. So both are remembered here: the second run is compared with the first, and fed
from it.
"""

from errno import EIO, ESPIPE

from termite.engine.errors import FsError
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import Asked

# Of each of stdout and stderr. Beyond it a second run is trusted to say the same again.
KEPT_OUTPUT_BYTES = 1024 * 1024
# A job that has read more cannot be run again. Few remote jobs read their stdin at all.
KEPT_STDIN_BYTES = 16 * 1024 * 1024
AGAIN = "termite: the worker was lost and the command run again: some output above may be of the first run"


class Output:
    """What a job writes, on its way to the launcher. Chunks have b"1" or b"2" in front."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._kept = {1: bytearray(), 2: bytearray()}
        self._told = {1: 0, 2: 0}
        self._at = {1: 0, 2: 0}

    async def take(self, chunk: bytes) -> None:
        """Forward what the launcher was not told by an earlier run."""
        fd = 2 if chunk[:1] == b"2" else 1
        content = chunk[1:]
        repeated = min(len(content), self._told[fd] - self._at[fd])
        if repeated > 0:
            content = await self._skip(fd, content, repeated)
        if content:
            self._told[fd] += len(content)
            self._at[fd] = self._told[fd]
            room = KEPT_OUTPUT_BYTES - len(self._kept[fd])
            self._kept[fd] += content[: max(room, 0)]
            await self._launcher.output(fd, content)

    def begin_again(self) -> None:
        """The job is run again, from its beginning."""
        self._at = {1: 0, 2: 0}

    @property
    def is_told(self) -> bool:
        """True once the launcher was told anything."""
        return any(self._told.values())

    async def _skip(self, fd: int, content: bytes, repeated: int) -> bytes:
        at = self._at[fd]
        kept = bytes(self._kept[fd][at : at + repeated])
        if content.startswith(kept):
            self._at[fd] += repeated
            return content[repeated:]
        # It says something else this time: all of that, after a word that explains it.
        self._at[fd] = self._told[fd]
        await self._launcher.notice(AGAIN)
        return bytes(self._kept[fd][:at]) + content


class Stdin:
    """What a job reads, on its way from the launcher. A file is read by position, and needs no memory."""

    def __init__(self, launcher: Launcher, asked: Asked) -> None:
        self._launcher = launcher
        self._file = asked.stdin_file
        self._read = bytearray()
        self._at = 0
        self._dropped_bytes = 0
        self._runs = 0
        self._is_ended = not asked.has_stdin or self._file is not None

    async def read(self, size: int, *, peek: bool = False) -> bytes:
        """Up to `size` bytes; none at the end."""
        if self._at >= len(self._read) and not self._is_ended:
            run = self._runs
            content = await self._launcher.read_stdin(size, peek=peek)
            self._is_ended = not content
            self._read += content
            if run != self._runs:  # that run is lost, and the next one begins with this
                raise FsError(EIO)
        given = bytes(self._read[self._at : self._at + size])
        self._at += len(given)
        self._forget()
        return given

    async def read_at(self, offset: int, size: int) -> bytes:
        """The same of a file; all `size` bytes if they are there."""
        if self._file is None:
            raise FsError(ESPIPE)
        return await self._launcher.read_stdin_at(offset, size)

    async def settle(self, taken: int) -> None:
        """The job has taken so many bytes, from the beginning."""
        await self._launcher.drop_stdin(self._total_bytes - taken)

    def begin_again(self) -> None:
        """The job is run again, and reads from the beginning."""
        if not self.can_begin_again:
            raise FsError(EIO)
        self._at = 0
        self._runs += 1

    def finish(self, offset: int, taken: int) -> int:
        """The job has ended, and what it has done to its stdin is to be done at home. How much of a stream was taken
        from there in vain."""
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
    def is_read(self) -> bool:
        """True once something was taken from the launcher's stdin, so that nobody else can read it."""
        return self._total_bytes > self._launcher.peeked_bytes or self._launcher.unused_bytes > 0

    @property
    def can_begin_again(self) -> bool:
        """False where the first part is not remembered any more."""
        return not self._dropped_bytes

    @property
    def _total_bytes(self) -> int:
        return self._dropped_bytes + len(self._read)

    def _forget(self) -> None:
        if self._at > KEPT_STDIN_BYTES:
            self._dropped_bytes += self._at
            del self._read[: self._at]
            self._at = 0
