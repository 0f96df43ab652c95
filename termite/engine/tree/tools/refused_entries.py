"""Tell a place that is closed to this user from one whose look was refused for another reason.

A directory without the right to search it is closed: a job meets the same mode, or must not see
what is behind it. A dead FUSE mount (ENOTCONN) and an expired ticket (EACCES) say nothing about a
name. A local command that touches it fails, so a job must not take it for absent.
"""

import errno
import logging
import os
import stat

from termite.engine import look_calls
from termite.engine.model import UNKNOWN, Attr
from termite.engine.paths import from_root_down, join
from termite.engine.tree.logic.attrs import Seen
from termite.engine.tree.logic.visibility import Exports, Visibility
from termite.engine.tree.tree_disk import Disk

_OF_RIGHTS = (errno.EACCES, errno.EPERM)

log = logging.getLogger(__name__)


def is_closed(fd: int) -> bool:
    """Return whether an open directory lets us search it neither in fact nor by its mode.

    Raise OSError if a look fails.
    """
    if look_calls.has_right(b".", os.X_OK, dir_fd=fd):
        return False
    st = look_calls.fstat(fd)
    return st.st_uid != os.geteuid() or not st.st_mode & 0o100


def refused_entry(
    exports: Exports, directory: bytes, fd: int, name: bytes, error: OSError, is_target: bool, *, is_open: bool
) -> Seen | None:
    """Return the entry of a name of which nobody knows what it is, or None if jobs may miss it.

    `fd` is the open directory, and `is_open` as for `Exports.shows`. `is_target`: the entry itself
    is known, and what it leads to was refused. In the tree the directory's own mode keeps jobs out.
    Raise OSError if a look fails.
    """
    log.debug("entry-unreadable path=%r reason=%s", join(directory, name), error)
    rules = exports.rules(directory)
    # As a symlink it is the least private of all that it may be.
    if is_target or not exports.shows(rules, is_open, directory, name, stat.S_IFLNK):
        return None
    if rules.visibility is not Visibility.WHOLE and (error.errno == errno.ENAMETOOLONG or is_closed(fd)):
        return None
    return Seen(Attr(UNKNOWN, error.errno or errno.EIO, 0))


def is_refused_by_rights(disk: Disk, directory: bytes, error: OSError) -> bool:
    """Return whether a look at a name in `directory` was refused because a directory is closed.

    It is the directory itself or one above it. A name that is too long does not exist.
    """
    if error.errno not in _OF_RIGHTS:
        return error.errno == errno.ENAMETOOLONG
    try:
        return any(_is_closed_at(disk, step) for step in from_root_down(directory))
    except OSError:  # the way down has no closed directory so far, and refuses for another reason
        return False


def _is_closed_at(disk: Disk, directory: bytes) -> bool:
    fd = disk.open_directory(directory, os.O_PATH)
    try:
        return is_closed(fd)
    finally:
        os.close(fd)
