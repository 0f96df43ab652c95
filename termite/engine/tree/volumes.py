"""Find out where a rename cannot go: the borders of file systems, mounts and subvolumes.

A bind mount may show the same file system as the directory above it, and a subvolume of btrfs is no
mount. Therefore the kernel's number of the mount counts as well as the device.
"""

import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

from termite.engine.paths import parse_mount_lines

# From linux/stat.h: the fields that are asked for, and where they stand in struct statx.
_AT_EMPTY_PATH = 0x1000
_STATX_MNT_ID = 0x1000
_STATX_BYTES = 256
_DEVICE_AND_MOUNT = struct.Struct("=IIQ")
_DEVICE_AT = 136

_Answer = ctypes.c_char * _STATX_BYTES  # create_string_buffer takes three times as long
_statx = ctypes.CDLL(None, use_errno=True).statx
_statx.restype = ctypes.c_int
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


class Volume(NamedTuple):
    """Directories in which every entry can be renamed to each other, unless a quota forbids it.

    `mount` is 0 if the kernel is older than 5.8, which does not say it.
    """

    major: int
    minor: int
    mount: int


def volume_of(fd: int) -> Volume:
    """Return where an open file lies; O_PATH is enough. Raise OSError."""
    answer = _Answer()
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_MNT_ID, answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return Volume(*_DEVICE_AND_MOUNT.unpack_from(answer, _DEVICE_AT))


def mount_points() -> list[bytes]:
    """Return the paths of all mount points of this process, as paths of the tree. Raise OSError."""
    return [mount.point[1:] for mount in parse_mount_lines(Path("/proc/self/mountinfo").read_bytes())]
