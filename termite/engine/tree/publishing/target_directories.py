"""Hold the directories in which one job's results are placed open."""

import os
import stat

from termite.engine.paths import is_within, split
from termite.engine.tree import disk_calls
from termite.engine.tree.disk import Disk


class TargetDirectories:
    """The open directories of one job, by path of the tree. Methods raise OSError."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._fds: dict[bytes, int] = {}
        self._found: dict[bytes, os.stat_result] = {}

    def open(self, path: bytes) -> int:
        """Return an O_PATH fd of a directory, which stays open until `close` or `forget`."""
        fd = self._fds.get(path)
        if fd is None:
            fd = self._fds[path] = self._disk.open_directory(path, os.O_PATH)
        return fd

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the open parent directory of a path, and the name in it."""
        if not path:
            return self.open(path), b"."
        parent, name = split(path)
        return self.open(parent), name

    def found(self, path: bytes) -> os.stat_result:
        """Return the directory as it was at the first call."""
        st = self._found.get(path)
        if st is None:
            st = self._found[path] = os.fstat(self.open(path))
        return st

    def is_locked(self, path: bytes) -> bool:
        """Return whether we own a directory, but may not make entries in it.

        A job may have made the directory writable and then read-only again, as go's module cache
        does.
        """
        if os.access(b".", os.W_OK | os.X_OK, dir_fd=self.open(path), effective_ids=True):
            return False
        return self.found(path).st_uid == os.geteuid()

    def unlock(self, path: bytes) -> None:
        """Give ourselves all permissions for a directory."""
        fd = self.open(path)
        disk_calls.chmod(b"/proc/self/fd/%d" % fd, stat.S_IMODE(os.fstat(fd).st_mode) | 0o700)

    def forget(self, path: bytes) -> None:
        """Close and forget a directory that is being removed, and all below it."""
        for below in [p for p in self._fds if is_within(p, path)]:
            os.close(self._fds.pop(below))
        for below in [p for p in self._found if is_within(p, path)]:
            del self._found[below]

    def close(self) -> None:
        """Close all fds."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
