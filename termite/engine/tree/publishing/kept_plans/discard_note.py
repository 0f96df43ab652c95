"""Keep the lines that name results which were lost, until a user has read them.

Whoever discards a plan writes them to a file in the staging directory: a master, or the sweep after
killed daemons, which can tell nobody. The next master of the tree tells the user, and removes the
file. Each record of the file is one line:

    INODE MARK TEXT

INODE is that of the file, because a copy or a file of an archive must not tell anything. MARK tells
equal lines of two plans apart.
"""

import logging
import os
import stat
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from errno import EEXIST

from termite.engine import look_calls
from termite.engine.tree import disk_calls
from termite.engine.tree.tree_disk import remove_beneath

NOTE = b"discarded"
MOST_BYTES = 64 * 1024  # of the file; the log has all lines
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = logging.getLogger(__name__)


class DiscardNote:
    """The note in an open staging directory, and the lines of it that no user has read.

    It is true if there is such a line. All methods block as the disk does, and raise nothing.
    """

    def __init__(self, staging: int) -> None:
        """Open nothing yet. `staging` must stay open as long as methods are called."""
        self._staging = staging
        self._known: set[bytes] = set()
        self._lines: deque[str] = deque()
        self._awaited: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        if self._awaited:
            self._look_for_awaited()
        return bool(self._lines)

    def add(self, lines: Iterable[str]) -> None:
        """Add the lines of one plan. Call this before the plan is removed."""
        mark, texts = os.urandom(4).hex().encode(), list(lines)
        try:
            self._append([b"%b %b" % (mark, text.encode("ascii", "replace")) for text in texts])
        except OSError as error:  # they are told if this process is a master that lives on
            log.warning("discard-not-noted reason=%s", error)
        self._lines += texts

    def read(self) -> None:
        """Take in what others have added. Remove a file that nobody of ours has written."""
        records = self._records()
        self._lines += [record.partition(b" ")[2].decode("ascii") for record in records if record not in self._known]
        self._known.update(records)
        if not records:
            self._remove()

    def await_plans(self, plans: Iterable[bytes]) -> None:
        """Look for new lines when these plan files go, which other processes have locked now."""
        self._awaited = frozenset(plans)

    def take(self) -> str:
        """Return the next line, and forget it. The file goes with the last one."""
        line = self._lines.popleft()
        if not self._lines:
            self.read()
        if not self._lines:
            self._remove()
        return line

    def is_left(self) -> bool:
        """Return whether a file stays for the next master."""
        return bool(self._records())

    def _look_for_awaited(self) -> None:
        there = frozenset(plan for plan in self._awaited if _is_there(plan, self._staging))
        if there != self._awaited:
            self._awaited = there
            self.read()

    def _append(self, records: list[bytes]) -> None:
        """Write the records by one call, and count them as known. Raise OSError."""
        if not self._records():
            self._remove()
        try:
            fd = look_calls.open(NOTE, _MAKE, 0o600, dir_fd=self._staging)
        except FileExistsError:
            fd = look_calls.open(NOTE, _APPEND, dir_fd=self._staging)
        try:
            status = look_calls.fstat(fd)
            text = b"".join(b"%d %b\n" % (status.st_ino, record) for record in records)
            if not _is_ours(status) or status.st_size + len(text) > MOST_BYTES:
                raise FileExistsError(EEXIST, "the note is full, or is none")
            disk_calls.write(fd, text)
        finally:
            os.close(fd)
        self._known.update(records)

    def _records(self) -> list[bytes]:
        """Return the records of the file without its inode: none if it is not ours."""
        try:
            fd = look_calls.open(NOTE, _READ, dir_fd=self._staging)
        except OSError:
            return []
        try:
            status = look_calls.fstat(fd)
            if not _is_ours(status):
                return []
            lines = look_calls.pread(fd, MOST_BYTES, 0).split(b"\n")[:-1]
        except OSError as error:
            log.warning("discard-not-noted reason=%s", error)
            return []
        finally:
            os.close(fd)
        prefix = b"%d " % status.st_ino
        return [line.removeprefix(prefix) for line in lines if line.startswith(prefix) and _is_text(line)]

    def _remove(self) -> None:
        with suppress(OSError):
            if _is_there(NOTE, self._staging):
                remove_beneath(self._staging, NOTE)


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def _is_text(line: bytes) -> bool:
    """Return whether a line has nothing that controls a terminal."""
    return line.isascii() and line.decode("ascii").isprintable()


def _is_there(name: bytes, directory: int) -> bool:
    try:
        look_calls.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
