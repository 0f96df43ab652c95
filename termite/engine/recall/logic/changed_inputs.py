"""Find the inputs that a job would find otherwise if it ran once more.

`ConcurrentChanges` doubts: whatever happened to an input spoils a result. This module must know: a
job that failed runs again only if the content, the absence or the names that it used are others
now. A new time or mode is no reason, nor is a file that came and went.
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from termite.engine.model import Changeset
from termite.engine.paths import from_below_up, split
from termite.engine.recall.logic.uses import (
    ABSENT,
    ENTER,
    EXEC,
    FILL,
    LINK,
    LIST,
    MODE,
    READ,
    STAT,
    TYPE,
    WHOLE,
    Dependency,
    PathSet,
)

_CONTENT = LINK | READ | WHOLE | EXEC
_PRESENCE = ABSENT | TYPE | ENTER | FILL | MODE | STAT | LIST


class ChangedInput(NamedTuple):
    """An input that a job would find otherwise now.

    `is_there`: it was made or written, otherwise it was removed. `number` is that of the changeset
    which did so last.
    """

    path: bytes
    is_there: bool
    number: int


class _Path(NamedTuple):
    """The fate of a path: its latest change, and whether its first one made or wrote it."""

    was_made: bool
    latest: ChangedInput
    is_file: bool


class InputChanges:
    """The paths whose content, presence or names changed since a job started."""

    def __init__(self, changesets: Iterable[Changeset], has_other_names: Callable[[bytes], bool]) -> None:
        """Take the changesets since the start of the job, up to a drain."""
        self._has_other_names = has_other_names
        changed: dict[bytes, _Path] = {}
        for changeset in changesets:
            for change in changeset.changes:
                if change.content:
                    path, attr = change.path, change.attr
                    before = changed.get(path)
                    was_made = attr is not None if before is None else before.was_made
                    is_file = attr is not None and not stat.S_ISDIR(attr.mode)
                    changed[path] = _Path(was_made, ChangedInput(path, attr is not None, changeset.number), is_file)
        # What was made and removed is as it was before.
        self._changed = {path: found for path, found in changed.items() if found.latest.is_there or not found.was_made}

    def find(self, path_set: PathSet) -> tuple[ChangedInput, ...]:
        """Return the changed inputs of a job: those that it named, then those that it listed.

        A directory is left out if something below it is named.
        """
        if not self._changed:
            return ()
        named = {found.path: self._changed[found.path].latest for found in path_set.dependencies if self._counts(found)}
        listed = {found.path: found.own for found in path_set.dependencies if self._is_listing(found)}
        others = self._names_in(listed) if listed else {}
        ways = {above for path in named for above in from_below_up(split(path)[0])}
        first = [changed for path, changed in named.items() if path not in ways]
        return (*first, *(changed for path, changed in others.items() if path not in named))

    def _counts(self, dependency: Dependency) -> bool:
        found, use = self._changed.get(dependency.path), dependency.use
        if found is None:
            return False
        if not found.latest.is_there or not found.is_file:
            return bool(use & (_CONTENT | _PRESENCE))
        if use & _CONTENT:
            return True
        # Only its presence was used. It was there before if no name of its directory is new.
        return bool(use & _PRESENCE) and self._has_other_names(split(dependency.path)[0])

    def _is_listing(self, dependency: Dependency) -> bool:
        return bool(dependency.use & LIST) and self._has_other_names(dependency.path)

    def _names_in(self, listed: Mapping[bytes, tuple[bytes, ...]]) -> dict[bytes, ChangedInput]:
        found = {}
        for path, changed in sorted(self._changed.items()):
            directory, name = split(path)
            if directory in listed and name not in listed[directory]:
                found[path] = changed.latest
        return found
