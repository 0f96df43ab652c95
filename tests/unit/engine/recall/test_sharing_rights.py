"""Tests of which results may leave their machine."""

import itertools

import pytest

from termite.engine.model import Attr, Change
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import Dependency, PathSet, Use, mode_of_state, state_of, states
from termite.engine.recall.shared_store.sharing_rights import find_unshared, has_asked_little
from tests.unit.engine.recall.recall_trees import directory, file, link, tree_of
from tests.unit.tables import each_row

TREE = {
    b"w/a.c": file("a"),
    b"w/private.c": file("p", 0o640),
    b"w/run": file("r", 0o711),
    b"w/closed": directory(0o750),
    b"w/closed/b.c": file("b"),
    b"w/link": link(b"a.c"),
    b"w/empty": file(""),
    b"usr": directory(),
    b"usr/a.h": file("h"),
    b"home": directory(0o700),
    b"home/a.h": file("h"),
    b"home/names": directory(),
}
READ, WHOLE, ENTER, FILL = Use.READ, Use.WHOLE, Use.ENTER, Use.FILL


def unshared(*dependencies: Dependency, changes: tuple[Change, ...] = ()) -> bytes | None:
    path_set = PathSet(dependencies)
    facts = TreeFacts(tree_of(TREE))
    found = states(path_set, facts, with_times=True)
    return find_unshared(path_set, found, changes, b"w", lambda path: not path.startswith(b"home"))


@pytest.mark.parametrize("use", [READ, READ | Use.STAT, WHOLE, READ | Use.EXEC, READ | Use.MODE])
def test_only_what_others_may_read_leaves(use: int) -> None:
    assert unshared(Dependency(b"w/a.c", use)) is None
    assert unshared(Dependency(b"w/private.c", use)) == b"w/private.c"


def test_a_file_in_a_closed_directory_stays() -> None:
    assert unshared(Dependency(b"w/closed", ENTER), Dependency(b"w/closed/b.c", READ)) == b"w/closed"
    assert unshared(Dependency(b"w/closed", FILL | ENTER)) == b"w/closed"
    assert unshared(Dependency(b"w", ENTER | FILL), Dependency(b"w/a.c", READ)) is None


def test_a_program_that_others_may_run_only_stays() -> None:
    assert unshared(Dependency(b"w/run", READ | Use.EXEC)) == b"w/run"


def test_outside_the_tree_only_what_each_user_may_read_leaves() -> None:
    assert unshared(Dependency(b"usr", ENTER), Dependency(b"usr/a.h", READ)) is None
    assert unshared(Dependency(b"home/a.h", READ)) == b"home/a.h"
    assert unshared(Dependency(b"home/names", Use.LIST)) == b"home/names"


def test_names_and_links_may_leave() -> None:
    absent = Dependency(b"home/absent", Use.ABSENT), Dependency(b"w/absent", READ)
    assert unshared(*absent, Dependency(b"w/link", Use.LINK), Dependency(b"home", ENTER)) is None
    assert unshared(Dependency(b"w/new.o", Use.FRESH, 0o100644), Dependency(b"w/a.c", Use.STAT)) is None


def test_a_private_output_stays() -> None:
    for mode, found in ((0o644, None), (0o600, b"w/a.o"), (0o640, b"w/a.o")):
        assert unshared(changes=(Change(b"w/a.o", Attr(0o100000 | mode, 1, 1)),)) == found
    assert unshared(changes=(Change(b"w/a.o", None), Change(b"w/d", Attr(0o040700, 0, 1)))) is None


@each_row(
    ("asked", "is_little"),
    [
        ((), True),
        ((b"dev/null", b"proc/self/fd/7", b"proc/filesystems", b"sys/devices/system/cpu/online"), True),
        ((b"dev/null", b"proc/meminfo"), False),
        ((b"proc/self/mounts",), False),
        ((b"proc/1/cmdline",), False),
        ((b"dev/nullx",), False),
        ((b"sys/class/net",), False),
    ],
)
def test_what_a_machine_was_asked_is_told_apart(asked: tuple[bytes, ...], is_little: bool) -> None:
    assert has_asked_little(asked) is is_little


def test_a_mode_is_found_in_each_state_that_has_one() -> None:
    facts = TreeFacts(tree_of(TREE))
    for path, use in itertools.product((b"w/run", b"w/closed"), range(1, 1 << 13)):
        dependency = Dependency(path, use)
        mode = mode_of_state(dependency, state_of(dependency, facts, with_times=True))
        attr = facts.find(path)
        assert attr is not None
        if use & (Use.MODE | Use.STAT | Use.WHOLE):
            assert mode == attr.mode & 0o7777
        elif use & READ:
            assert mode == attr.mode & 0o555
        elif use & (ENTER | FILL):
            assert mode is not None and mode & 0o111 == attr.mode & 0o111
        else:
            assert mode is None
