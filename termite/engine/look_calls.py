"""Make the system calls with which the master looks at the user's files and at its staging.

The rooms `tree` and `decide` look through this module. Tests start a master with another module in
its place, which fails at the N-th call. The product itself has no such switch.
"""

import ctypes
import errno
import os
from os import dup as dup
from os import fstat as fstat
from os import fstatvfs as fstatvfs
from os import getxattr as getxattr
from os import listdir as listdir
from os import listxattr as listxattr
from os import lstat as lstat
from os import open as open
from os import pread as pread
from os import read as read
from os import readlink as readlink
from os import scandir as scandir
from os import stat as stat

from termite.engine.beneath import open_beneath as open_beneath
from termite.engine.look_errors import is_answer as _is_answer

_AT_FDCWD = -100
_NO_RIGHT = (errno.EROFS, errno.ETXTBSY)
_faccessat = ctypes.CDLL(None, use_errno=True).faccessat


def has_right(path: bytes, right: int, *, dir_fd: int = _AT_FDCWD) -> bool:
    """Return whether this process may use a path, for os.R_OK, os.W_OK or os.X_OK.

    Return False as well if there is nothing. Raise OSError if the look itself fails, of which
    os.access says nothing.
    """
    if os.access(path, right, dir_fd=None if dir_fd == _AT_FDCWD else dir_fd):
        return True
    if _faccessat(dir_fd, path, right, 0) == 0:
        return True
    error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    if _is_answer(error) or error.errno in _NO_RIGHT:
        return False
    raise error


def real_path(path: bytes | str) -> str | None:
    """Return an existing path without its symlinks, or None if there is nothing, or not for us.

    Raise OSError if a look on the way fails, which os.path.realpath takes for the end of the way.
    """
    try:
        return os.path.realpath(os.fsdecode(path), strict=True)
    except OSError as error:
        if not _is_answer(error):
            raise
        return None


def has_entry(path: bytes | str) -> bool:
    """Return whether something is at a path, even a symlink to nothing. Raise OSError otherwise.

    Return False if the disk refuses to say.
    """
    try:
        lstat(path)
    except ValueError:  # no path can have this name
        return False
    except OSError as error:
        if not _is_answer(error):
            raise
        return False
    return True
