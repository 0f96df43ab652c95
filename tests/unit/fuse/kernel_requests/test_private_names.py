"""A private entry is asked for again when a job has started, and misleads no job that runs."""

import os
import stat

import pytest
import trio

from termite.engine.errors import Stale
from termite.engine.model import Attr
from termite.fuse.kernel_requests.answers import FOREVER_S, entry_of
from termite.fuse.kernel_requests.private_names import PrivateNames
from termite.fuse.running_jobs import JobTable, RunningJob
from termite.fuse.view.inodes import Inodes
from termite.fuse.view.views import Base, View

DIRECTORY = Attr(stat.S_IFDIR | 0o700, 0, 1)
PATH = b"home/u/sdk"


def link(target: bytes, mtime_ns: int = 1) -> Attr:
    return Attr(stat.S_IFLNK | 0o777, len(target), mtime_ns, target=target)


class FakeMaster:
    def __init__(self, attr: Attr | None) -> None:
        self.attr = attr
        self.asked = 0

    async def entry(self, path: bytes) -> Attr | None:
        self.asked += 1
        return self.attr


def add_job(jobs: JobTable, number: int) -> RunningJob:
    view = View(Base("1", DIRECTORY), None)
    job = RunningJob(number, view, view.layers(), trio.CancelScope())
    jobs.add(job)
    return job


async def test_a_job_gets_the_private_entry_that_is_there_when_it_starts() -> None:
    jobs, master = JobTable(), FakeMaster(link(b"/opt/sdk-1"))
    names = PrivateNames(master, jobs)
    jobs.remove(add_job(jobs, 1))
    assert [await names.find(PATH, os.getpid()) for _ in range(3)] == [master.attr] * 3
    assert master.asked == 1, "the kernel asks for each step of each path"
    master.attr = link(b"/opt/sdk-2")
    running = add_job(jobs, 2)
    assert await names.find(PATH, os.getpid()) == master.attr
    running.raise_retry()


@pytest.mark.parametrize("after", [None, link(b"/opt/sdk-2"), DIRECTORY])
async def test_only_a_job_that_may_have_met_the_entry_of_before_runs_again(after: Attr | None) -> None:
    jobs, master = JobTable(), FakeMaster(link(b"/opt/sdk-1"))
    names, old = PrivateNames(master, jobs), add_job(jobs, 1)
    await names.find(PATH, os.getpid())
    master.attr = after
    new = add_job(jobs, 2)
    for _ in range(2):
        assert await names.find(PATH, os.getpid()) == after
    with pytest.raises(Stale, match="home/u/sdk"):
        old.raise_retry()
    new.raise_retry()


async def test_another_time_of_an_entry_disturbs_nobody() -> None:
    jobs, master = JobTable(), FakeMaster(link(b"/opt/sdk-1"))
    names, old = PrivateNames(master, jobs), add_job(jobs, 1)
    await names.find(PATH, os.getpid())
    master.attr = link(b"/opt/sdk-1", mtime_ns=2)
    add_job(jobs, 2)
    assert await names.find(PATH, os.getpid()) == master.attr
    old.raise_retry()


def test_the_kernel_keeps_no_private_entry_and_sees_another_inode_if_the_target_differs() -> None:
    inodes = Inodes()
    one, other = inodes.private_link(PATH, link(b"a")), inodes.private_link(PATH, link(b"b"))
    assert inodes.private_link(PATH, link(b"a", mtime_ns=2)) is one, "else a running job would get ESTALE"
    assert one.inode != other.inode
    directory, file = inodes.directory(Base("1", DIRECTORY), b"d", DIRECTORY), inodes.file(b"f", link(b"a"))
    assert [entry_of(node).entry_timeout for node in (one, directory, file)] == [0, FOREVER_S, FOREVER_S]
