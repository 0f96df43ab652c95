"""Find the owner of a thread, with real processes: the kernel gives namespaces old numbers."""

import os
import subprocess
from contextlib import suppress

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


def test_a_job_owns_the_threads_of_the_pid_namespaces_that_it_makes() -> None:
    jobs, apart = JobTable(), ("unshare", "-pf" if os.geteuid() == 0 else "-Urpf", "--kill-child")
    with subprocess.Popen([*apart, *apart, "cat"], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(b"x")
        if not process.stdout.read(1):
            pytest.skip("no pid namespaces here")
        inner = child_of(child_of(process.pid))
        job = started_job(1, process.pid)
        jobs.add(started_job(2, 0))
        jobs.add(job)
        assert jobs.owner(child_of(process.pid)) is job
        assert jobs.owner(inner) is job
        assert jobs.owner(os.getpid()) is None
        process.stdin.close()


def child_of(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int(file.read())
