"""Follow a path from the root down, as the kernel does, and note everything on the way.

A job that used `a/b/c` depends on `a` being a directory and no symlink. If `a` becomes a symlink,
the same name means another file.
"""

import stat
from typing import NamedTuple

from termite.engine.model import Attr
from termite.engine.paths import join, split
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import ABSENT, ENTER, LINK, TYPE

MOST_LINKS = 40  # the kernel's limit for one path

Steps = tuple[tuple[bytes, int], ...]  # a path, and its uses as a number


class Way(NamedTuple):
    """The way to a directory. `steps` are the dependencies on it.

    If `is_open`, `real` is the directory without symlinks. Otherwise the way ends: a name is
    missing, or is no directory. Then `real` is the place where the path would be.
    """

    real: bytes
    is_open: bool
    steps: Steps


class Reached(NamedTuple):
    """The end of a path: its place without symlinks, and what is there.

    If not `is_entry`, the directory of the place does not exist.
    """

    real: bytes
    attr: Attr | None
    is_entry: bool
    steps: Steps


_ROOT = Way(b"", True, ())


class NameWalk:
    """A walker of paths in one state of the tree, which remembers the directories on the way.

    All methods raise UnservedDirectory if a fact is missing, which the facts have noted.
    """

    def __init__(self, facts: TreeFacts) -> None:
        self._facts = facts
        self._ways: dict[bytes, Way] = {}  # by the directory as it was named
        self._entered: dict[tuple[bytes, bytes], Way] = {}  # by a real directory and a name in it

    def reach(self, path: bytes, *, follows: bool) -> Reached:
        """Follow a path, and a symlink at its end if it `follows`.

        `path` has no slash at either end, and no empty component.
        """
        parent, name = split(path)
        way, links = self._way(parent), 0
        gathered: Steps = ()
        while True:
            gathered = gathered + way.steps if gathered else way.steps
            if not way.is_open:
                return Reached(join(way.real, name), None, False, gathered)
            if name in (b"", b"."):
                return Reached(way.real, self._facts.attr(way.real), True, gathered)
            if name == b"..":
                above = split(way.real)[0]
                return Reached(above, self._facts.attr(above), True, gathered)
            real = join(way.real, name)
            attr = self._facts.attr(real)
            if attr is None or not (follows and stat.S_ISLNK(attr.mode) and links < MOST_LINKS):
                return Reached(real, attr, True, gathered)
            links += 1
            gathered += ((real, LINK),)
            above, name = split(attr.target.rstrip(b"/"))
            is_absolute = attr.target.startswith(b"/")
            way = self._descend(b"" if is_absolute else way.real, above, links)

    def _way(self, path: bytes) -> Way:
        """Return the way to a directory as a job named it."""
        if not path:
            return _ROOT
        found = self._ways.get(path)
        if found is None:
            parent, name = split(path)
            found = self._ways[path] = self._go_on(self._way(parent), name, 0)
        return found

    def _go_on(self, way: Way, name: bytes, links: int) -> Way:
        if not way.is_open:
            return Way(join(way.real, name), False, way.steps)
        entered = self._enter(way.real, name, links)
        return Way(entered.real, entered.is_open, way.steps + entered.steps)

    def _enter(self, directory: bytes, name: bytes, links: int) -> Way:
        """Return the way from a real directory to a name in it, through which a path leads."""
        if name in (b"", b"."):
            return Way(directory, True, ())
        if name == b"..":
            return Way(split(directory)[0], True, ())
        key = directory, name
        found = self._entered.get(key)
        if found is None:
            found = self._look(directory, name, links)
            if links == 0:
                self._entered[key] = found
        return found

    def _look(self, directory: bytes, name: bytes, links: int) -> Way:
        path = join(directory, name)
        attr = self._facts.attr(path)
        if attr is None:
            return Way(path, False, ((path, ABSENT),))
        if stat.S_ISDIR(attr.mode):
            return Way(path, True, ((path, ENTER),))
        if not stat.S_ISLNK(attr.mode):
            return Way(path, False, ((path, TYPE),))
        step: Steps = ((path, LINK),)
        if links >= MOST_LINKS:
            return Way(path, False, step)
        way = self._descend(b"" if attr.target.startswith(b"/") else directory, attr.target, links + 1)
        return Way(way.real, way.is_open, step + way.steps)

    def _descend(self, directory: bytes, path: bytes, links: int) -> Way:
        """Return the way from a real directory down a path, which may have any form."""
        way = Way(directory, True, ())
        for name in path.split(b"/"):
            if name not in (b"", b"."):
                way = self._go_on(way, name, links)
        return way
