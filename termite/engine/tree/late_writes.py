"""Keep what a program of this machine writes to a file while a result takes the file's place.

Nothing locks the file between its last judgement and the rename. On a busy machine this takes some
milliseconds, and a line that is appended meanwhile goes to the file that the rename removes. The
old file stays open here. If it has grown after the rename, its tail is put behind the new file, as
if the job had come first. If somebody has given it another name meanwhile, that is reported.
"""

import fcntl
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import trio

from termite.engine import look_calls
from termite.engine.look_errors import GONE
from termite.engine.model import Digest
from termite.engine.sparse_content import ContentHash
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.tree_disk import Disk

F_SETSIG = 10  # of fcntl(2); the module fcntl has no name for it
BLOCK_BYTES = 1024 * 1024  # that are read at once
KEPT_FILES = 100  # in one result: each needs a descriptor until the result is published
WRITER_S = 1.0  # for so long a program is waited for that still writes to an old file
PAUSE_S = 0.005

log = logging.getLogger(__name__)


def is_being_written(fd: int) -> bool:
    """Return whether a program of this machine has the file open for writing.

    A lease for reading is refused in that case. If the file system has no leases, or the file is
    another user's, this is unknown.
    """
    try:
        # The signal for a writer that comes in between must not be SIGIO, which ends a process.
        fcntl.fcntl(fd, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    with suppress(OSError):  # it was broken: a writer came after the answer
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@dataclass(slots=True)
class OldFile:
    """An open file whose judged version has this size and time, and begins with this content.

    `names` is the number of its names before the result takes one of them, and `ctime_ns` its time
    of change. In a tree on overlayfs, a file of a lower layer keeps both.
    """

    fd: int
    size: int
    mtime_ns: int
    begin: Digest | None
    names: int
    ctime_ns: int


class LateWrites:
    """The files that the results of one job replace, as they were judged. `close` it at the end."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._old: dict[bytes, OldFile] = {}
        self.has_rescued = False

    def keep(self, path: bytes, old: OldFile) -> None:
        """Keep a file, and take over its descriptor."""
        if known := self._old.pop(path, None):
            os.close(known.fd)
        if len(self._old) >= KEPT_FILES:
            os.close(old.fd)
            return
        self._old[path] = old

    async def rescue(self) -> tuple[bytes, ...]:
        """Put late tails behind the new files. Return the paths of other writes, which are lost.

        Call this after the results are published. If `has_rescued` is True then, drain.
        """
        lost: list[bytes] = []
        for path, old in self._old.items():
            await self._wait_for_writer(old.fd)
            try:
                is_lost = await self._is_lost(path, old)
            except OSError:  # the old file cannot be looked at: nobody knows
                is_lost = True
            if is_lost:
                log.warning("late-write-lost path=%r", path)
                lost.append(path)
        return tuple(lost)

    async def _is_lost(self, path: bytes, old: OldFile) -> bool:
        """Put the late tail of one file behind the new one. Return whether that failed."""
        st = look_calls.fstat(old.fd)
        is_same = (st.st_size, wire_ns(st.st_mtime_ns)) == (old.size, old.mtime_ns)
        # If somebody has given it another name, that one keeps the old file.
        is_linked = st.st_nlink >= old.names and st.st_ctime_ns != old.ctime_ns
        if (is_same and not is_linked) or (stands := await self._wait_for_look(path, st)):
            return False
        self.has_rescued = True
        return stands is None or is_linked or not self._move_tail(path, old)

    def close(self) -> None:
        """Close all files."""
        for old in self._old.values():
            os.close(old.fd)
        self._old.clear()

    async def _wait_for_writer(self, fd: int) -> None:
        deadline_s = trio.current_time() + WRITER_S
        while is_being_written(fd) and trio.current_time() < deadline_s:
            with trio.CancelScope(shield=True):
                await trio.sleep(PAUSE_S)

    async def _wait_for_look(self, path: bytes, st: os.stat_result) -> bool | None:
        """Return whether the old file still stands at its place, or None if nobody can say.

        An error of the look is no absence: the tail would come to the file a second time.
        """
        deadline_s = trio.current_time() + WRITER_S
        while (stands := self._is_still_there(path, st)) is None and trio.current_time() < deadline_s:
            with trio.CancelScope(shield=True):
                await trio.sleep(PAUSE_S)
        return stands

    def _is_still_there(self, path: bytes, st: os.stat_result) -> bool | None:
        try:
            return os.path.samestat(self._disk.status(path), st)
        except OSError as error:
            return False if error.errno in GONE else None

    def _move_tail(self, path: bytes, old: OldFile) -> bool:
        tail = _tail_of(old)
        if tail is None:
            return False
        try:
            fd = self._disk.open_file(path)
            try:
                if not stat.S_ISREG(look_calls.fstat(fd).st_mode):
                    return False
                new = disk_calls.open(b"/proc/self/fd/%d" % fd, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            finally:
                os.close(fd)
            try:
                return disk_calls.write(new, tail) == len(tail)
            finally:
                os.close(new)
        except OSError:
            return False


def _tail_of(old: OldFile) -> bytes | None:
    """Return what was appended to the judged version, or None if it was changed in another way."""
    if old.begin is None or look_calls.fstat(old.fd).st_size < old.size:
        return None
    state = ContentHash()
    for block in _blocks(old.fd, 0, old.begin.size):
        state.update(block)
    return b"".join(_blocks(old.fd, old.size, sys.maxsize)) if state.digest() == old.begin else None


def _blocks(fd: int, start: int, end: int) -> Iterator[bytes]:
    while block := look_calls.pread(fd, min(BLOCK_BYTES, end - start), start):
        yield block
        start += len(block)
