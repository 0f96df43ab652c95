"""A file that is moved keeps its time, whichever that is, and so its time is no dependency."""

import msgspec
import pytest

from termite.engine.model import Change
from termite.engine.recall.logic.traced_paths import AccessKind, PathAccess
from termite.engine.recall.logic.tree_facts import FactsMissing
from termite.engine.recall.logic.uses import Use
from termite.engine.recall.look_up.canonical_changes import rebased_changes
from tests.unit.engine.recall.recall_trees import (
    LONG_AGO_NS,
    LSTAT,
    READ,
    TIMING,
    UNLINK,
    access,
    directory,
    file,
    found,
    tree_of,
)

LATER_NS = 5 * 10**9
OLD = {b"w/a.o": file("a"), b"w/b.lo": file("dummy", mtime_ns=2 * LONG_AGO_NS), b"w/c.o": file("c")}
MOVED = access(b"/w/a.o", LSTAT, UNLINK | AccessKind.MOVED)
NEW_NAME = access(b"/w/b.lo", AccessKind.MAKE | AccessKind.NOFOLLOW, AccessKind.STAT | AccessKind.OPATH)
CHANGES = (Change(b"w/a.o", None), Change(b"w/b.lo", file("a")))


def test_the_time_of_a_moved_file_is_no_dependency() -> None:
    there = found(tree_of(OLD), [MOVED, NEW_NAME], CHANGES)
    uses = {dependency.path: Use(dependency.use) for dependency in there.path_set.dependencies}
    assert there.carried == ((b"w/b.lo", b"w/a.o"),)
    assert not there.has_set_times
    assert uses[b"w/a.o"] == Use.WHOLE | Use.STAT
    assert uses[b"w/b.lo"] == Use.TYPE


def test_a_stored_result_gives_the_new_name_the_present_time_of_the_old_one() -> None:
    tree = tree_of({**OLD, b"w/a.o": file("a", mtime_ns=LATER_NS)})
    changes = rebased_changes(CHANGES, tree, [(b"w/b.lo", b"w/a.o")])
    assert [change.attr and change.attr.mtime_ns for change in changes] == [None, LATER_NS]
    assert [change.attr and change.attr.digest for change in changes] == [None, file("a").digest]


@pytest.mark.parametrize(
    ("accesses", "changes"),
    [
        pytest.param([access(b"/w/a.o", READ, UNLINK | AccessKind.MOVED), NEW_NAME], CHANGES, id="it was read"),
        pytest.param([MOVED, access(b"/w/b.lo", AccessKind.MAKE, AccessKind.META)], CHANGES, id="a time was set"),
        pytest.param([MOVED, access(b"/w/b.lo", AccessKind.CREATE, AccessKind.TRUNC)], CHANGES, id="a copy"),
        pytest.param([MOVED, NEW_NAME], (CHANGES[0], Change(b"w/b.lo", file("b"))), id="another content"),
        pytest.param(
            [MOVED, NEW_NAME], (CHANGES[0], Change(b"w/b.lo", file("a", mtime_ns=TIMING.started_ns))), id="another time"
        ),
        pytest.param([MOVED, NEW_NAME], (Change(b"w/b.lo", file("a"), link_to=b"w/a.o"),), id="a link"),
        pytest.param(
            [MOVED, NEW_NAME, access(b"/w/d", AccessKind.MAKE)], (*CHANGES, Change(b"w/d", file("a"))), id="two names"
        ),
        pytest.param([access(b"/w/a.o", UNLINK), NEW_NAME], CHANGES, id="removed"),
    ],
)
def test_a_time_counts_if_nobody_knows_whose_it_is(accesses: list[PathAccess], changes: tuple[Change, ...]) -> None:
    there = found(tree_of(OLD), accesses, changes)
    assert there.carried == ()
    if changes[-1].attr is not None and changes[-1].attr.mtime_ns != TIMING.started_ns:
        assert there.has_set_times


def test_two_files_of_one_content_and_time_are_not_told_apart() -> None:
    tree = tree_of({**OLD, b"w/c.o": OLD[b"w/a.o"]})
    other = access(b"/w/c.o", LSTAT, UNLINK | AccessKind.MOVED)
    assert found(tree, [MOVED, other, NEW_NAME], (*CHANGES, Change(b"w/c.o", None))).carried == ()


def test_a_digest_that_is_missing_is_got() -> None:
    unknown = msgspec.structs.replace(OLD[b"w/a.o"], digest=None)
    tree = tree_of({b"w": directory(), **OLD, b"w/a.o": unknown})
    with pytest.raises(FactsMissing) as missing:
        found(tree, [MOVED, NEW_NAME], CHANGES)
    assert missing.value.contents == {b"w/a.o"}


@pytest.mark.parametrize(
    ("tools", "change", "is_kept"),
    [
        ((b"bin/chmod",), Change(b"w/c.o", file("c", 0o444), content=False), True),
        ((b"bin/chmod", b"bin/sh"), Change(b"w/c.o", file("c", 0o444), content=False), True),
        ((b"bin/chmod", b"bin/touch"), Change(b"w/c.o", file("c", 0o444), content=False), False),
        ((b"bin/chmod",), Change(b"w/c.o", file("c", 0o444, mtime_ns=LATER_NS), content=False), False),
        ((b"bin/chmod",), Change(b"w/c.o", file("d", 0o444)), False),
    ],
)
def test_a_file_whose_mode_alone_has_changed_keeps_its_time(
    tools: tuple[bytes, ...], change: Change, is_kept: bool
) -> None:
    tree = tree_of({b"bin": directory(), **{tool: file("", 0o755) for tool in tools}, **OLD})
    executed = [access(b"/" + tool, AccessKind.EXEC | AccessKind.FOLLOW) for tool in tools]
    there = found(tree, [*executed, access(b"/w/c.o", LSTAT, AccessKind.META)], [change])
    uses = {dependency.path: Use(dependency.use) for dependency in there.path_set.dependencies}
    assert bool(there.carried) is is_kept
    if is_kept:
        assert Use.TIME not in uses[b"w/c.o"]
        later = tree_of({**OLD, b"w/c.o": file("c", mtime_ns=LATER_NS)})
        (rebased,) = rebased_changes([change], later, there.carried)
        assert rebased.attr is not None
        assert rebased.attr.mtime_ns == LATER_NS
