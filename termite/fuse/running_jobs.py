"""The jobs that run now, and whose request it is that has to wait.

A job must be able to die while it waits for the network: its waiting requests are failed first, else it stays in an
uninterruptible sleep. No path says whose a request is (jobs share views), but each job has a pid namespace of its own,
and the kernel tells the thread. That costs two system calls, so it is asked only for a request that has to wait.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable
from errno import EIO, ESTALE
from typing import TypeVar

import trio

from termite.engine.errors import FsError, Reason, Retryable, Stale
from termite.engine.model import StdinFile
from termite.fuse.view.views import View

WAIT_S = 60.0  # the longest that a system call of a job waits for the network

T = TypeVar("T")


class RunningJob:
    """One job from the moment it has a slot. `layers` is overlay's lowerdir, `scope` is around all of the job."""

    def __init__(
        self,
        number: int,
        view: View,
        layers: str,
        scope: trio.CancelScope,
        stdin_file: StdinFile | None = None,
    ) -> None:
        self.number = number
        self.stdin_file = stdin_file
        self.view = view
        self.layers = layers
        self.scope = scope
        self.has_output = False
        self.pid = 0
        self._pid_namespace = 0
        self.is_ending = False
        self._waiting: set[trio.CancelScope] = set()
        self._retry: Retryable | Stale | None = None

    def started(self, pid: int) -> None:
        """`pid`: its sandbox's first process, whose children are the job."""
        self.pid = pid

    def fail_waiting(self) -> None:
        """It is to be killed: what it waits for fails with EIO, now and from now on."""
        self.is_ending = True
        for scope in self._waiting:
            scope.cancel()

    def retry(self, reason: Retryable | Stale) -> None:
        """Stop it, because it must run once more elsewhere or later; `raise_retry` says so then."""
        self._retry = reason
        self.fail_waiting()
        self.scope.cancel()

    def raise_retry(self) -> None:
        """Whatever came of it otherwise: it may have seen an error that is ours."""
        if self._retry is not None:
            raise self._retry

    def has_thread(self, pid_namespace: int) -> bool:
        """Whether that is the job's pid namespace. Known once the sandbox has made it, so it is read late."""
        if not self._pid_namespace and self.pid:
            self._pid_namespace = _namespace(f"/proc/{self.pid}/ns/pid_for_children")
        return pid_namespace == self._pid_namespace

    async def wait(self, fetch: Callable[[], Awaitable[T]], limit_s: float = WAIT_S) -> T:
        """What `fetch` returns. FsError after `limit_s`, or when the job is to die."""
        if self.is_ending:
            raise FsError(EIO)
        with trio.move_on_after(limit_s) as scope:
            self._waiting.add(scope)
            try:
                return await fetch()
            finally:
                self._waiting.discard(scope)
        raise FsError(EIO)


class Jobs:
    """All of them, by number."""

    def __init__(self) -> None:
        self.running: dict[int, RunningJob] = {}
        self.started = 0
        self._inputs: list[bytes] = []

    def add(self, job: RunningJob) -> None:
        self.running[job.number] = job
        self.started += 1

    def remove(self, job: RunningJob) -> None:
        del self.running[job.number]
        if job.stdin_file is not None:
            self._inputs.append(b"stdin/%d" % job.number)

    def pop_inputs(self) -> list[bytes]:
        """The files that were standard inputs of jobs that ended: the kernel would keep each for ever."""
        inputs, self._inputs = self._inputs, []
        return inputs

    def owner(self, thread: int) -> RunningJob | None:
        """Whose thread that is, a pid in our namespace. None: nobody's, or one that made a pid namespace of its own."""
        pid_namespace = _namespace(f"/proc/{thread}/ns/pid")
        if not pid_namespace:
            return None
        return next((job for job in self.running.values() if job.has_thread(pid_namespace)), None)

    async def wait_for(self, thread: int, fetch: Callable[[], Awaitable[T]]) -> T:
        """What `fetch` returns, for a request of `thread`. FsError after WAIT_S, or when the job is to die.

        A file that has changed before its content was fetched (Stale), or this worker's trouble (Retryable), stops a
        job that nobody has heard of yet: it runs once more. Later than that its system call fails.
        """
        job = self.owner(thread)
        try:
            if job is not None:
                return await job.wait(fetch)
            with trio.fail_after(WAIT_S):
                return await fetch()
        except (Stale, Retryable) as error:
            if job is not None and not job.has_output:
                is_stale = isinstance(error, Stale)
                job.retry(Stale(str(error)) if is_stale else Retryable(Reason.FILE_UNREADABLE, str(error)))
            raise FsError(ESTALE if isinstance(error, Stale) else EIO) from error
        except trio.TooSlowError as error:
            raise FsError(EIO) from error


def _namespace(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino
    return 0
