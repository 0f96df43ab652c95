"""Name what a job depends on: paths, each with the part of its state that the job used.

A path set is what one run depended on, without the states. The states are taken from the tree of
the moment, and two equal lists of them mean that the command would do the same again.
"""

import enum
import hashlib
import stat
from collections.abc import Sequence

import msgspec

from termite.engine.model import Attr
from termite.engine.recall.logic.tree_facts import TreeFacts, UnservedDirectory

# A state is made of simple values, so that it can be packed and compared.
State = tuple[object, ...]


class Use(enum.IntFlag):
    """A part of the state of a path."""

    ABSENT = 1 << 0  # nothing is there
    TYPE = 1 << 1  # nothing, or the kind of entry
    ENTER = 1 << 2  # a directory on the way to another path, and who may pass it
    FILL = 1 << 3  # a directory in which names come or go, and who may change it
    MODE = 1 << 4
    LINK = 1 << 5  # the target of a symlink
    READ = 1 << 6  # the content, and who may read or execute it
    STAT = 1 << 7  # all that stat shows, but for the times
    LIST = 1 << 8  # the names in a directory with their types, without those of the job itself
    WHOLE = 1 << 9  # content, mode and number of names, which live on in the result
    TIME = 1 << 10  # the mtime, which lives on in the result
    FRESH = 1 << 11  # nothing, or a file that is overwritten and then looks like a new one
    EXEC = 1 << 12  # it was executed, which is no state of its own


# Plain numbers: a bitwise operation on members of a flag takes a microsecond, and a job has
# hundreds of paths.
ABSENT, TYPE, ENTER, FILL, MODE, LINK, READ, STAT, LIST, WHOLE, TIME, FRESH, EXEC = (int(use) for use in Use)
_ENTER_OR_FILL = ENTER | FILL
_WITH_MODE = MODE | STAT | WHOLE
_WITH_CONTENT = LINK | READ | WHOLE


class Dependency(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A path without symlinks, and how a job used it.

    `mode` is that of the result for FRESH, else 0. `own` has the names in a directory that the job
    itself made, changed or removed, for LIST.
    """

    path: bytes
    use: int
    mode: int = 0
    own: tuple[bytes, ...] = ()


class PathSet(msgspec.Struct, frozen=True, array_like=True):
    """The dependencies of one run, sorted by path."""

    dependencies: tuple[Dependency, ...]


def pack_path_set(path_set: PathSet) -> tuple[bytes, bytes]:
    """Return the identity of a path set, a SHA-256, and its packed form."""
    packed = msgspec.msgpack.encode(path_set)
    return hashlib.sha256(packed).digest(), packed


def is_present_file(attr: Attr | None) -> bool:
    """Return whether these are the attributes of a regular file; None, of nothing, are not."""
    return attr is not None and stat.S_ISREG(attr.mode)


def find_intruder(path_set: PathSet, facts: TreeFacts) -> bytes | None:
    """Return a path that must be absent and is there, or None.

    Most path sets that do not fit are found by this without any digest. Directories whose names are
    unknown are noted by `facts`, and count as without them.
    """
    for dependency in path_set.dependencies:
        if dependency.use == ABSENT and _find(facts, dependency.path) is not None:
            return dependency.path
    return None


def states(path_set: PathSet, facts: TreeFacts, *, with_times: bool) -> list[State]:
    """Return the state of each dependency as it is now.

    Missing facts are noted by `facts`, and the list is of no use then. `with_times` adds the mtimes
    of everything that `stat` was asked about, and the sizes and links of directories.
    """
    return [state_of(dependency, facts, with_times=with_times) for dependency in path_set.dependencies]


def state_of(dependency: Dependency, facts: TreeFacts, *, with_times: bool) -> State:
    """Return the state of one dependency as it is now, as `states` does."""
    path, use = dependency.path, dependency.use
    attr = _find(facts, path)
    if attr is None:
        # A FRESH path that is absent is as good as one that is a new file.
        return (True,) if use == FRESH else ()
    found: list[object] = [stat.S_IFMT(attr.mode)]
    if use & _ENTER_OR_FILL:
        found.append(attr.mode & (0o3333 if use & FILL else 0o111))
    if use & _WITH_MODE:
        found.append(attr.mode & 0o7777)
    if use & _WITH_CONTENT:
        found.append(_content(path, attr, use, facts))
    if use & READ:
        found.append(attr.mode & 0o555)
    # If it is moved, linked or written in place, its other names show it.
    if use & WHOLE and stat.S_ISREG(attr.mode):
        found.append(attr.nlink)
    # Each new entry may change the size and the links of a directory, as it changes its time.
    if use & STAT and (with_times or not stat.S_ISDIR(attr.mode)):
        found += (attr.size, attr.nlink)
    if use & TIME or (use & STAT and with_times):
        found.append(attr.mtime_ns)
    if use & LIST and stat.S_ISDIR(attr.mode):
        found += _names(dependency, facts)
    if use & FRESH:
        is_free = _is_overwritten(attr, dependency.mode)
        if use == FRESH and is_free:
            return (True,)
        found.append(is_free or (attr.mode, attr.size, attr.mtime_ns, attr.nlink))
    return tuple(found)


def mode_of_state(dependency: Dependency, state: State) -> int | None:
    """Return the permissions that a state has, or None if it has none.

    For READ, these are the rights to read and execute the file. For ENTER, they are the rights to
    search the directory. For MODE, STAT and WHOLE, they are all.
    """
    use = dependency.use
    at = 1 + bool(use & _ENTER_OR_FILL)
    if use & _WITH_MODE:
        found = state[at] if len(state) > at else None
    elif use & READ:
        found = state[at + 1] if len(state) > at + 1 else None  # behind the content
    else:
        found = state[1] if use & _ENTER_OR_FILL and len(state) > 1 else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def is_free(dependency: Dependency, state: State) -> bool:
    """Return whether the state of a FRESH dependency is one in which any content is overwritten."""
    return not dependency.use & FRESH or not state or state[-1] is True


def _find(facts: TreeFacts, path: bytes) -> Attr | None:
    try:
        return facts.find(path)
    except UnservedDirectory:
        return None


def _content(path: bytes, attr: Attr, use: int, facts: TreeFacts) -> bytes:
    if stat.S_ISLNK(attr.mode):
        return attr.target
    is_read = use & (READ | WHOLE) and stat.S_ISREG(attr.mode)
    return facts.sha256(path, attr) if is_read else b""


def _names(dependency: Dependency, facts: TreeFacts) -> Sequence[object]:
    """Return the names of a directory in their order, each followed by its type."""
    try:
        entries = facts.names(dependency.path)
    except UnservedDirectory:
        return ()
    own = dependency.own
    return [(name, stat.S_IFMT(seen.attr.mode)) for name, seen in sorted(entries.items(), key=_name) if name not in own]


def _name(entry: tuple[bytes, object]) -> bytes:
    return entry[0]


def _is_overwritten(attr: Attr, mode: int) -> bool:
    """Return whether O_TRUNC makes a file of this that cannot be told from a new one of `mode`.

    O_TRUNC keeps the mode, and writes through to the other names of a file.
    """
    return bool(stat.S_ISREG(attr.mode) and attr.mode & 0o200 and attr.nlink == 1 and attr.mode == mode)
