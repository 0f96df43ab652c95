"""Find the places at which a look may hang: network file systems, and what is mounted on demand.

A server that does not answer holds the process that looks at its mount, for minutes or for ever.
"""

import os
import re
import select
from pathlib import Path
from typing import NamedTuple

from termite.engine import look_calls
from termite.engine.paths import from_below_up, is_within, parse_mount_lines

ON_DEMAND = b"autofs"
MOUNTS = Path("/proc/self/mountinfo")  # of this process, see proc(5)
# A program of some user answers for those of FUSE. `fuseblk` is a local disk.
_SLOW = re.compile(rb"autofs|nfs4?|cifs|smb3|smbfs|afs|ceph|9p|ncpfs|coda|lustre|gfs2|ocfs2|glusterfs|fuse(\..*)?")


class SlowMounts(NamedTuple):
    """The mounts of this machine, as a tree at `root` sees them.

    `kinds` has the kind of each file system by its mount point, a path of the tree. It is empty if
    no look may hang.
    """

    root: bytes
    kinds: dict[bytes, bytes]

    def may_hang(self, path: bytes) -> bool:
        """Return whether a look at a path without symlinks may hang.

        The mounts on which the root lies are read all the time.
        """
        if not self.kinds or is_within(self.root, path):
            return False
        mount, kind = self._mount_of(path)
        return bool(_SLOW.fullmatch(kind)) and (kind == ON_DEMAND or not is_within(self.root, mount))

    def is_on_demand(self, path: bytes) -> bool:
        """Return whether a look at a path without symlinks may mount something."""
        return self._mount_of(path)[1] == ON_DEMAND

    def _mount_of(self, path: bytes) -> tuple[bytes, bytes]:
        """Return the mount point of a path, and the kind of its file system."""
        mount = next((place for place in from_below_up(path) if place in self.kinds), b"")
        return mount, self.kinds.get(mount, b"")


class WatchedMounts:
    """The mounts of this process, for a tree at `root`. They are read again only if they change."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._fd = -1
        self._changes = select.poll()
        self._mounts = SlowMounts(root, {})

    def now(self) -> SlowMounts:
        """Return the mounts as they are now. Raise OSError if they cannot be read.

        The kernel reports a change once, when it is asked. It is asked before the text is read.
        """
        if self._fd < 0:
            self._fd = look_calls.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
            self._changes.register(self._fd, select.POLLPRI)
        elif not self._changes.poll(0):
            return self._mounts
        try:
            self._mounts = slow_mounts(self._root)
        except OSError:
            self.close()  # the next call reads them
            raise
        return self._mounts

    def close(self) -> None:
        """Close the descriptor. A later call of `now` opens it again."""
        if self._fd >= 0:
            self._changes.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1


def slow_mounts(root: bytes) -> SlowMounts:
    """Return the mounts of this process, for a tree at `root`. Raise OSError."""
    return parse_mounts(root, MOUNTS.read_bytes())


def parse_mounts(root: bytes, text: bytes) -> SlowMounts:
    """Do as `slow_mounts`, with a text of mountinfo (proc(5)).

    The last mount of a place is on top.
    """
    kinds = {mount.point[1:]: mount.kind for mount in parse_mount_lines(text)}
    is_needed = any(map(_SLOW.fullmatch, kinds.values()))
    return SlowMounts(root, kinds if is_needed else {})
