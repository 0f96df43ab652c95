"""Requests of a job that wait for the network or fail: owners, and jobs that run again."""

import os
from dataclasses import dataclass
from errno import EACCES, EIO, EMFILE, ENOENT, ESTALE

import pyfuse3
import pytest
import trio
import trio.testing

from termite.engine.errors import FsError, Reason, RemoteBug, RemoteProtocolError, Retryable, Stale
from termite.engine.model import Attr, StdinFile
from termite.fuse.kernel_requests.ops import answered
from termite.fuse.running_jobs import JobTable, RunningJob
from termite.fuse.view.comparison import CopyUps
from termite.fuse.view.views import Base, View
from tests.unit.tables import each_row


def job(number: int = 1) -> RunningJob:
    view = View(Base("1", Attr(0o40755, 0, 0)), None)
    running = RunningJob(number, view, view.layers(), trio.CancelScope())
    running.started(os.getpid())  # our children would be its processes, so our requests are its own
    return running


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
    jobs = JobTable()
    running = job()
    assert jobs.owner(os.getpid()) is None
    jobs.add(running)
    assert jobs.owner(os.getpid()) is running
    assert jobs.owner(2**22 + 1) is None  # no such thread: larger than any pid can be


async def test_a_copy_is_noted_for_the_job_that_made_it_or_for_all_if_that_is_unknown() -> None:
    jobs = JobTable()
    ours, other = job(1), job(2)
    other.started(0)
    jobs.add(ours)
    jobs.add(other)
    jobs.note_copied(os.getpid(), 9, is_certain=False)
    jobs.note_copied(os.getpid(), 9, is_certain=True)
    assert (ours.copied, other.copied) == ({9: CopyUps(1, True)}, {})
    jobs.note_copied(2**22 + 1, 9, is_certain=False)
    assert (ours.copied, other.copied) == ({9: CopyUps(2, True)}, {9: CopyUps(1, False)})


async def test_the_input_of_a_job_that_ended_is_to_be_forgotten_once() -> None:
    jobs = JobTable()
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


async def test_a_stale_file_stops_its_job() -> None:
    jobs = JobTable()
    met = job(1)
    jobs.add(met)
    with pytest.raises(FsError) as caught:
        await jobs.wait_for(os.getpid(), _fail_stale)
    assert caught.value.errno == ESTALE
    assert met.scope.cancel_called
    with pytest.raises(Stale):
        met.raise_retry()


async def test_a_stale_file_of_an_unknown_thread_stops_all_jobs() -> None:
    jobs = JobTable()
    running = [job(1), job(2)]
    for each in running:
        jobs.add(each)
    with pytest.raises(FsError):
        await jobs.wait_for(2**22 + 1, _fail_stale)
    assert all(each.scope.cancel_called for each in running)


async def _fail_full() -> None:
    raise Retryable(Reason.DISK_FULL, "no space")


async def test_an_error_of_the_worker_stops_its_job() -> None:
    jobs = JobTable()
    met = job(1)
    jobs.add(met)
    with pytest.raises(FsError) as caught:
        await jobs.wait_for(os.getpid(), _fail_full)
    assert caught.value.errno == EIO
    assert met.scope.cancel_called
    with pytest.raises(Retryable) as again:
        met.raise_retry()
    assert again.value.reason is Reason.DISK_FULL


async def test_an_error_of_the_worker_for_an_unknown_thread_stops_every_job_that_runs() -> None:
    jobs = JobTable()
    running = [job(1), job(2)]
    for one in running:
        jobs.add(one)
    with pytest.raises(FsError):
        await jobs.wait_for(2**22 + 1, _fail_full)
    assert all(one.scope.cancel_called for one in running)


def test_nothing_is_remembered_of_jobs_of_which_nobody_knows_whether_they_used_an_unseen_program() -> None:
    jobs, ours = JobTable(), [job(1), job(2)]
    for one in ours:
        jobs.add(one)
    jobs.give_back(2**22 + 1, Retryable(Reason.UNSEEN_PROGRAM, "/home/u/f"))
    for one in ours:
        with pytest.raises(Retryable) as again:
            one.raise_retry()
        assert (again.value.reason, again.value.detail) == (Reason.FILE_UNREADABLE, "/home/u/f")


@each_row(
    ("error", "reason"),
    [
        (OSError(EMFILE, "Too many open files"), Reason.FILE_UNREADABLE),
        (MemoryError(), Reason.FILE_UNREADABLE),
        (RemoteProtocolError("a wrong answer"), Reason.FILE_UNREADABLE),
        (RemoteBug("KeyError: 1"), Reason.FILE_UNREADABLE),
        (KeyError(1), Reason.WORKER_BUG),
        (Retryable(Reason.NO_ANSWER), Reason.NO_ANSWER),
    ],
)
def test_every_error_that_is_given_back_has_a_reason(error: Exception, reason: Reason) -> None:
    jobs = JobTable()
    met = job(1)
    jobs.add(met)
    jobs.give_back(0, error)
    with pytest.raises(Retryable) as again:
        met.raise_retry()
    assert type(again.value) is Retryable
    assert again.value.reason is reason


class FakeHandlers:
    """Requests that fail with `error`."""

    def __init__(self, error: Exception) -> None:
        self.jobs = JobTable()
        self._error = error

    @answered
    async def readlink(self, inode: int, ctx: object) -> bytes:
        raise self._error


@dataclass
class FakeContext:
    pid: int


@pytest.mark.parametrize(
    ("error", "errno", "is_ours"),
    [
        (FsError(ENOENT), ENOENT, False),
        (FsError(EACCES), EACCES, False),
        (FsError(ESTALE), ESTALE, False),
        (OSError(EMFILE, "Too many open files"), EIO, True),
        (MemoryError(), EIO, True),
        (trio.TooSlowError(), EIO, True),
        (RemoteProtocolError("a wrong answer"), EIO, True),
        (KeyError(7), EIO, True),
    ],
)
async def test_a_job_whose_request_fails_through_the_mirror_is_given_back(
    error: Exception, errno: int, is_ours: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = FakeHandlers(error)
    met = job(1)
    handlers.jobs.add(met)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.readlink(1, FakeContext(os.getpid()))
    assert caught.value.errno == errno
    assert met.scope.cancel_called == is_ours
    assert ("fuse-request" in caplog.text) == is_ours
