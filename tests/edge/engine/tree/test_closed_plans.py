"""A plan that names a place which cannot be looked at is discarded and named, also by a sweep."""

import os
import shutil
import stat
from collections.abc import Iterator
from errno import EIO
from pathlib import Path

import pytest

from termite.engine.tree import tree_disk
from termite.engine.tree.logic.redo_plan import JobEnd, PlaceEntry
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing import orphaned_plans
from termite.engine.tree.publishing.kept_plans.discard_note import MOST_BYTES, DiscardNote
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile, lock
from termite.engine.tree.publishing.orphaned_plans import clear_abandoned_tree
from tests.edge.engine.tree.test_failed_looks import failed
from tests.edge.engine.tree.tree_jobs import tree_path

END = JobEnd(b"12345678", 0, 0, 0, b"")


def leave_plan(root: Path) -> None:
    """Leave what a master leaves that is killed before it has placed d/e/out."""
    (root / "d" / "e").mkdir(parents=True)
    staging = root / ".termite-staging"
    staging.mkdir(mode=0o700)
    fd = os.open(staging, os.O_RDONLY)
    plan = PlanFile(fd)
    name = plan.label + b".1"
    (staging / os.fsdecode(name)).write_text("result")
    plan.begin(END, lambda: False, (PlaceEntry(b"d/e/out", name, None),))
    os.close(plan._fd)
    os.close(fd)


def begin_and_end(root: Path) -> list[str]:
    """Start the next master, and return what it has to say."""
    tree = MasterTree(TreeConfig(tree_path(root)))
    lines = list(told(tree))
    tree.close()
    assert not (root / ".termite-staging").exists()
    return lines


def told(tree: MasterTree) -> Iterator[str]:
    """Take the lines that a master has for its user."""
    while tree.discarded:
        yield tree.discarded.take()


