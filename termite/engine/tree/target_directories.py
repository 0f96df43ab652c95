"""The directories that one job's results go into: opened once each, and set right at the end.

Putting something into a directory changes its mtime, and needs write permission that its final mode may not give.
"""

import os
import stat
from contextlib import suppress

from termite.engine.paths import is_within, split
from termite.engine.tree.disk import Disk, set_attributes


class TargetDirectories:
    """Paths are of the tree. Methods raise OSError."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._fds: dict[bytes, int] = {}
        self._found: dict[bytes, os.stat_result] = {}
        self._final: dict[bytes, tuple[int, int]] = {}
        self._new: set[bytes] = set()

    def open(self, path: bytes) -> int:
        """An O_PATH fd to work in."""
        fd = self._fds.get(path)
        if fd is None:
            fd = self._fds[path] = self._disk.open_directory(path, os.O_PATH)
            found = self._found.setdefault(path, os.fstat(fd))
            self._make_writable(path, fd, found)
        return fd

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """For a path: the directory to work in, and the name there."""
        parent, name = split(path)
        return self.open(parent), name

    def make(self, path: bytes) -> None:
        """A directory is there when this returns. What else was there is gone."""
        fd, name = self.parent(path)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                self._found.setdefault(path, st)
                return
            os.unlink(name, dir_fd=fd)
            os.mkdir(name, 0o700, dir_fd=fd)
        self._new.add(path)

    def is_new(self, path: bytes) -> bool:
        """Was it made here? Then nothing watches it yet."""
        return path in self._new

    def mtime_ns(self, path: bytes) -> int:
        """As it was before anything was done in it, 0 for a new one."""
        found = self._found.get(path)
        return found.st_mtime_ns if found is not None else 0

    def set_finally(self, path: bytes, mode: int, mtime_ns: int) -> None:
        self._final[path] = mode, mtime_ns

    def forget(self, path: bytes) -> None:
        """It has been removed, with all in it."""
        for known in (self._found, self._final):
            for below in [p for p in known if is_within(p, path)]:
                del known[below]
        for below in [p for p in self._fds if is_within(p, path)]:
            os.close(self._fds.pop(below))

    def finish(self) -> None:
        """Modes and times, deepest first: what is below needs to be reached until then."""
        for path in sorted(self._final, key=lambda p: -p.count(b"/")):
            mode, mtime_ns = self._final.pop(path)
            with suppress(FileNotFoundError):  # it stood in a directory that another job has removed
                fd, name = self.parent(path)
                set_attributes(name, fd, mode, mtime_ns)

    def close(self) -> None:
        """Also where something failed: what was made writable is not left so."""
        with suppress(OSError):
            self.finish()
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _make_writable(self, path: bytes, fd: int, found: os.stat_result) -> None:
        """A job may have made it writable, and read-only again afterwards (go's module cache does)."""
        if os.access(b".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
            return
        if found.st_uid == os.geteuid():
            os.chmod(b"/proc/self/fd/%d" % fd, stat.S_IMODE(found.st_mode) | 0o700)
            self._final.setdefault(path, (found.st_mode, found.st_mtime_ns))
