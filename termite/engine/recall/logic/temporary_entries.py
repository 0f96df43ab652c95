"""Recognise the temporary entries of a job, whose names are random.

If such names were dependencies, every run would have a path set of its own.
"""

import itertools
import re

from termite.engine.recall.logic.traced_paths import AccessKind

RANDOM_LETTERS = 6  # mkstemp(3) makes as many, and Python's tempfile two more
LEAST_CHANGES = 2  # between small letters, capitals and digits; 92 of 100 random names have as many

_MAKES = int(AccessKind.EXCL | AccessKind.MAKE)
# Of the compiler, sed, sort, ar, mktemp(1) and Python. They make so many that eight of a hundred
# would be noticed. Six small letters behind the "st" of ar are rather a word.
_KNOWN = re.compile(
    rb"(?:(?:cc|sed|sort|st(?![a-z]{6}))[A-Za-z0-9]{6}|tmp\.[A-Za-z0-9]{10}|tmp[a-z0-9_]{8})(?:\.[A-Za-z0-9]+)*\Z"
)
_STEM = re.compile(rb"([A-Za-z0-9]{6,})(?:\.[A-Za-z0-9]+)*\Z")


def is_temporary(name: bytes, first: int) -> bool:
    """Return whether a name that is gone at the end of a job was a random one that the job made.

    `first` is the AccessKind of its first use. A lock file is made in the same way, and is no
    temporary entry: another job may hold it. Its name is not random.
    """
    return bool(first & _MAKES) and looks_random(name)


def looks_random(name: bytes) -> bool:
    """Return whether mkstemp or mkdtemp may have made this name."""
    if _KNOWN.match(name):
        return True
    found = _STEM.search(name)
    if found is None:
        return False
    kinds = [_kind(letter) for letter in found[1][-RANDOM_LETTERS:]]
    return sum(one != other for one, other in itertools.pairwise(kinds)) >= LEAST_CHANGES


def _kind(letter: int) -> int:
    """Return 0 for a digit, 1 for a capital and 2 for a small letter."""
    return (letter >= ord("A")) + (letter >= ord("a"))
