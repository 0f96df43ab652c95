"""Requests of a job that wait for the network: deadlines, owners, and jobs that run again."""

import os
from errno import EIO, ESTALE

import pytest
import trio
import trio.testing

from termite.engine.errors import FsError, Stale
from termite.engine.model import Attr, StdinFile
from termite.fuse.running_jobs import WAIT_S, RunningJob, RunningJobs
from termite.fuse.view.views import Base, View


def job(number: int = 1) -> RunningJob:
    view = View(Base("1", Attr(0o40755, 0, 0)), None)
    running = RunningJob(number, view, view.layers(), trio.CancelScope())
    running.started(os.getpid())  # our children would be its processes, so our requests are its own
    return running


async def test_a_wait_ends_with_eio_when_its_time_is_up(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(FsError) as caught:
        await job().wait(trio.sleep_forever)
    assert caught.value.errno == EIO
    assert trio.current_time() == pytest.approx(WAIT_S)


async def test_a_job_that_is_to_die_waits_no_more_now_and_later(autojump_clock: trio.testing.MockClock) -> None:
    running = job()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_eio, running)
        await trio.testing.wait_all_tasks_blocked()
        running.fail_waiting()
    await _expect_eio(running)
    assert trio.current_time() == 0


async def _expect_eio(running: RunningJob) -> None:
    with pytest.raises(FsError):
        await running.wait(trio.sleep_forever)


async def test_the_owner_of_a_thread_is_found_by_its_pid_namespace() -> None:
    jobs = RunningJobs()
    running = job()
    assert jobs.owner(os.getpid()) is None
    jobs.add(running)
    assert jobs.owner(os.getpid()) is running
    assert jobs.owner(2**22 + 1) is None  # no such thread: larger than any pid can be


async def test_the_input_of_a_job_that_ended_is_to_be_forgotten_once() -> None:
    jobs = RunningJobs()
    for number in (1, 2, 3):
        running = job(number)
        running.stdin_file = None if number == 2 else StdinFile(0o100644, 0, 0, 4096, 0)
        jobs.add(running)
        assert jobs.pop_inputs() == []
        jobs.remove(running)
        assert jobs.pop_inputs() == ([] if number == 2 else [b"stdin/%d" % number])
    assert jobs.pop_inputs() == []


async def _fail_stale() -> None:
    raise Stale("f")


async def test_a_stale_file_stops_a_job_that_has_said_nothing_and_fails_the_open_of_any_other() -> None:
    jobs = RunningJobs()
    silent = job(1)
    jobs.add(silent)
    with pytest.raises(FsError):
        await jobs.wait_for(os.getpid(), _fail_stale)
    assert silent.scope.cancel_called
    with pytest.raises(Stale):
        silent.raise_retry()
    jobs.remove(silent)
    heard = job(2)
    heard.has_output = True
    jobs.add(heard)
    with pytest.raises(FsError) as caught:
        await jobs.wait_for(os.getpid(), _fail_stale)
    assert caught.value.errno == ESTALE
    heard.raise_retry()


async def test_a_request_of_nobody_has_a_deadline_too(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(FsError) as caught:
        await RunningJobs().wait_for(os.getpid(), trio.sleep_forever)
    assert caught.value.errno == EIO