def sweep_up(root: Path) -> bool:
    """Clean up after the killed master of a tree, as a process that can tell nobody."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return clear_abandoned_tree(top)
    finally:
        os.close(top)


def leave_lost_plan(root: Path) -> None:
    """Leave a plan whose place has changed since."""
    leave_plan(root)
    (root / "d" / "e" / "out").write_text("of somebody else")


@pytest.fixture(params=["root", "refused_root"])
def users_root(request: pytest.FixtureRequest) -> Path:
    """Return a writable root of the user who runs the test, and one of an ordinary user."""
    return Path(request.getfixturevalue(request.param))


LOST = ["a master was killed, and a command's results were not all written to the tree (d/e/out has changed since)"]
LOST += ["not written: d/e/out"]


@pytest.mark.logs("plan-discarded")
def test_what_a_sweep_has_discarded_is_told_by_the_next_master_once(users_root: Path) -> None:
    leave_lost_plan(users_root)
    staging = users_root / ".termite-staging"
    assert sweep_up(users_root), "no other sweep is needed"
    assert stat.S_IMODE((staging / "discarded").stat().st_mode) == 0o600
    assert not list(staging.glob("plan-*"))
    assert sweep_up(users_root) and (staging / "discarded").exists()
    MasterTree(TreeConfig(tree_path(users_root))).close()
    assert sorted(os.listdir(staging)) == [".gitignore", "discarded"], "that master had no command"
    assert begin_and_end(users_root) == LOST
    assert begin_and_end(users_root) == []
    assert (users_root / "d" / "e" / "out").read_text() == "of somebody else"


@pytest.mark.logs("plan-discarded")
def test_a_master_that_is_killed_before_it_could_tell_leaves_that_to_the_next(users_root: Path) -> None:
    leave_lost_plan(users_root)
    tree = MasterTree(TreeConfig(tree_path(users_root)))
    for fd in (tree._staging.plan._fd, tree._staging.fd, tree._staging._top, tree._staging._clock):
        os.close(fd)
    assert begin_and_end(users_root) == LOST


def test_a_master_that_began_during_the_sweep_tells_when_the_sweep_is_done(users_root: Path) -> None:
    leave_lost_plan(users_root)
    staging = users_root / ".termite-staging"
    (plan,) = staging.glob("plan-*")
    fd = os.open(plan, os.O_RDWR)
    assert lock(fd, wait=False), "as a sweep that has just begun"
    tree = MasterTree(TreeConfig(tree_path(users_root)))
    assert not tree.discarded
    directory = os.open(staging, os.O_RDONLY)
    DiscardNote(directory).add(LOST)
    assert not tree.discarded, "no look at the file for each job"
    plan.unlink()
    os.close(fd)
    os.close(directory)
    assert list(told(tree)) == LOST
    tree.close()
    assert not staging.exists()


@pytest.mark.logs("discard-not-noted")
def test_equal_lines_of_two_plans_are_told_twice_and_the_file_has_a_limit(root: Path) -> None:
    (root / ".termite-staging").mkdir(mode=0o700)
    directory = os.open(root / ".termite-staging", os.O_RDONLY)
    for _ in range(2):
        DiscardNote(directory).add(LOST)
    assert begin_and_end(root) == LOST + LOST
    (root / ".termite-staging").mkdir(mode=0o700)
    directory = os.open(root / ".termite-staging", os.O_RDONLY)
    long = DiscardNote(directory)
    for _ in range(5):
        long.add(["x" * 20_000])
    assert (root / ".termite-staging" / "discarded").stat().st_size <= MOST_BYTES
    assert len(begin_and_end(root)) == 3
    assert sum(1 for _ in iter(lambda: bool(long) and long.take(), False)) == 5, "its own it has in memory"


@pytest.mark.parametrize("kind", ["a copy", "a link", "a FIFO", "a directory", "controls the terminal"])
def test_a_file_that_came_with_an_archive_tells_nothing(root: Path, kind: str) -> None:
    staging = root / ".termite-staging"
    staging.mkdir(mode=0o700)
    note = staging / "discarded"
    if kind == "a copy":
        directory = os.open(staging, os.O_RDONLY)
        DiscardNote(directory).add(["lies"])
        os.close(directory)
        note.rename(root / "original")
        shutil.copy(root / "original", note)
    elif kind == "a link":
        (root / "yours").write_text("1 x lies\n")
        note.symlink_to("../yours")
    elif kind == "a FIFO":
        os.mkfifo(note)
    elif kind == "a directory":
        (note / "deep").mkdir(parents=True)
    else:
        note.touch()
        note.write_bytes(b"%d x \033[2J\n" % note.stat().st_ino)
    assert begin_and_end(root) == []
    assert kind != "a link" or (root / "yours").read_text() == "1 x lies\n"


@pytest.mark.logs("plan-discarded")
def test_the_next_master_begins_though_a_directory_is_closed(refused_root: Path) -> None:
    leave_plan(refused_root)
    (refused_root / "d").chmod(0)
    lines = begin_and_end(refused_root)
    assert "d/e/out: Permission denied" in lines[0]
    assert lines[1:] == ["not written: d/e/out"]
    (refused_root / "d").chmod(0o755)
    assert os.listdir(refused_root / "d" / "e") == []
    assert begin_and_end(refused_root) == [], "it is told once"


@pytest.mark.logs("plan-discarded")
def test_the_next_master_begins_though_a_look_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_plan(root)
    real = tree_disk.Disk.open_directory

    def open_directory(self: tree_disk.Disk, path: bytes, flags: int = os.O_RDONLY) -> int:
        if path.endswith(b"d/e"):
            raise failed(EIO)
        return real(self, path, flags)

    monkeypatch.setattr(tree_disk.Disk, "open_directory", open_directory)
    assert "d/e/out: Input/output error" in begin_and_end(root)[0]


@pytest.mark.logs("staging-not-emptied")
def test_the_next_master_begins_though_something_staged_cannot_be_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".termite-staging").mkdir(mode=0o700)
    (root / ".termite-staging" / "left.1").write_text("")

    def remove_beneath(fd: int, name: bytes) -> bool:
        if name == b"left.1":
            raise failed(EIO)
        return tree_disk.remove_beneath(fd, name)

    monkeypatch.setattr(orphaned_plans, "remove_beneath", remove_beneath)
    assert begin_and_end(root) == []


def test_a_plan_whose_places_are_as_they_were_is_finished(refused_root: Path) -> None:
    leave_plan(refused_root)
    assert begin_and_end(refused_root) == []
    assert (refused_root / "d" / "e" / "out").read_text() == "result"
