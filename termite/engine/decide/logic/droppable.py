"""Decide which writes outside the tree may be dropped, because no build needs what they make.

The plugins name such places (`termite_droppable` in hookspecs.py). Every other write outside the
tree makes its command run on the master's machine.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from termite.engine.paths import is_within


class DroppablePlaces:
    """The places outside one tree where writes may be dropped."""

    def __init__(self, places: Iterable[str], writable_root: str) -> None:
        """Take the places that plugins named: absolute paths, and names for any directory.

        Relative paths are ignored, and also the directories at and above the writable root: other
        parts of the same project may stand there.
        """
        self._names: dict[str, None] = {}
        self._directories: dict[str, None] = {}
        for place in places:
            if "/" not in place:
                self._names[place] = None
            elif place.startswith("/") and not _is_at_or_below(writable_root, place.rstrip("/")):
                self._directories[place.rstrip("/")] = None

    def place_of(self, path: str) -> str:
        """Return the place to which an absolute path outside the tree belongs, or "" if to none."""
        for directory in self._directories:
            if _is_at_or_below(path, directory):
                return directory
        for name in path.split("/"):
            for pattern in self._names:
                if name and fnmatchcase(name, pattern):
                    return pattern
        return ""


def _is_at_or_below(path: str, directory: str) -> bool:
    return is_within(path.encode(errors="surrogateescape"), directory.encode(errors="surrogateescape"))
