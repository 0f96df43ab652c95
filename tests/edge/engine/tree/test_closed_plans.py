"""A plan of a killed master names a place that cannot be looked at: it is discarded and named."""

import os
from errno import EIO
from pathlib import Path

import pytest

from termite.engine.tree import disk
from termite.engine.tree.logic.redo_plan import JobEnd, PlaceEntry
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing import orphaned_plans
from termite.engine.tree.publishing.plan_file import PlanFile
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
    tree.close()
    assert not (root / ".termite-staging").exists()
    return tree.discarded


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
    real = disk.Disk.open_directory

    def open_directory(self: disk.Disk, path: bytes, flags: int = os.O_RDONLY) -> int:
        if path.endswith(b"d/e"):
            raise failed(EIO)
        return real(self, path, flags)

    monkeypatch.setattr(disk.Disk, "open_directory", open_directory)
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
        return disk.remove_beneath(fd, name)

    monkeypatch.setattr(orphaned_plans, "remove_beneath", remove_beneath)
    assert begin_and_end(root) == []


def test_a_plan_whose_places_are_as_they_were_is_finished(refused_root: Path) -> None:
    leave_plan(refused_root)
    assert begin_and_end(refused_root) == []
    assert (refused_root / "d" / "e" / "out").read_text() == "result"
