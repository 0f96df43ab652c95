"""Count the entries that mirrors were shown of directories outside the tree.

A worker may ask for all directories that any user may list, and each stays known as long as it
exists and the master lives.
"""

from termite.engine.errors import Reason, Retryable
from termite.engine.paths import is_within

# Each takes some 620 bytes of the master's memory. A build of C looks at some 20,000 entries.
MOST_OUTSIDE = 500_000


class OutsideEntries:
    """The number of entries of each directory outside the tree at `root`, and their `total`.

    The directories above the tree do not count, because without them nobody finds the tree.
    """

    def __init__(self, root: bytes) -> None:
        self.total = 0
        self._root = root
        self._served: dict[bytes, int] = {}

    def check_room(self, directory: bytes, most: int) -> None:
        """Raise Retryable if the directory is outside the tree, and there are `most` entries."""
        if self.total >= most and self._is_outside(directory):
            raise Retryable(Reason.TOO_MANY_LISTED, "/" + directory.decode(errors="replace"))

    def add(self, directory: bytes, entries: int) -> None:
        """Count a directory that is served now."""
        if self._is_outside(directory):
            self._served[directory] = entries
            self.total += entries

    def drop(self, directory: bytes) -> None:
        """Forget a directory that is gone, if it was counted."""
        self.total -= self._served.pop(directory, 0)

    def _is_outside(self, directory: bytes) -> bool:
        return not is_within(directory, self._root) and not is_within(self._root, directory)
