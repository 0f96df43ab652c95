"""Decide which writes outside the tree may be dropped, because no build needs what they make.

The plugins name such places (`termite_droppable` in hookspecs.py). Every other write outside the
tree makes its command run on the master's machine.
"""

import re
from collections.abc import Iterable


class DroppablePlaces:
    """The places outside one tree where writes may be dropped."""

    def __init__(self, places: Iterable[str], writable_root: str) -> None:
        """Take the places that plugins named: absolute paths, and names for any directory.

        Relative paths are ignored, and also the directories at and above the writable root: other
        parts of the same project may stand there.
        """
        names: dict[str, None] = {}
        self._directories: dict[str, None] = {}
        for place in places:
            if "/" not in place:
                names[place] = None
            elif place.startswith("/") and not _is_at_or_below(writable_root, place.rstrip("/")):
                self._directories[place.rstrip("/")] = None
        self._names = tuple(names)
        # One search in the whole path: a worker may name a thousand paths of a thousand names.
        any_name = "|".join(f"({_name_regexp(name)})" for name in names)
        self._name = re.compile(f"/(?:{any_name})(?=/|\\Z)")

    def place_of(self, path: str) -> str:
        """Return the place to which an absolute path outside the tree belongs, or "" if to none."""
        for directory in self._directories:
            if _is_at_or_below(path, directory):
                return directory
        found = self._name.search(path) if self._names else None
        return self._names[found.lastindex - 1] if found and found.lastindex else ""


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _name_regexp(pattern: str) -> str:
    """Return a regular expression for the names that a pattern with "*" and "?" matches."""
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "(?!/|\\Z)" + "".join(wild.get(character) or re.escape(character) for character in pattern)
