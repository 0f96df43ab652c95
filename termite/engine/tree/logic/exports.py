"""What of the master's files may leave it.

An *anchor* is a path where the rule changes: the writable root, an exported directory, a hidden path, /proc, /tmp. The
deepest anchor at or above a path decides. Hidden things are not listed either: a job cannot tell them from absent ones.
"""

import enum
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.paths import is_within, join, lineage, split

SOCKET = b".termite-socket"
STAGING = b".termite-staging"

# Directories that every sandbox needs, whatever the master has there: mount points, and places to write. Nothing in
# them leaves the master, except the way down to the writable root where that is below.
PLACES = {
    b"proc": 0o555,
    b"sys": 0o555,
    b"dev": 0o755,
    b"run": 0o755,
    b"tmp": 0o1777,
    b"var/tmp": 0o1777,
}


class View(enum.Enum):
    """How much of a directory is shown."""

    WHOLE = "whole"  # everything that is not hidden
    PUBLIC = "public"  # what everybody on the master's machine may read
    WAY = "way"  # only the names that lead to an anchor
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds in one directory. `special` names have an anchor at or below them, `way` those that must be shown."""

    view: View
    way: frozenset[bytes] = frozenset()
    special: frozenset[bytes] = frozenset()


class Exports:
    """The anchors, and the decisions that follow from them."""

    def __init__(
        self,
        writable_root: bytes,
        exports: Iterable[bytes],
        excludes: Iterable[bytes],
        hidden: Iterable[bytes],
        watched: Iterable[bytes] = (),
    ) -> None:
        """`watched` are exports that change in the midst of builds, as where a package manager puts sources."""
        self.writable_root = writable_root
        self.watched = frozenset(watched)
        self._anchors = {b"": View.PUBLIC} | dict.fromkeys(PLACES, View.WAY)
        self._anchors |= dict.fromkeys((*exports, *self.watched), View.WHOLE)
        self._anchors |= dict.fromkeys((*excludes, *hidden), View.HIDDEN)
        self._anchors[writable_root] = View.WHOLE
        self._anchors |= dict.fromkeys((join(writable_root, SOCKET), join(writable_root, STAGING)), View.HIDDEN)
        self._special: dict[bytes, set[bytes]] = {}
        self._way: dict[bytes, set[bytes]] = {}
        for path, view in self._anchors.items():
            for step in list(lineage(path))[1:]:
                parent, name = split(step)
                self._special.setdefault(parent, set()).add(name)
                if view is View.WHOLE or path in PLACES:
                    self._way.setdefault(parent, set()).add(name)

    def view(self, path: bytes) -> View:
        while path not in self._anchors:
            path, _ = split(path)
        return self._anchors[path]

    def rules(self, directory: bytes) -> Rules:
        return Rules(
            self.view(directory),
            frozenset(self._way.get(directory, ())),
            frozenset(self._special.get(directory, ())),
        )

    def is_live(self, path: bytes) -> bool:
        """Do builds change the path?"""
        return is_within(path, self.writable_root)

    def is_watched(self, path: bytes) -> bool:
        """May the path change in the midst of a build, and all that comes to be there? Whatever else mirrors were shown
        is watched as far as that is possible."""
        return self.is_live(path) or any(is_within(path, top) for top in self.watched)

    def is_writable(self, path: bytes) -> bool:
        """May a result be brought home to this path?"""
        return self.is_live(path) and path != self.writable_root and self.view(path) is View.WHOLE

    def shows(self, rules: Rules, is_open: bool, path: bytes, name: bytes, mode: int) -> bool:
        """Is this entry of a directory shown? `is_open`: all others may list the directory, all the way down to it."""
        kind = stat.S_IFMT(mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO):
            return False
        view = rules.view
        if name in rules.special:
            if name in rules.way and kind == stat.S_IFDIR:
                return True
            view = self.view(join(path, name))
        if view is View.PUBLIC:
            return is_open and is_public(mode)
        return view is View.WHOLE


def is_public(mode: int) -> bool:
    """Can others read it? A directory must be searchable as well; a symlink says nothing but its target's name."""
    if stat.S_ISLNK(mode):
        return True
    wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
    return mode & wanted == wanted
