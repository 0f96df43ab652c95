"""A log file that several processes may write at once, and that is rotated when it is full.

FILE becomes FILE.1, FILE.1 becomes FILE.2, and so on; the oldest is removed. A record is one
write(2) to a descriptor with O_APPEND, so that the lines of two processes do not mix. Before each
record a process looks whether FILE is still its file, so that it also follows a program like
logrotate. The process that rotates holds a lock on the old file. A process that does not get the
lock writes on and never waits, because the holder may stand still.
"""

import fcntl
import logging
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from termite.engine.host.ownership import is_own_link

DEFAULT_BYTES = 8 * 1024 * 1024
DEFAULT_KEPT = 3
log = logging.getLogger(__name__)
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class LogLimits:
    """The limits of a log: the size of a file, 0 for none, and the number of older files."""

    max_bytes: int = DEFAULT_BYTES
    kept: int = DEFAULT_KEPT


class RotatedFile(logging.Handler):
    """A handler that appends records to a file, and ignores errors of the disk while it logs.

    Raise OSError if the file cannot be opened, or is another user's link. A path that names no
    regular file, such as a terminal or a pipe, is written, but never rotated. A file that cannot be
    rotated grows on. Standard output and error of this process follow the file if they lead to it.
    """

    def __init__(self, path: Path, limits: LogLimits) -> None:
        super().__init__()
        self._limits = limits
        self._fd = os.open(path, _FLAGS | (0 if is_own_link(path) else os.O_NOFOLLOW), 0o600)
        self._is_regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._is_rotated = self._is_regular and limits.max_bytes > 0
        self._path = os.path.realpath(path)  # a symlink to the log is not renamed

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and rotate the file first if it is full."""
        line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        if self._is_regular:
            with suppress(OSError):  # the old file takes the record
                self._follow()
        if self._is_rotated:
            self._rotate_if_full(len(line))
        with suppress(OSError):  # a full disk must not end a daemon, and nobody can be told
            os.write(self._fd, line)

    def _rotate_if_full(self, more_bytes: int) -> None:
        """Rotate the file if so many more bytes have no room. After a failure never try again.

        The user of a daemon may own the file, but not the directory.
        """
        try:
            if os.fstat(self._fd).st_size + more_bytes > self._limits.max_bytes:
                self._rotate()
        except OSError as error:
            with suppress(OSError):  # the error that is logged says why
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._is_rotated = False  # before the next line, which comes here again
            log.warning("log-not-rotated path=%s reason=%r", self._path, error.strerror)

    def close(self) -> None:
        """Close the file. Nothing may be logged afterwards."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _follow(self) -> None:
        """Open the file again if another process has put a new one in its place."""
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        ours = os.fstat(self._fd)
        if status is None or (status.st_dev, status.st_ino) != (ours.st_dev, ours.st_ino):
            self._open_again(ours)

    def _rotate(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process rotates it now
        ours = os.fstat(self._fd)
        there = os.stat(self._path, follow_symlinks=False)
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):  # else it was rotated meanwhile
            names = [self._path, *(f"{self._path}.{number}" for number in range(1, self._limits.kept + 1))]
            for name, older in reversed(list(pairwise(names))):
                with suppress(FileNotFoundError):
                    os.rename(name, older)
            if not self._limits.kept:
                os.unlink(self._path)
        self._open_again(ours)

    def _open_again(self, ours: os.stat_result) -> None:
        """Open the new file under the old descriptor, which also gives up the lock."""
        new = os.open(self._path, _FLAGS | os.O_NOFOLLOW, 0o600)
        try:
            for number in (1, 2):  # a crash of the interpreter itself is written there
                with suppress(OSError):  # the stream is closed
                    if os.path.samestat(os.fstat(number), ours):
                        os.dup2(new, number)
            os.dup2(new, self._fd, inheritable=False)
        finally:
            os.close(new)
