"""Number the changesets of one master, and remember which job wrote a path last.

The user's own writes are in the changesets, but they never conflict with a job's results.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from termite.engine.model import Change, Changeset


class Journal:
    """The changesets that some mirror may still need.

    `number` is the number of the newest changeset, 0 at the start.
    """

    def __init__(self) -> None:
        self.number = 0
        self._kept: deque[Changeset] = deque()
        self._results: dict[bytes, tuple[int, Change]] = {}

    def append(self, changes: Sequence[Change]) -> int:
        """Add a changeset and return its number. Without changes the number stays as it is."""
        if changes:
            self.number += 1
            self._kept.append(Changeset(self.number, tuple(changes)))
        return self.number

    def since(self, cursor: int) -> tuple[Changeset, ...]:
        """Return all changesets after number `cursor`. They must not have been forgotten."""
        first = self.number - len(self._kept)
        assert cursor >= first, f"changesets before {first + 1} are forgotten, asked for {cursor + 1}"
        # Only the newest few are asked for as a rule. A deque is fast at its ends only, so the
        # search begins there.
        newest_first = tuple(islice(reversed(self._kept), max(self.number - cursor, 0)))
        return newest_first[::-1]

    def forget_before(self, number: int) -> None:
        """Forget all changesets and results below `number`.

        The caller knows that neither a lease's cursor nor a running job's number is below it.
        """
        while self._kept and self._kept[0].number < number:
            self._kept.popleft()
        self._results = {path: result for path, result in self._results.items() if result[0] >= number}

    def made_since(self, cursor: int) -> frozenset[bytes]:
        """Return the paths that were made or written after number `cursor` and still exist.

        Forgotten changesets do not count.
        """
        made: set[bytes] = set()
        for changeset in self.since(max(cursor, self.number - len(self._kept))):
            for change in changeset.changes:
                if change.attr is None:
                    made.discard(change.path)
                elif change.content:
                    made.add(change.path)
        return frozenset(made)

    def conflicts(self, job_number: int, changes: Iterable[Change]) -> tuple[bytes, ...]:
        """Return the changed paths that another job has written differently after `job_number`."""
        return tuple(change.path for change in changes if self._conflicts(job_number, change))

    def note_results(self, number: int, changes: Iterable[Change]) -> None:
        """Remember that a job's changes are on disk, in the changeset of this number."""
        self._results.update((change.path, (number, change)) for change in changes if _is_content(change))

    def statistics(self) -> dict[str, int]:
        """Return the numbers of changesets and results that are kept."""
        return {"changesets": len(self._kept), "results": len(self._results)}

    def _conflicts(self, job_number: int, change: Change) -> bool:
        if not _is_content(change) or change.path not in self._results:
            return False
        number, other = self._results[change.path]
        if number <= job_number:
            return False
        if change.attr is None or other.attr is None:
            return change.attr is not other.attr
        return (change.attr.digest, change.attr.target) != (other.attr.digest, other.attr.target)


def _is_content(change: Change) -> bool:
    """Return whether a second such change of the path can conflict with this one.

    Two jobs may make or touch the same directory without a conflict.
    """
    return change.content and (change.attr is None or change.attr.digest is not None or bool(change.attr.target))
