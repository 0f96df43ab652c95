"""Number the changesets of one master, and remember which changeset changed a path last.

The user's own writes are in the changesets too.
"""

import stat
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from termite.engine.model import Change, Changeset
from termite.engine.paths import split

FEW = 16  # paths for which each path of a large result is compared with all of them at once


class Journal:
    """The changesets that some mirror may still need.

    `number` is the number of the newest changeset, 0 at the start. `fifos` is the number of
    changesets in which a FIFO was made or changed.
    """

    def __init__(self) -> None:
        self.number = self.fifos = 0
        self._kept: deque[Changeset] = deque()
        self._results: dict[bytes, tuple[int, Change]] = {}
        self._changed: dict[bytes, int] = {}  # the newest kept changeset that made, wrote or removed a path

    def append(self, changes: Sequence[Change]) -> int:
        """Add a changeset and return its number. Without changes the number stays as it is."""
        if changes:
            self.number += 1
            self._kept.append(Changeset(self.number, tuple(changes)))
            self.fifos += any(change.attr is not None and stat.S_ISFIFO(change.attr.mode) for change in changes)
            self._changed.update((change.path, self.number) for change in changes if change.content)
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
            forgotten = self._kept.popleft()
            for change in forgotten.changes:
                if self._changed.get(change.path) == forgotten.number:
                    del self._changed[change.path]
        self._results = {path: result for path, result in self._results.items() if result[0] >= number}

    def changed_since(self, number: int, paths: Iterable[bytes]) -> frozenset[bytes]:
        """Return those of the paths that were made, written or removed after number `number`.

        A directory above counts as well: if it is removed or made anew, so is all below. Changes of
        modes and times do not count, nor do forgotten changesets.
        """
        if self.number <= number:
            return frozenset()
        written = self._few_written_since(number)
        if written is not None:
            below = tuple(path + b"/" for path in written)
            return frozenset(path for path in paths if path in written or path.startswith(below))
        directories: dict[bytes, bool] = {}  # each is looked up once, however many files it has

        def is_changed(path: bytes) -> bool:
            below = []  # not by recursion: a path may have two thousand components
            while (known := directories.get(path)) is None and path and self._changed.get(path, 0) <= number:
                below.append(path)
                path = split(path)[0]
            changed = known if known is not None else self._changed.get(path, 0) > number
            directories.update(dict.fromkeys(below[1:], changed))
            return changed

        return frozenset(path for path in paths if is_changed(path))

    def _few_written_since(self, number: int) -> frozenset[bytes] | None:
        """Return the paths that were made, written or removed after `number`, if they are few."""
        if self.number - number > min(FEW, len(self._kept)):
            return None
        written = {change.path for changeset in self.since(number) for change in changeset.changes if change.content}
        return frozenset(written) if len(written) <= FEW and b"" not in written else None

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

    def result_number(self, path: bytes) -> int:
        """Return which changeset completed the newest result at a path; 0 if none is known."""
        return self._results[path][0] if path in self._results else 0

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
