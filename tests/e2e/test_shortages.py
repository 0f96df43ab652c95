"""A worker that is short of memory or processes gives the jobs back that it hit, and no others."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.host.own_cgroup import find_group
from termite.engine.model import Exit
from tests.e2e.mirror_places import NOBODY, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror

TAKE = "/usr/bin/python3 -c \"b'x' * ({} << 20)\""  # so many MiB
FORK_TOO_OFTEN = "i=0; while [ $i -lt 200 ]; do sleep {} & i=$((i+1)); done"
LIMITS = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max", "pids.max")}


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        yield path


@contextmanager
def group(controller: str, name: str, limit: int) -> Iterator[Path]:
    """Make a control group below our own, with a limit; remove it when it is empty."""
    found = find_group(controller)
    if found is None:
        pytest.skip(f"this machine has no cgroup with {controller}")
    path = found[0] / f"termite-{name}-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        limits = [path / file for file in LIMITS[controller] if (path / file).exists()]
        if not limits:
            pytest.skip(f"{controller} is not delegated to the groups below ours")
        limits[0].write_text(str(limit))
        yield path
    finally:
        deadline = time.monotonic() + 10
        while path.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                path.rmdir()
            time.sleep(0.02)
        assert not path.exists()


def inside(path: Path, *, uid: int | None = None) -> Starter:
    return Starter(uid=uid, through=("sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "sh"))


def overflow(path: Path) -> None:
    """Let the kernel kill a process for want of memory that is none of the worker's."""
    script = f"echo $$ > {path}/cgroup.procs; {TAKE.format(100)}; exit 0"
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)


needs_root = pytest.mark.needs_root("makes control groups")


@needs_root
@pytest.mark.parametrize("uid", [None, NOBODY], ids=["by root", "by root for a user"])
async def test_a_job_that_fails_while_another_group_overflows_has_failed_by_itself(
    place: Path, uid: int | None
) -> None:
    master = FakeMaster(place / "project")
    with group("memory", "worker", 1 << 30) as worker, group("memory", "other", 30 << 20) as other:
        async with mirror(master, place, inside(worker, uid=uid)), trio.open_nursery() as nursery:
            nursery.start_soon(_expect_exit, master, 7)
            await trio.sleep(1)
            await trio.to_thread.run_sync(overflow, other)


@needs_root
@pytest.mark.parametrize("uid", [None, NOBODY], ids=["by root", "by root for a user"])
async def test_of_two_jobs_only_the_one_whose_process_was_killed_is_given_back(place: Path, uid: int | None) -> None:
    master = FakeMaster(place / "project")
    with group("memory", "worker", 250 << 20) as worker:
        async with mirror(master, place, inside(worker, uid=uid)), trio.open_nursery() as nursery:
            nursery.start_soon(_expect_exit, master, 7)
            await trio.sleep(0.5)
            with pytest.raises(Retryable) as caught:
                await master.run("sh", "-c", f"{TAKE.format(500)} || exit 1")
            assert caught.value.reason is Reason.MEMORY_FULL
            with pytest.raises(Retryable) as caught:  # it did something else instead
                await master.run("sh", "-c", f"{TAKE.format(500)} || echo small >out; exit 0")
            assert caught.value.reason is Reason.MEMORY_FULL


async def _expect_exit(master: FakeMaster, code: int) -> None:
    assert (await master.run("sh", "-c", f"sleep 4; exit {code}")).exit == Exit(code)


LONELY = 61888  # nobody else has processes as this user, whose number is limited


async def warm_up(master: FakeMaster) -> None:
    """Let the mirror fetch the programs before the limit, because it needs threads for that."""
    await master.said("sh", "-c", "sleep 0.01")


def limited(*, user: int | None = None, uid: int | None = None) -> Starter:
    return Starter(user=user, uid=uid, through=("prlimit", "--nproc=100"))


@pytest.mark.needs_root("becomes a user with a known number of processes")
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit")
@pytest.mark.parametrize(
    "starter", [limited(user=LONELY), limited(uid=LONELY)], ids=["as an ordinary user", "by root for a user"]
)
async def test_a_job_that_cannot_fork_is_given_back(place: Path, starter: Starter) -> None:
    master = FakeMaster(place / "project")
    async with mirror(master, place, starter):
        await warm_up(master)
        with pytest.raises(Retryable) as caught:
            await master.run("sh", "-c", FORK_TOO_OFTEN.format(60))
        assert caught.value.reason is Reason.PROCESSES_FULL
        assert (await master.run("sh", "-c", "exit 2")).exit == Exit(2)


@needs_root
async def test_a_job_that_could_not_fork_a_while_ago_is_given_back(place: Path) -> None:
    master = FakeMaster(place / "project")
    with group("pids", "worker", 100) as worker:
        async with mirror(master, place, inside(worker)):
            await warm_up(master)
            with pytest.raises(Retryable) as caught:
                await master.run("sh", "-c", f"sh -c '{FORK_TOO_OFTEN.format(1)}'; sleep 2; exit 3")
            assert caught.value.reason is Reason.PROCESSES_FULL
            assert (await master.run("sh", "-c", "exit 2")).exit == Exit(2)
