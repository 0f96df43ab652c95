"""Find the owner of a thread, with real processes: the kernel gives namespaces old numbers."""

import os
import subprocess

import pytest
import trio

from termite.engine.model import Attr
from termite.fuse.running_jobs import JobTable, RunningJob
from termite.fuse.view.views import Base, View


def started_job(number: int, pid: int) -> RunningJob:
    view = View(Base("1", Attr(0o40755, 0, 0)), None)
    job = RunningJob(number, view, view.layers(), trio.CancelScope())
    job.started(pid)
    return job


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_a_job_that_has_ended_owns_no_thread_of_a_namespace_with_its_number(*, is_waited_for: bool) -> None:
    """The ended job is still there, because its result is collected."""
    jobs = JobTable()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        ended, running = started_job(1, process.pid), started_job(2, os.getpid())
        jobs.add(ended)
        assert jobs.owner(os.getpid()) is ended
        jobs.add(running)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if is_waited_for:
            process.wait()
        assert jobs.owner(os.getpid()) is running
