"""Decide which results may leave this machine for a store that others read.

A worker reads more than everybody may: private files of the tree, and directories that the user
exports to jobs alone. A result that was made of such a file stays here.
"""

import re
import stat
from collections.abc import Callable, Iterable, Sequence

from termite.engine.model import Change
from termite.engine.paths import is_within
from termite.engine.recall.logic.uses import ENTER, LIST, READ, WHOLE, Dependency, PathSet, State, mode_of_state

_CONTENT = READ | WHOLE
# Programs open the last ones when they start, whatever they do afterwards.
_ANSWERED_ALIKE = re.compile(
    rb"dev/(?:null|zero|full|u?random|std(?:in|out|err)|fd(?:/\d+)?|tty)"
    rb"|proc/(?:self|thread-self)/(?:exe|cwd|maps|fd(?:/\d+)?)"
    rb"|proc/filesystems|sys/fs/selinux|sys/devices/system/cpu/(?:online|possible)"
)
_OTHERS_READ, _OTHERS_SEARCH = 0o004, 0o001


def has_asked_little(asked: Iterable[bytes]) -> bool:
    """Return whether a command has asked /proc, /sys and /dev for nothing that differs by machine.

    Machines are told apart by name, kernel, processor and cores anyway.
    """
    return all(_ANSWERED_ALIKE.fullmatch(path) for path in asked)


def find_unshared(
    path_set: PathSet,
    states: Sequence[State],
    changes: Sequence[Change],
    root: bytes,
    is_public: Callable[[bytes], bool],
) -> bytes | None:
    """Return a path for which a result must stay on this machine, or None if it may leave.

    `states` are those of the path set with times, and `changes` are those of the result. `root` is
    the tree, whose files tell by their modes whether others may read them. `is_public` tells that
    of a path outside.
    """
    for dependency, state in zip(path_set.dependencies, states, strict=True):
        if state and not _may_leave(dependency, state, root, is_public):  # without a state, only the name is told
            return dependency.path
    for change in changes:
        attr = change.attr
        if attr is not None and change.content and stat.S_ISREG(attr.mode) and not attr.mode & _OTHERS_READ:
            return change.path
    return None


def _may_leave(dependency: Dependency, state: State, root: bytes, is_public: Callable[[bytes], bool]) -> bool:
    path, use = dependency.path, dependency.use
    if not is_within(path, root):
        return not use & (_CONTENT | LIST) or is_public(path)
    wanted = (_OTHERS_READ if use & _CONTENT else 0) | (_OTHERS_SEARCH if use & ENTER and path != root else 0)
    mode = mode_of_state(dependency, state) if wanted else None
    return mode is None or mode & wanted == wanted
