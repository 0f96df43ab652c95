"""Decide which part of a path's state matters to a job, by the kinds of its accesses.

The first access to an output decides, and for inputs all of them count. Each rule has an example in
the table of commands (`tests/edge/engine/recall/table_commands.py`) that would be a wrong hit.

The time of a file that is moved lives on, whenever the job runs. A stored result must not bring the
time of then, and that time is no dependency (`CarriedTime`).
"""

import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from termite.engine.model import Attr, Change, is_directory
from termite.engine.recall.logic.traced_paths import AccessKind
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import (
    ABSENT,
    ENTER,
    EXEC,
    FRESH,
    LINK,
    LIST,
    MODE,
    READ,
    STAT,
    TIME,
    TYPE,
    WHOLE,
    is_present_file,
)

# Accesses as plain numbers, which are a hundred times as fast as members of a flag.
_READ, _WRITE, _CREATE, _EXCL, _TRUNC, _STAT, _ACCESS, _READLINK, _EXEC, _LIST, _CHDIR, _UNLINK, _MAKE, _META = map(
    int, list(AccessKind)[:14]
)
_OPATH, _MOVED = int(AccessKind.OPATH), int(AccessKind.MOVED)
# A descriptor of O_PATH can be opened again through /proc, which names no path.
_CONTENT_IS_USED = _READ | _WRITE | _EXEC | _TRUNC | _OPATH
# Such a call has failed, or has changed nothing. Otherwise the path would be an output.
_MODE_IS_USED = _ACCESS | _META | _CREATE | _TRUNC | _EXCL | _MAKE | _OPATH | _WRITE
# It is written, or gets a time that the job sets.
_GETS_TIME = int(AccessKind.WRITE | AccessKind.TRUNC | AccessKind.META)
# A job that reads the file may copy it. Before mv overwrites a file, it opens that one with O_PATH.
_MAY_BE_COPIED = int(AccessKind.READ | AccessKind.OPATH)
# They change modes at most. A shell starts the others, and sets no time itself.
_SET_NO_TIME = frozenset({b"chmod", b"sh", b"dash", b"bash"})
_IN_PLACE = _READ | _WRITE | _READLINK | _EXEC | _META


def use_of_input(kinds: int, before: Attr | None, *, is_entry: bool) -> int:
    """Return how a job used a path that it did not change, 0 if that does not matter.

    `kinds` are those of its accesses. `is_entry`: the directory of the path exists.
    """
    if before is None:
        return ABSENT if is_entry else 0
    use = 0
    if kinds & _READLINK or stat.S_ISLNK(before.mode):
        use |= LINK
    if kinds & _CONTENT_IS_USED:
        use |= READ
    if kinds & _EXEC:
        use |= EXEC
    if kinds & _STAT:
        use |= STAT
    if kinds & _MODE_IS_USED:
        use |= MODE
    # If a file was made again with the content and the time that it had, there is no change either.
    if kinds & _MOVED or (kinds & (_MAKE | _UNLINK | _META) and stat.S_ISREG(before.mode)):
        use |= WHOLE | TIME
    if kinds & _CHDIR:
        use |= ENTER
    if kinds & _LIST or (kinds & _UNLINK and stat.S_ISDIR(before.mode)):
        use |= LIST
    return use or TYPE


def use_of_output(
    first: int, kinds: int, before: Attr | None, after: Attr | None, *, is_overwriter: bool, is_closed: bool
) -> int:
    """Return how the state before the job can show in what it left at a path.

    `is_overwriter`: the job overwrites its outputs although it looks at them first. `is_closed`:
    the directory may not be written, so that removing or replacing the file has failed.
    """
    if is_directory(before):
        return TYPE | MODE | LIST
    is_writable = before is None or bool(stat.S_ISREG(before.mode) and before.mode & 0o200)
    is_fresh = first & (_CREATE | _TRUNC) and not first & (_READ | _WRITE | _EXCL)
    # A compiler that looks at a file and then appends to it has neither emptied nor removed it.
    is_kept = bool(first & (_READ | _WRITE) or (kinds & _WRITE and not kinds & (_TRUNC | _UNLINK)))
    if before is not None and kinds & _MOVED:
        use = WHOLE | TIME
    elif is_present_file(after) and is_writable and (is_fresh or (is_overwriter and not is_kept)):
        # O_TRUNC keeps the mode. Nobody knows which one a new file would have got.
        return FRESH | TYPE if before is not None and after is not None and after.mode == before.mode else FRESH
    elif first & _IN_PLACE:
        use = WHOLE
    elif not is_closed and (first & _UNLINK or (first & _MAKE and not first & (_STAT | _READ))):
        return TYPE
    elif kinds & (_READ | _WRITE | _META | _OPATH) and before is not None:
        use = WHOLE
    else:
        use = STAT if before is not None else TYPE
    if before is not None:
        if after is not None and after.mtime_ns == before.mtime_ns:
            use |= TIME
        if kinds & _STAT:
            use |= STAT
        if stat.S_ISLNK(before.mode):
            use |= LINK
    return use


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
    return (
        stat.S_ISREG(attr.mode)
        and attr.nlink == 1
        and bool(kinds & _MOVED)
        and not kinds & (_MAY_BE_COPIED | _GETS_TIME)
    )


def _may_be_output(change: Change, kinds: int) -> bool:
    attr = change.attr
    is_file = attr is not None and stat.S_ISREG(attr.mode) and change.link_to is None
    return is_file and bool(kinds & _MAKE) and not kinds & _GETS_TIME


def _is_alike(path: bytes, before: Attr, after: Attr, facts: TreeFacts) -> bool:
    if (before.mtime_ns, before.size) != (after.mtime_ns, after.size) or after.digest is None:
        return False
    sha256 = facts.sha256(path, before)
    return sha256 == after.digest.sha256  # one that is not known yet is noted, and equals none


def _is_unique(pair: CarriedTime, found: Iterable[CarriedTime]) -> bool:
    return sum(other.output == pair.output or other.source == pair.source for other in found) == 1
