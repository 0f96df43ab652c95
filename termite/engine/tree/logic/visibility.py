"""Decide which of the master's files may leave it.

An *anchor* is a path at which the decision changes: the writable root, an exported directory, a
hidden path, /proc, /tmp. The deepest anchor at or above a path decides. Hidden entries are not even
listed, because a job must not be able to distinguish them from absent ones.
"""

import enum
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.paths import from_root_down, is_within, join, split

SOCKET = b".termite-socket"
STAGING = b".termite-staging"
AREA = STAGING + b"-"  # begins the name of a staging directory on another file system below the root

# Every sandbox needs these directories as mount points or as places to write, with these
# permissions. The master's own contents of them never leave it. Passages are the exception: if the
# writable root is below /tmp, the directories that lead to it are shown.
STANDARD_DIRECTORIES = {
    b"proc": 0o555,
    b"sys": 0o555,
    b"dev": 0o755,
    b"run": 0o755,
    b"tmp": 0o1777,
    b"var/tmp": 0o1777,
}


class Visibility(enum.Enum):
    """The part of a directory that is shown to workers."""

    WHOLE = "whole"  # everything but hidden entries
    PUBLIC = "public"  # entries that every user of the master's machine may read
    PASSAGE = "passage"  # only directories that lead to a wholly visible anchor
    HIDDEN = "hidden"  # nothing, and its name is not listed either


@dataclass(frozen=True, slots=True)
class DirectoryRules:
    """The decisions that hold for the entries of one directory.

    `anchored` names have an anchor at or below them. `passages` are those of them that are, or lead
    to, a wholly visible anchor or a standard directory. A passage that is a directory is always
    shown.
    """

    visibility: Visibility
    passages: frozenset[bytes] = frozenset()
    anchored: frozenset[bytes] = frozenset()


class Exports:
    """The anchors of one tree, and the decisions that follow. Nothing here reads the disk."""

    def __init__(
        self,
        writable_root: bytes,
        exports: Iterable[bytes],
        excludes: Iterable[bytes],
        hidden: Iterable[bytes],
        watched: Iterable[bytes] = (),
    ) -> None:
        """Take paths of the tree.

        `excludes` and `hidden` mean the same here. `watched` are exports that change in the midst
        of builds, for example the directory into which a package manager puts sources.
        """
        self.writable_root = writable_root
        self.watched = frozenset(watched)
        self._anchors = {b"": Visibility.PUBLIC} | dict.fromkeys(STANDARD_DIRECTORIES, Visibility.PASSAGE)
        self._anchors |= dict.fromkeys((*exports, *self.watched), Visibility.WHOLE)
        self._anchors |= dict.fromkeys((*excludes, *hidden), Visibility.HIDDEN)
        self._anchors[writable_root] = Visibility.WHOLE
        self._anchors |= dict.fromkeys((join(writable_root, SOCKET), join(writable_root, STAGING)), Visibility.HIDDEN)
        self._longest = max(map(len, self._anchors))
        self._anchored: dict[bytes, set[bytes]] = {}
        self._passages: dict[bytes, set[bytes]] = {}
        for path, visibility in self._anchors.items():
            for step in list(from_root_down(path))[1:]:
                parent, name = split(step)
                self._anchored.setdefault(parent, set()).add(name)
                if visibility is Visibility.WHOLE or path in STANDARD_DIRECTORIES:
                    self._passages.setdefault(parent, set()).add(name)

    def visibility(self, path: bytes) -> Visibility:
        """Return the visibility that the deepest anchor at or above the path gives.

        Of a long path only as much is gone through as an anchor has.
        """
        if AREA in path and b"/" + AREA in b"/" + path[len(self.writable_root) :]:
            return Visibility.HIDDEN
        if len(path) > self._longest:
            path = path[: max(path.rfind(b"/", 0, self._longest + 1), 0)]
        while path not in self._anchors:
            path, _ = split(path)
        return self._anchors[path]

    def rules(self, directory: bytes) -> DirectoryRules:
        """Return the decisions for the entries of a directory, to be passed to `shows`."""
        return DirectoryRules(
            self.visibility(directory),
            frozenset(self._passages.get(directory, ())),
            frozenset(self._anchored.get(directory, ())),
        )

    def is_live(self, path: bytes) -> bool:
        """Return whether the path is the writable root or below it, so that builds change it."""
        return is_within(path, self.writable_root)

    def is_volatile(self, path: bytes) -> bool:
        """Return whether the path may change in the midst of a build.

        Every drain must notice changes of volatile directories. Other directories that mirrors
        have been shown are watched as far as the limits of the system allow.
        """
        return self.is_live(path) or any(is_within(path, top) for top in self.watched)

    def is_writable(self, path: bytes) -> bool:
        """Return whether a result of a job may be written to this path."""
        return self.is_live(path) and path != self.writable_root and self.visibility(path) is Visibility.WHOLE

    def shows(self, rules: DirectoryRules, is_open: bool, path: bytes, name: bytes, mode: int) -> bool:
        """Return whether the entry `name` of the directory `path` is shown.

        `rules` are those of the directory. `is_open`: other users may list it, and search every
        directory above it. `mode` is the entry's whole st_mode. Sockets and devices are never
        shown.
        """
        kind = stat.S_IFMT(mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO):
            return False
        visibility = rules.visibility
        if name in rules.anchored:
            if name in rules.passages and kind == stat.S_IFDIR:
                return True
            visibility = self.visibility(join(path, name))
        if visibility is Visibility.PUBLIC:
            return is_open and is_public(mode)
        return visibility is Visibility.WHOLE and not name.startswith(AREA)


def is_public(mode: int) -> bool:
    """Return whether a file of this st_mode can be read by other users.

    A directory must be searchable as well. A symlink always counts as readable: it reveals nothing
    but its target's name.
    """
    if stat.S_ISLNK(mode):
        return True
    wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
    return mode & wanted == wanted
