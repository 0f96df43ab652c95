"""The disk below one directory, reached without passing a symlink.

A worker names paths, and a job may have left a symlink anywhere: only what is resolved without one is what `exports`
decided about.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager
from functools import cache

from termite.engine.errors import FsError
from termite.engine.paths import components, join

NOT_A_FILE = (errno.EISDIR, errno.EPERM)  # what unlink says of a directory: Linux, and POSIX
ITSELF = os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = ITSELF | os.O_DIRECTORY
FILE = ITSELF | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

# openat2(2), which Python has no function for.
SYS_OPENAT2 = 437  # on MIPS it has another number, and this one is nothing: then it goes by steps
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08


class Disk:
    """Everything is relative to `top`. Methods raise OSError, ENOTDIR where a symlink stands in the way."""

    def __init__(self, top: bytes) -> None:
        self._top = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._top)

    def open_directory(self, path: bytes, flags: int = os.O_RDONLY) -> int:
        """An fd; with O_PATH no permission to list it is needed."""
        return self._open(path, flags | DIRECTORY)

    def open_file(self, path: bytes) -> int:
        """For reading. Does not wait for the writer of a FIFO that took the file's place: look at what was opened."""
        return self._open(path, FILE)

    def _open(self, path: bytes, flags: int) -> int:
        names = components(path) or [b"."]
        fd = _open_beneath(self._top, path or b".", flags)
        return fd if fd >= 0 else self._open_by_steps(names, flags)

    def _open_by_steps(self, names: list[bytes], flags: int) -> int:
        """Where the kernel has no openat2, or a container forbids it. And this finds out what is wrong."""
        fd = self._top
        for i, name in enumerate(names):
            try:
                below = os.open(name, flags if i == len(names) - 1 else os.O_PATH | DIRECTORY, dir_fd=fd)
            finally:
                if fd != self._top:
                    os.close(fd)
            fd = below
        return fd


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_syscall = ctypes.CDLL(None).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


def _open_beneath(dir_fd: int, path: bytes, flags: int) -> int:
    """An fd of what is there without a symlink in the way, in one call; -1 where that did not work."""
    how = _how_to_open(flags)
    return int(_syscall(SYS_OPENAT2, dir_fd, path, ctypes.addressof(how), ctypes.sizeof(how)))


@cache
def _how_to_open(flags: int) -> _OpenHow:
    return _OpenHow(flags, 0, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)


@contextmanager
def failing(path: bytes) -> Iterator[None]:
    """An error of the disk belongs to the job."""
    try:
        yield
    except OSError as e:
        raise FsError(e.errno or errno.EIO, path) from e


def remove_beneath(dir_fd: int, name: bytes, path: bytes = b"", kept: Container[bytes] = ()) -> bool:
    """Remove what is called `name`, and all in it but for the `kept` paths. Is it gone?

    A directory that its owner may not write is made writable first: whoever removed it in a job had done so as well.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
        return True
    except FileNotFoundError:
        return True
    except OSError as e:
        if e.errno not in NOT_A_FILE:
            raise
    fd = _open_to_empty(dir_fd, name)
    try:
        for child in map(os.fsencode, os.listdir(fd)):
            below = join(path, child)
            if below not in kept:
                remove_beneath(fd, child, below, kept)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def set_attributes(name: bytes, dir_fd: int, mode: int, mtime_ns: int) -> None:
    """Permissions and mtime of what is there, if it is of that type; a symlink is not followed."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        st = os.fstat(fd)
        if stat.S_IFMT(st.st_mode) != stat.S_IFMT(mode):
            return
        if stat.S_ISLNK(mode):
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
            return
        itself = b"/proc/self/fd/%d" % fd
        if st.st_mode != mode:
            os.chmod(itself, stat.S_IMODE(mode))
        if st.st_mtime_ns != mtime_ns:
            os.utime(itself, ns=(st.st_atime_ns, mtime_ns))
    finally:
        os.close(fd)


def _open_to_empty(dir_fd: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISDIR(st.st_mode) and st.st_mode & 0o700 != 0o700:
        set_attributes(name, dir_fd, st.st_mode | 0o700, st.st_mtime_ns)
    return os.open(name, flags, dir_fd=dir_fd)
