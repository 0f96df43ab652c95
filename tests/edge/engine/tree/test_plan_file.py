"""Test the file that has the plan of a master: what a torn write leaves, its size and its lock."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from termite.engine.tree.logic.redo_plan import ALIGNMENT, JobEnd, Outcome, SetDirectory, newest_record
from termite.engine.tree.publishing.kept_plans.plan_file import FoundPlan, IsTold, PlanFile, is_alive, lock, read_whole
from termite.engine.tree.publishing.orphaned_plans import clear_abandoned_tree
from termite.engine.tree.publishing.redo import finish_job, open_own_plan

NOBODY = 65534
END = JobEnd(b"\1" * 8, os.getpid(), 3, 0, b"")
STEPS = (SetDirectory(b"d", 0o40755, 6),)


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def content_of(plan: PlanFile, staging: int) -> bytes:
    fd = os.open(plan.name, os.O_RDONLY, dir_fd=staging)
    try:
        return read_whole(fd)
    finally:
        os.close(fd)


def end(number: int) -> JobEnd:
    return JobEnd(number.to_bytes(8, "big"), os.getpid(), 0, 0, b"")


def test_a_torn_plan_leaves_the_ends_of_earlier_jobs(staging: int) -> None:
    plan = PlanFile(staging)
    told: set[int] = set()

    def is_told(number: int) -> IsTold:
        return lambda: number in told

    for number in range(1, 8):
        before = content_of(plan, staging)
        steps = tuple(SetDirectory(b"d" * 100, 0o40755, n) for n in range(number % 3 * 20))
        plan.begin(end(number), is_told(number), steps)
        after = content_of(plan, staging)
        length = max(len(before), len(after))
        differing = [at for at in range(length) if before[at : at + 1] != after[at : at + 1]]
        torn = differing[len(differing) // 2]
        record = newest_record(after[:torn] + before[torn:])
        if number > 1:
            assert record is not None and record.end_of(end(number - 1).token) == end(number - 1)
            assert record.end_of(end(number).token) is None
        plan.end(Outcome.DONE, end(number))
        record = newest_record(content_of(plan, staging))
        assert record is not None and record.outcome is Outcome.DONE
        assert all(record.end_of(end(n).token) for n in range(1, number + 1) if n not in told)
        if number == 4:
            told |= {1, 2, 3, 4}
    assert len(content_of(plan, staging)) < 20_000
    assert not plan.close(), "launchers may ask for it"


def test_the_file_does_not_grow_with_the_jobs(staging: int) -> None:
    plan = PlanFile(staging)
    for number in range(1000):
        plan.begin(end(number), lambda: True, STEPS)
        plan.end(Outcome.DONE, end(number))
    assert len(content_of(plan, staging)) < 4 * ALIGNMENT
    assert plan.close()
    assert os.listdir(staging) == []


def test_the_file_is_locked_until_it_is_closed(staging: int) -> None:
    plan = PlanFile(staging)
    plan.begin(END, lambda: False, STEPS)
    fd = os.open(plan.name, os.O_RDWR, dir_fd=staging)
    assert not lock(fd, wait=False)
    plan.close()
    assert lock(fd, wait=False)
    found = FoundPlan(plan.name, fd)
    assert found.is_of_this_boot and found.label == plan.label
    os.close(fd)


def test_the_file_is_not_kept_for_a_launcher_that_has_ended(staging: int) -> None:
    plan = PlanFile(staging)
    plan.begin(JobEnd(b"\1" * 8, 2**22 + 1, 0, 0, b""), lambda: False, STEPS)
    assert plan.close()
    assert os.listdir(staging) == []


@pytest.mark.needs_root("gives files to another user")
@pytest.mark.parametrize("given", ["plan", "."])
def test_a_plan_of_another_user_is_not_opened(staging: int, tmp_path: Path, given: str) -> None:
    (tmp_path / "plan").touch()
    own = open_own_plan(staging, b"plan")
    assert own >= 0
    os.close(own)
    os.chown(tmp_path / given, 60800, 60800)
    assert open_own_plan(staging, b"plan") == -1


@contextmanager
def ordinary_user(*own: Path) -> Iterator[None]:
    """Let an ordinary user run the block, who owns these files. Root may open everything."""
    if os.geteuid() != 0:
        yield
        return
    for path in own:
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.logs("plan-unreadable")
def test_a_plan_that_cannot_be_opened_is_no_absent_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its launcher must not run the command again, and the next master must not remove the plan."""
    area = tmp_path / ".termite-staging"
    area.mkdir(mode=0o700)
    plan = PlanFile(os.open(area, os.O_RDONLY))
    plan.begin(END, lambda: False, STEPS)
    path = area / os.fsdecode(plan.name)
    path.chmod(0)
    monkeypatch.chdir(tmp_path)
    with ordinary_user(tmp_path, area, path):
        with pytest.raises(PermissionError):
            finish_job(Path(), END.token, print, 0)
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        assert not clear_abandoned_tree(top) and path.name in os.listdir(".termite-staging")
        os.close(top)
    plan.close()


@pytest.mark.needs_root("has a file of another user")
def test_a_plan_of_another_user_that_cannot_be_opened_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "plan-x").touch(mode=0)
    staging = os.open(tmp_path, os.O_RDONLY)
    with ordinary_user(tmp_path):
        assert open_own_plan(staging, b"plan-x") < 0
    os.close(staging)


def test_a_process_that_has_ended_is_not_alive_though_nobody_has_reaped_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert is_alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid)
    assert not is_alive(process.pid) and not is_alive(0)
