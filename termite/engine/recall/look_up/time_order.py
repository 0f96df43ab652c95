"""Name the order of the times that a command has seen.

After each clean build, all times are others, but their order is the same. A command that compares
two times, such as `[ a -nt b ]`, seems to be blind to times then, until somebody touches b.
"""

import hashlib
import stat

import msgspec

from termite.engine.model import Attr
from termite.engine.recall.logic.overwriters import is_compiler, is_loader
from termite.engine.recall.logic.tree_facts import TreeFacts, UnservedDirectory
from termite.engine.recall.logic.uses import EXEC, STAT, PathSet


def time_order(path_set: PathSet, facts: TreeFacts) -> bytes:
    """Return 16 bytes that stand for the order of all mtimes which the command has seen.

    Equal times have one place. Missing facts are noted by `facts`, and the order is of no use then.
    """
    has_directories = compares_directories(path_set)
    times = []
    for dependency in path_set.dependencies:
        attr = _find(facts, dependency.path) if dependency.use & STAT else None
        is_seen = attr is not None and (has_directories or not stat.S_ISDIR(attr.mode))
        times.append(attr.mtime_ns if attr is not None and is_seen else -1)
    places = {time: place for place, time in enumerate(sorted(set(times)))}
    return hashlib.sha256(msgspec.msgpack.encode([places[time] for time in times])).digest()[:16]


def compares_directories(path_set: PathSet) -> bool:
    """Return whether the command may compare the times of directories.

    Compilers do not. They ask for those of all directories in which they search, and each output
    changes these.
    """
    executed = [dependency.path for dependency in path_set.dependencies if dependency.use & EXEC]
    return not all(is_compiler(path) or is_loader(path) for path in executed)


def _find(facts: TreeFacts, path: bytes) -> Attr | None:
    try:
        return facts.find(path)
    except UnservedDirectory:
        return None
