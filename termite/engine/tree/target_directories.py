"""Open the directories into which one job's results go, and set their modes and times at the end.

The final attributes cannot be set earlier. Every new entry changes a directory's mtime, and its
final mode may not give the permission to write.
"""

import os
import stat
from contextlib import suppress

from termite.engine.paths import is_within, split
from termite.engine.tree.disk import Disk, set_attributes


class TargetDirectories:
    """The open directories of one job, by path of the tree. Methods raise OSError."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._fds: dict[bytes, int] = {}
        self._found: dict[bytes, os.stat_result] = {}
        self._final: dict[bytes, tuple[int, int]] = {}
        self._new: set[bytes] = set()

    def open(self, path: bytes) -> int:
        """Return an O_PATH fd of a directory, which is made writable for us.

        The fd stays open until `close` or `forget`.
        """
        fd = self._fds.get(path)
        if fd is None:
            fd = self._fds[path] = self._disk.open_directory(path, os.O_PATH)
            found = self._found.setdefault(path, os.fstat(fd))
            self._make_writable(path, fd, found)
        return fd

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the open parent directory of a path, and the name in it."""
        parent, name = split(path)
        return self.open(parent), name

    def make(self, path: bytes) -> None:
        """Make a directory, unless there is one. Anything else under its name is removed."""
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
        """Return whether `make` has made this directory, so that it is not watched yet."""
        return path in self._new

    def mtime_ns(self, path: bytes) -> int:
        """Return the mtime that a directory had before any change in it, or 0 for a new one."""
        found = self._found.get(path)
        return found.st_mtime_ns if found is not None else 0

    def set_at_end(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Note the mode and the mtime that `finish` shall set."""
        self._final[path] = mode, mtime_ns

    def forget(self, path: bytes) -> None:
        """Close and forget a directory that is being removed, and all below it."""
        for known in (self._found, self._final):
            for below in [p for p in known if is_within(p, path)]:
                del known[below]
        for below in [p for p in self._fds if is_within(p, path)]:
            os.close(self._fds.pop(below))

    def finish(self) -> None:
        """Set the noted modes and times, deepest first.

        A directory's final mode may forbid access to those below, so they come first.
        """
        for path in sorted(self._final, key=lambda p: -p.count(b"/")):
            mode, mtime_ns = self._final.pop(path)
            with suppress(FileNotFoundError):  # it was in a directory that another job has removed
                fd, name = self.parent(path)
                set_attributes(name, fd, mode, mtime_ns)

    def close(self) -> None:
        """Do as `finish`, but ignore errors, and close all fds. Call it after a failure as well."""
        with suppress(OSError):
            self.finish()
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _make_writable(self, path: bytes, fd: int, found: os.stat_result) -> None:
        """Give ourselves write permission until `finish`.

        A job may have made the directory writable and then read-only again, as go's module cache
        does.
        """
        if os.access(b".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
            return
        if found.st_uid == os.geteuid():
            os.chmod(b"/proc/self/fd/%d" % fd, stat.S_IMODE(found.st_mode) | 0o700)
            self._final.setdefault(path, (found.st_mode, found.st_mtime_ns))
