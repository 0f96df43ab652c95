"""A worker divides a control group. Directories stand for groups, and show what it writes."""

import os
from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.worker import job_group as module
from termite.engine.worker.job_group import AUTO, NONE, job_group

PID = os.getpid()


def make_group(top: Path, version: int) -> Path:
    top.mkdir()
    (top / "cgroup.procs").touch()
    (top / ("cgroup.controllers" if version == 2 else "memory.limit_in_bytes")).write_text("memory pids\n")
    return top


def empty(group: Path) -> None:
    """Remove the files of a group, which a real one does not need removed."""
    for path in group.iterdir():
        path.unlink()


def test_the_second_version_lets_the_memory_of_groups_below_be_limited(tmp_path: Path) -> None:
    top = make_group(tmp_path / "g", 2)
    with job_group(str(top), 1000) as procs:
        assert procs == top / f"termite-jobs-{PID}/cgroup.procs"
        assert (top / "cgroup.subtree_control").read_text() == "+memory"
        assert (procs.parent / "memory.max").read_text() == "1000"
        empty(procs.parent)
    assert not procs.parent.exists()


def test_a_group_of_our_own_is_left_before_it_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = make_group(tmp_path / "g", 2)
    monkeypatch.setattr(module, "delegated_group", lambda: top)
    with job_group(AUTO, 1000) as procs:
        assert procs is not None
        assert (top / f"termite-worker-{PID}/cgroup.procs").read_text() == "0"


@pytest.mark.logs("job-group-not-made")
def test_a_group_that_cannot_be_divided_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "delegated_group", lambda: tmp_path)
    with job_group(AUTO, 1000) as procs:
        assert procs is None
    monkeypatch.setattr(module, "delegated_group", lambda: None)
    for wanted in (AUTO, NONE):
        with job_group(wanted, 1000) as procs:
            assert procs is None


def test_a_directory_that_is_no_group_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used: it has no memory controller"), job_group(str(tmp_path), 1):
        raise AssertionError


def test_groups_of_workers_that_were_killed_are_removed(tmp_path: Path) -> None:
    top = make_group(tmp_path / "g", 1)
    for name in ("termite-jobs-4194305", f"termite-jobs-{os.getppid()}"):
        (top / name).mkdir()
    with job_group(str(top), 1000) as procs:
        assert procs is not None
        assert (procs.parent / "memory.limit_in_bytes").read_text() == "1000"
        assert sorted(path.name for path in top.glob("termite-jobs-*")) == sorted(
            {f"termite-jobs-{os.getppid()}", f"termite-jobs-{PID}"}
        )
