"""Number the states of files, so that all names of one file can be shown as one file."""

import hashlib
import struct

from termite.engine.tree.logic.attrs import Inode, Stamp

RENEWED_LIMIT = 4096  # states; one that is forgotten only costs its names their common number


class LinkIds:
    """The numbers of files, for `Attr.link_id`. All names of one file in one state have the same.

    A number is a hash, so that no inode number is revealed. The ctime moves with every write and
    with every new or removed name, so that another state has another number. But a file can be
    written twice within one tick of the clock. Then the state is renewed: its number changes.
    """

    def __init__(self) -> None:
        self._renewals: dict[Stamp, int] = {}
        self._renewed: set[Inode] = set()
        self._forgotten = 0

    def number(self, stamp: Stamp) -> int:
        """Return the number of a state, which is never 0."""
        renewals = self._renewals.get(stamp, 0)
        state = struct.pack("<QQqQQ", stamp.dev, stamp.ino, stamp.ctime_ns, renewals, self._forgotten)
        return int.from_bytes(hashlib.blake2b(state, digest_size=7).digest(), "big") + 1

    def renew(self, stamp: Stamp, old: int) -> int:
        """Return the new number of a state, under which the file may have been written again.

        `old` is the number that its name has. The other names of the file get the same new number,
        in whichever order they are checked.
        """
        if old == self.number(stamp):
            if len(self._renewals) >= RENEWED_LIMIT:
                self._renewals.clear()
                self._forgotten += 1  # no number from before is ever given again
            self._renewals[stamp] = self._renewals.get(stamp, 0) + 1
            self._renewed.add(stamp.inode)
        return self.number(stamp)

    def take_renewed(self) -> set[Inode]:
        """Return the files of the states that were renewed since the last call."""
        renewed, self._renewed = self._renewed, set()
        return renewed
