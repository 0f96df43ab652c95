"""Find out whether an input of a job changed while the job ran.

A job that starts at a number of the journal sees all changes up to it, and may see later ones.
Nobody knows which of two states it saw, so its result cannot be stored.
"""

import stat
from collections.abc import Callable, Collection, Iterable

from termite.engine.model import Changeset
from termite.engine.paths import split
from termite.engine.recall.logic.uses import LIST, STAT, Dependency, PathSet


class ConcurrentChanges:
    """The paths that changed while a job ran.

    Every output of any job changes the time of its directory. Therefore a new time or mode of a
    directory is no change of an input.
    """

    def __init__(self, changesets: Iterable[Changeset], has_other_names: Callable[[bytes], bool]) -> None:
        """Take the changesets after the number at which the job started, up to a drain after it.

        The job's own changes are not among them, because it is not published yet. `has_other_names`
        says of a directory whether names in it came or went since the job started.
        """
        self._has_other_names = has_other_names
        self._touched: set[bytes] = set()  # but for directories that stayed
        self._rewritten: set[bytes] = set()  # those of them of which more than times and modes changed
        self._later: set[bytes] = set()  # directories that may have a new time or mode
        for changeset in changesets:
            for change in changeset.changes:
                if change.attr is not None and stat.S_ISDIR(change.attr.mode) and not change.content:
                    self._later.add(change.path)
                    continue
                self._touched.add(change.path)
                if change.content:
                    self._rewritten.add(change.path)
                    self._later.add(split(change.path)[0])

    def changed_input(self, path_set: PathSet) -> bytes | None:
        """Return a dependency that has changed, or None."""
        if not self._touched:
            return None
        return next((d.path for d in path_set.dependencies if self._is_changed(d, self._touched)), None)

    def changed_content(self, path_set: PathSet) -> bytes | None:
        """Return a dependency whose content, existence or listing has changed, or None.

        A file that was written with the same content has changed if nobody knew its digest.
        """
        if not self._rewritten:
            return None
        return next((d.path for d in path_set.dependencies if self._is_changed(d, self._rewritten)), None)

    def has_later_directory(self, path_set: PathSet) -> bool:
        """Return whether the job has asked for the times of a directory that has others now."""
        return any(found.use & STAT and found.path in self._later for found in path_set.dependencies)

    def _is_changed(self, dependency: Dependency, changed: Collection[bytes]) -> bool:
        # The directories on the way to a path are dependencies of their own.
        path = dependency.path
        return path in changed or (bool(dependency.use & LIST) and self._has_other_names(path))
