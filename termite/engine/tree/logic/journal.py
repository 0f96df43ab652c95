"""The numbered changesets of one master, and which job wrote what last."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from termite.engine.model import Change, Changeset


class Journal:
    """`number` is that of the newest changeset, 0 at the start. Old ones are kept until everybody has them."""

    def __init__(self) -> None:
        self.number = 0
        self._kept: deque[Changeset] = deque()
        self._results: dict[bytes, tuple[int, Change]] = {}

    def append(self, changes: Sequence[Change]) -> int:
        """Returns the new number; without changes nothing happens and the number stays."""
        if changes:
            self.number += 1
            self._kept.append(Changeset(self.number, tuple(changes)))
        return self.number

    def since(self, cursor: int) -> tuple[Changeset, ...]:
        """All after `cursor`. They must not have been forgotten."""
        first = self.number - len(self._kept)
        assert cursor >= first, f"changesets before {first + 1} are forgotten, asked for {cursor + 1}"
        # From the newest: the way to the others leads past all that are kept.
        newest_first = tuple(islice(reversed(self._kept), max(self.number - cursor, 0)))
        return newest_first[::-1]

    def forget_before(self, number: int) -> None:
        """Nobody will ask for what came before `number`: neither a lease by its cursor nor a job that still runs."""
        while self._kept and self._kept[0].number < number:
            self._kept.popleft()
        self._results = {path: result for path, result in self._results.items() if result[0] >= number}

    def made_since(self, cursor: int) -> frozenset[bytes]:
        """Paths that came after `cursor` or got another content, as far as is remembered, and are still there."""
        made: set[bytes] = set()
        for changeset in self.since(max(cursor, self.number - len(self._kept))):
            for change in changeset.changes:
                if change.attr is None:
                    made.discard(change.path)
                elif change.content:
                    made.add(change.path)
        return frozenset(made)

    def conflicts(self, job_number: int, changes: Iterable[Change]) -> tuple[bytes, ...]:
        """Paths that another job has written after `job_number`, and differently."""
        return tuple(change.path for change in changes if self._conflicts(job_number, change))

    def note_results(self, number: int, changes: Iterable[Change]) -> None:
        """A job's changes are home: under this number."""
        self._results.update((change.path, (number, change)) for change in changes if _is_content(change))

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
    """Two jobs that make the same directory, or touch it, do not disturb each other."""
    return change.content and (change.attr is None or change.attr.digest is not None or bool(change.attr.target))
