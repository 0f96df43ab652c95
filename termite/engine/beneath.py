"""Open files below a directory by that directory's descriptor, without passing a symlink.

A job, a worker or another user may put a symlink at any name at any time. If a program checks a
name and then opens it by name, it may read another file than the one that was checked. Therefore
callers open first, and then ask the descriptor which kind of file it is. Where nothing may be
replaced that another has made, `rename_new` gives a name. Python has no function for openat2(2) and
renameat2(2).
"""

import ctypes
import errno
import os
import stat
from functools import cache

# Flags of open(2): for an entry itself even if it is a symlink, for a directory, and for a file.
ITSELF = os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = ITSELF | os.O_DIRECTORY
FILE = ITSELF | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO or a device may have taken the file's place

SYS_OPENAT2 = 437  # MIPS has another number, and this one fails there: the path is then opened step by step
RESOLVE_NO_SYMLINKS = 0x04  # also refuses the links of /proc
RESOLVE_BENEATH = 0x08
RENAME_NOREPLACE = 1  # from linux/fs.h


def open_beneath(top: int, path: bytes, flags: int) -> int:
    """Return a descriptor of `path` below the directory `top`; b"" is `top` itself.

    `flags` are those of open(2). The names in `path` must have been checked: none of them is empty,
    "." or "..". The caller closes the descriptor. Raises OSError, with ENOTDIR or ELOOP if a
    symlink stands at one of the names. This blocks on the disk.
    """
    fd = _open_at_once(top, path or b".", flags)
    return fd if fd >= 0 else _open_by_steps(top, path, flags)


def rename_new(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename `source` to `target`, each in an open directory. Raise FileExistsError if that exists.

    Raise OSError if the disk refuses. A file system that does not know the flag (NFS) makes a link,
    and an empty directory anew.
    """
    if _renameat2(src_dir_fd, source, dst_dir_fd, target, RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), target)
    if stat.S_ISDIR(os.stat(source, dir_fd=src_dir_fd, follow_symlinks=False).st_mode):
        os.mkdir(target, 0o700, dir_fd=dst_dir_fd)
        os.rmdir(source, dir_fd=src_dir_fd)
    else:
        os.link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
        os.unlink(source, dir_fd=src_dir_fd)


def _open_by_steps(top: int, path: bytes, flags: int) -> int:
    """Open name by name: to learn the error, or if the kernel has or allows no openat2."""
    names = path.split(b"/") if path else [b"."]
    fd = top
    for i, name in enumerate(names):
        try:
            below = os.open(name, flags | ITSELF if i == len(names) - 1 else os.O_PATH | DIRECTORY, dir_fd=fd)
        finally:
            if fd != top:
                os.close(fd)
        fd = below
    return fd


class _OpenHow(ctypes.Structure):
    """The struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
_renameat2.restype = ctypes.c_int
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

_syscall = ctypes.CDLL(None).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


def _open_at_once(top: int, path: bytes, flags: int) -> int:
    """Return a descriptor, or -1 after any error."""
    how = _how_to_open(flags)
    return int(_syscall(SYS_OPENAT2, top, path, ctypes.addressof(how), ctypes.sizeof(how)))


@cache
def _how_to_open(flags: int) -> _OpenHow:
    return _OpenHow(flags, 0, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
