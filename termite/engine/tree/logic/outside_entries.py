"""Count the entries that mirrors were shown of directories outside the tree.

A worker may ask for all directories that any user may list, and each stays known as long as it
exists and the master lives.
"""

from collections import Counter

from termite.engine.errors import Reason, Retryable
from termite.engine.paths import is_within

# Each takes some 620 bytes of the master's memory. A build of C looks at some 20,000 entries.
MOST_OUTSIDE = 500_000
MOST_FOR_ASKER = MOST_OUTSIDE // 2  # so that one worker leaves directories for jobs of others


class OutsideEntries:
    """The number of entries of each directory outside the tree at `root`, and their `total`.

    Each directory counts for the worker that has asked for it first, until it is gone.
    The directories above the tree do not count, because without them nobody finds the tree.
    """

    def __init__(self, root: bytes) -> None:
        self.total = 0
        self._root = root
        self._served: dict[bytes, tuple[int, str]] = {}
        self._by_asker = Counter[str]()

    def check_room(self, directory: bytes, asker: str) -> None:
        """Raise Retryable if the directory is outside the tree, and there are too many entries.

        There may be MOST_OUTSIDE, and MOST_FOR_ASKER that one worker has asked for. `asker` is ""
        for the master itself, which may ask for all.
        """
        is_full = self.total >= MOST_OUTSIDE or (asker and self.of(asker) >= MOST_FOR_ASKER)
        if is_full and self._is_outside(directory):
            raise Retryable(Reason.TOO_MANY_LISTED, "/" + directory.decode(errors="replace"))

    def of(self, asker: str) -> int:
        """Return the number of entries that are served because `asker` has asked for them."""
        return self._by_asker[asker]

    def add(self, directory: bytes, entries: int, asker: str = "") -> None:
        """Count a directory that is served now, because `asker` has asked for it first."""
        if self._is_outside(directory):
            self.drop(directory)
            self._served[directory] = entries, asker
            self._by_asker[asker] += entries
            self.total += entries

    def drop(self, directory: bytes) -> None:
        """Forget a directory that is gone, if it was counted."""
        entries, asker = self._served.pop(directory, (0, ""))
        self.total -= entries
        self._by_asker[asker] -= entries
        if not self._by_asker[asker]:
            del self._by_asker[asker]

    def _is_outside(self, directory: bytes) -> bool:
        return not is_within(directory, self._root) and not is_within(self._root, directory)
