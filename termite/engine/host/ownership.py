"""Find out whether another user of this machine could exchange a directory or a file of ours.

Whoever may write to a directory above ours may rename ours and put his own in its place. The whole
path counts therefore, as with sshd's StrictModes.
"""

import os
import stat
from collections.abc import Iterator
from errno import ELOOP
from pathlib import Path

from termite.engine.errors import UserError

_LINKS_MAX = 40  # as the kernel allows
_OTHERS_WRITE = stat.S_IWOTH
_EVERY_USER = ["0", "0", "4294967295"]  # the map of ids outside of any user namespace


def require_own(path: Path, hint: str) -> None:
    """Raise UserError with `hint` if another user could exchange `path` or a part of it.

    Parts that do not exist yet are no danger: the rest of the path decides who may make them.
    """
    if reason := find_stranger(path):
        raise UserError(f"{path}: {reason}", hint=hint)


def find_stranger(path: Path) -> str:
    """Return how another user than root and this one could exchange `path`; "" if nobody could.

    Each directory on the way must belong to root or to this user, and must be closed to the writes
    of others. A sticky directory, such as /tmp, may be open: only the owner of an entry can rename
    it there. The group of this process counts as this user.
    """
    trusted = _trusted_users()
    for place, status in _parts(Path(os.path.abspath(path))):
        if status.st_uid not in trusted:
            return f"{place} belongs to user {status.st_uid}, who could exchange what is in it"
        if stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
            continue
        others = _OTHERS_WRITE if status.st_gid in (0, os.getegid()) else _OTHERS_WRITE | stat.S_IWGRP
        if status.st_mode & others:
            return f"others may write to {place}, and could exchange what is in it"
    return ""


def is_own_link(file: Path) -> bool:
    """Return whether a file that is to be written is a link of this user or of root.

    Raise OSError if it is another user's, who may have put it into a directory like /tmp. If this
    returns False, open the file without following links: one may have come meanwhile.
    """
    try:
        status = os.lstat(file)
    except FileNotFoundError:
        return False
    if not stat.S_ISLNK(status.st_mode):
        return False
    if status.st_uid not in _trusted_users():
        raise OSError(ELOOP, "it is another user's link")
    return True


def is_of_stranger(entry: Path | int, directory: Path) -> bool:
    """Return whether another user has put an entry into a directory in which all may write.

    `entry` is a path, or a descriptor. An entry that cannot be seen counts as a stranger's.
    """
    try:
        around, there = os.stat(directory), os.stat(entry, follow_symlinks=isinstance(entry, int))
    except OSError:
        return True
    return bool(around.st_mode & _OTHERS_WRITE) and there.st_uid not in (os.geteuid(), 0, around.st_uid)


def _parts(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every directory and symlink on the way to `path`, from the root down."""
    waiting = list(reversed(path.parts))
    place, links = Path("/"), 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            place = place.parent
            continue
        here = place / name
        try:
            status = here.lstat()
        except OSError:
            return  # it does not exist, or is closed to us as well: its parents have been seen
        yield here, status
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS_MAX:
                return
            target = Path(os.readlink(here))
            waiting += reversed(target.parts)
        else:
            place = here


def _trusted_users() -> set[int]:
    """Return root, this user, and in a user namespace the id that the real root has there."""
    trusted = {0, os.geteuid()}
    try:
        if Path("/proc/self/uid_map").read_text().split() != _EVERY_USER:
            trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    except OSError:
        pass  # without /proc nobody else is trusted
    return trusted
