"""Bring the changes of a run into a form that does not depend on states that do not matter.

A worker compares what a job has left with what was there before. A file that was overwritten with
its own content is reported without a content then, and a directory only if its time has changed.
But a stored result is also published where the file is absent, or has another content.
"""

import stat
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from termite.engine.model import BaseVersion, Change
from termite.engine.paths import split
from termite.engine.recall.logic.tree_facts import TreeFacts, UnservedDirectory
from termite.engine.recall.logic.uses import READ, WHOLE, Dependency, PathSet, is_free, state_of
from termite.engine.tree.logic.attrs import AttrTree

NOTHING = BaseVersion(-1)
_WITH_CONTENT = READ | WHOLE


def canonical_changes(changes: Sequence[Change], path_set: PathSet, facts: TreeFacts) -> tuple[Change, ...]:
    """Return the changes as any run with the same fingerprint can be said to have made them.

    `facts` has the tree before the run. A file whose former content is no part of the fingerprint
    is made anew, and derives from nothing. A directory is left out if it was there with the same
    mode, and an entry of it is made or removed: that changes its time anyway.
    """
    uses = {dependency.path: dependency for dependency in path_set.dependencies}
    filled = {split(change.path)[0] for change in changes if change.content}
    found = []
    for change in changes:
        if change.attr is not None and stat.S_ISDIR(change.attr.mode):
            if change.content or change.path not in filled or not _had_mode(change, facts):
                found.append(change)
        elif _is_made_anew(change, uses, facts):
            found.append(msgspec.structs.replace(change, content=True, base=None))
        else:
            found.append(change)
    return tuple(found)


def rebased_changes(
    changes: Sequence[Change], tree: AttrTree, carried: Iterable[tuple[bytes, bytes]] = ()
) -> tuple[Change, ...]:
    """Return the changes of a stored result as of a job that has seen the tree as it is now.

    Each file that is made, written or removed derives from the version that is there, or from the
    absence. If somebody changes it before the result is published, that is a conflict. The outputs
    that are `carried` get the present times of their sources.
    """
    found = [
        msgspec.structs.replace(change, base=_present_base(change.path, tree)) if _has_base(change) else change
        for change in changes
    ]
    times = {output: seen.attr.mtime_ns for output, source in carried if (seen := tree.seen(source)) is not None}
    return tuple(_with_time(change, times.get(change.path)) for change in found)


def _with_time(change: Change, mtime_ns: int | None) -> Change:
    if mtime_ns is None or change.attr is None:
        return change
    return msgspec.structs.replace(change, attr=msgspec.structs.replace(change.attr, mtime_ns=mtime_ns))


def _has_base(change: Change) -> bool:
    return change.content and (change.attr is None or not stat.S_ISDIR(change.attr.mode))


def _present_base(path: bytes, tree: AttrTree) -> BaseVersion | None:
    seen = tree.seen(path)
    if seen is None:
        return NOTHING
    attr = seen.attr
    return BaseVersion(attr.size, attr.mtime_ns, attr.digest) if stat.S_ISREG(attr.mode) else None


def _had_mode(change: Change, facts: TreeFacts) -> bool:
    """Return whether a directory had its mode before."""
    try:
        before = facts.find(change.path)
    except UnservedDirectory:
        return False
    return before is not None and change.attr is not None and before.mode == change.attr.mode


def _is_made_anew(change: Change, uses: Mapping[bytes, Dependency], facts: TreeFacts) -> bool:
    """Return whether the former content of a file is no part of the fingerprint.

    If nothing was there, and nothing may be there again, the file derives from that: two jobs may
    want a lock.
    """
    dependency = uses.get(change.path)
    if dependency is None or dependency.use & _WITH_CONTENT:
        return False
    state = state_of(dependency, facts, with_times=False)
    if not is_free(dependency, state):
        return False
    return bool(state) or not (change.base is not None and change.base.is_absence)
