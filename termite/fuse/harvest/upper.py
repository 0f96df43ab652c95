"""Reads a job's upper layer from disk, as entries for `harvest`. The job is dead; the overlay may still be mounted.

What overlayfs notes in xattrs has the prefix `user.` here, because every overlay of ours is mounted with `userxattr`.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from termite.engine.errors import Reason, Retryable
from termite.fuse.view.comparison import UpperEntry, is_worth_reading

OPAQUE = "user.overlay.opaque"  # "y": shows nothing of the directory below
ORIGIN = "user.overlay.origin"  # there, with an empty value: was copied up


def read_upper(upper: Path, writable_root: bytes) -> Iterator[UpperEntry]:
    """Every entry, parents first, siblings in the order of their names; not what nobody would look at."""
    top = os.fsencode(upper)
    waiting = _names_in(top, b"")
    while waiting:
        path = waiting.pop()
        entry = _read_entry(b"%b/%b" % (top, path), path)
        yield entry
        if stat.S_ISDIR(entry.mode) and is_worth_reading(path, writable_root):
            waiting.extend(_names_in(top, path))


def _names_in(top: bytes, directory: bytes) -> list[bytes]:
    names = sorted(os.listdir(b"%b/%b" % (top, directory)), reverse=True)
    return [b"%b/%b" % (directory, name) for name in names] if directory else names


def _read_entry(name: bytes, path: bytes) -> UpperEntry:
    try:
        status = os.lstat(name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a tree deeper than PATH_MAX: make it at home, where it is only one deep
            raise Retryable(Reason.TOO_LARGE, "the job made a path that is too long") from error
        raise
    mode = status.st_mode
    return UpperEntry(
        path,
        mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        status.st_nlink,
        whiteout=stat.S_ISCHR(mode) and status.st_rdev == 0,
        opaque=stat.S_ISDIR(mode) and _xattr(name, OPAQUE) == b"y",
        copied_up=stat.S_ISREG(mode) and _xattr(name, ORIGIN) is not None,
        target=os.readlink(name) if stat.S_ISLNK(mode) else b"",
    )


def _xattr(name: bytes, attribute: str) -> bytes | None:
    try:
        return os.getxattr(name, attribute, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
