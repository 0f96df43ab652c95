"""Find the outputs that are files of before under new names, as after `mv`, and have their times.

The time of such an output is that of its former name, whenever the job runs. A stored result must
therefore not bring the time of then, and the time of the former name is no dependency.
"""

import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from termite.engine.model import Attr, Change
from termite.engine.recall.logic.traced_paths import AccessKind
from termite.engine.recall.logic.tree_facts import TreeFacts

_MOVED, _MAKE = int(AccessKind.MOVED), int(AccessKind.MAKE)
# It is written, or gets a time that the job sets.
_CHANGED = int(AccessKind.WRITE | AccessKind.TRUNC | AccessKind.META)
# A job that reads the file may copy it. Before mv overwrites a file, it opens that one with O_PATH.
_READ = int(AccessKind.READ | AccessKind.OPATH)


# They change modes at most. A shell starts the others, and sets no time itself.
_SET_NO_TIME = frozenset({b"chmod", b"sh", b"dash", b"bash"})


class CarriedTime(NamedTuple):
    """An output, and the file whose time it has: its former name, or itself.

    Both are paths without symlinks.
    """

    output: bytes
    source: bytes


def find_carried_times(
    changed: Mapping[bytes, Change], before: Mapping[bytes, Attr | None], kinds: Mapping[bytes, int], facts: TreeFacts
) -> tuple[CarriedTime, ...]:
    """Return the outputs that are files of before under new names, in the order of their names.

    `before` has what was at each changed path, and `kinds` the accesses of the job. Contents and
    times tell which new name is that of a file. If two names fit, neither is known.
    """
    moved = {
        path: attr
        for path, change in changed.items()
        if change.attr is None and (attr := before[path]) is not None and _may_be_source(attr, kinds.get(path, 0))
    }
    if not moved:
        return ()
    outputs = [change for path, change in changed.items() if _may_be_output(change, kinds.get(path, 0))]
    found = [
        CarriedTime(change.path, path)
        for path, attr in moved.items()
        for change in outputs
        if change.attr is not None and _is_alike(path, attr, change.attr, facts)
    ]
    return tuple(sorted(pair for pair in found if _is_unique(pair, found)))


def find_kept_times(
    changed: Mapping[bytes, Change], before: Mapping[bytes, Attr | None], tools: Iterable[bytes]
) -> tuple[CarriedTime, ...]:
    """Return the files of which a job has only changed the mode, if its `tools` set no times."""
    names = {tool.rpartition(b"/")[2] for tool in tools}
    if not names or not names <= _SET_NO_TIME:
        return ()
    return tuple(
        CarriedTime(path, path)
        for path, change in changed.items()
        if not change.content and _has_time_of(change.attr, before[path])
    )


def _has_time_of(after: Attr | None, before: Attr | None) -> bool:
    if after is None or before is None or not (stat.S_ISREG(after.mode) and stat.S_ISREG(before.mode)):
        return False
    return (after.mtime_ns, after.size) == (before.mtime_ns, before.size)


def _may_be_source(attr: Attr, kinds: int) -> bool:
    return stat.S_ISREG(attr.mode) and attr.nlink == 1 and bool(kinds & _MOVED) and not kinds & (_READ | _CHANGED)


def _may_be_output(change: Change, kinds: int) -> bool:
    attr = change.attr
    is_file = attr is not None and stat.S_ISREG(attr.mode) and change.link_to is None
    return is_file and bool(kinds & _MAKE) and not kinds & _CHANGED


def _is_alike(path: bytes, before: Attr, after: Attr, facts: TreeFacts) -> bool:
    if (before.mtime_ns, before.size) != (after.mtime_ns, after.size) or after.digest is None:
        return False
    sha256 = facts.sha256(path, before)
    return sha256 == after.digest.sha256  # one that is not known yet is noted, and equals none


def _is_unique(pair: CarriedTime, found: Iterable[CarriedTime]) -> bool:
    return sum(other.output == pair.output or other.source == pair.source for other in found) == 1
