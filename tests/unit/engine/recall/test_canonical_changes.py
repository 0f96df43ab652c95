"""Test which form the changes of a run are stored in."""

import pytest

from termite.engine.model import BaseVersion, Change
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import Dependency, PathSet, Use
from termite.engine.recall.look_up.canonical_changes import canonical_changes, rebased_changes
from tests.unit.engine.recall.recall_trees import directory, file, link, tree_of

MODE = 0o100644
NOTHING = BaseVersion(-1)
OLD = BaseVersion(3, 1, None)
TREE = {
    b"w/out": directory(),
    b"w/out/free": file("old"),
    b"w/out/linked": file("old", nlink=2),
    b"w/out/kept": file("old"),
    b"w/out/replaced": file("old"),
}
USES = PathSet(
    (
        Dependency(b"w/out/absent", Use.TYPE),
        Dependency(b"w/out/free", Use.FRESH, MODE),
        Dependency(b"w/out/kept", Use.WHOLE),
        Dependency(b"w/out/linked", Use.FRESH, MODE),
        Dependency(b"w/out/new", Use.FRESH, MODE),
        Dependency(b"w/out/replaced", Use.TYPE),
    )
)


def canonical(*changes: Change) -> tuple[Change, ...]:
    return canonical_changes(changes, USES, TreeFacts(tree_of(TREE)))


@pytest.mark.parametrize("name", [b"free", b"replaced", b"new"])
def test_a_file_whose_former_content_does_not_matter_is_made_anew(name: bytes) -> None:
    attr = file("old")
    for content, base in ((True, None), (True, OLD), (False, None), (True, NOTHING)):
        found = canonical(Change(b"w/out/" + name, attr, content=content, base=base))
        assert found == (Change(b"w/out/" + name, attr),)


@pytest.mark.parametrize(
    "change",
    [
        Change(b"w/out/kept", file("old"), content=False),
        Change(b"w/out/kept", file("new"), base=OLD),
        Change(b"w/out/linked", file("new"), base=OLD),
        Change(b"w/out/absent", link(b"x"), base=NOTHING),
        Change(b"w/out/unknown", file("new"), base=NOTHING),
    ],
)
def test_other_files_stay_as_they_were_reported(change: Change) -> None:
    assert canonical(change) == (change,)


def test_a_removal_of_any_content_derives_from_none() -> None:
    assert canonical(Change(b"w/out/replaced", None, base=OLD)) == (Change(b"w/out/replaced", None),)
    kept = Change(b"w/out/kept", None, base=OLD)
    assert canonical(kept) == (kept,)


def test_the_time_of_a_directory_follows_from_its_entries() -> None:
    out, made = Change(b"w/out", directory(), content=False), Change(b"w/out/new", file("new"))
    assert canonical(out, made) == (made,)
    assert canonical(out) == (out,), "something was made in it and removed again"
    changed = Change(b"w/out", directory(0o700), content=False)
    assert canonical(changed, made) == (changed, made)
    new = Change(b"w/dir", directory())
    assert canonical(new) == (new,)


def test_a_stored_change_derives_from_what_is_there_now() -> None:
    paths = (b"w/out/free", b"w/out/new", b"w/out", b"w/out/link")
    tree = tree_of({**TREE, b"w/out/link": link(b"x")})
    changes = [Change(path, file("made"), base=OLD) for path in paths[:2]]
    changes += [Change(b"w/out/replaced", None), Change(b"w/out", directory()), Change(b"w/out/link", link(b"y"))]
    changes += [Change(b"w/out/kept", file("old"), content=False)]
    old = file("old")
    base = BaseVersion(old.size, old.mtime_ns, old.digest)
    found = [change.base for change in rebased_changes(changes, tree)]
    assert found == [base, NOTHING, base, None, None, None]
