"""Keep the jobs that run now, and find the job whose request has to wait for the network.

A job must be able to die while it waits: its waiting requests are failed first, because otherwise
it stays in an uninterruptible sleep. No path says which job made a request, as jobs share views.
But each job has a pid namespace of its own, and the kernel names the thread. The search costs two
system calls, so it is made only for a request that has to wait or has failed.

An error of the mirror itself is never an answer to a job. The job that has met one is stopped and
runs again, whatever it would have made of the error.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Awaitable, Callable
from errno import EIO, ENOMEM, ESTALE
from typing import TypeVar

import trio

from termite.engine.errors import FsError, Reason, Retryable, Stale, TermiteError
from termite.engine.model import StdinFile
from termite.engine.wire.protocol.control_lines import MirrorNotice
from termite.fuse.view.comparison import CopyUps, LinkKey
from termite.fuse.view.views import View

T = TypeVar("T")

NS_GET_PARENT = 0xB702  # ioctl_nsfs(2)
MOST_S = 1e9  # thirty years, which is the limit of the line to the worker


class RunningJob:
    """One job from the moment it has a slot.

    `layers` is overlay's `lowerdir`, and `scope` is around the whole job. `stdin_file` is None if
    its standard input is not a file of the master. `pid` is 0 until the sandbox has started.
    `copied` has the files with several names that overlayfs may have copied up for it.
    """

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
        self.pid = 0
        self.order = 0  # of its start among all jobs, from 1
        self.copied: dict[LinkKey, CopyUps] = {}
        self._pid_namespace = 0
        self.is_ending = False
        self._waiting: set[trio.CancelScope] = set()
        self._retry: Retryable | Stale | None = None

    def started(self, pid: int) -> None:
        """Note the first process of the sandbox, whose children are the job."""
        self.pid = pid

    def fail_waiting(self) -> None:
        """Fail all waiting and later requests with EIO, because the job is about to be killed."""
        self.is_ending = True
        for scope in self._waiting:
            scope.cancel()

    def retry(self, reason: Retryable | Stale) -> None:
        """Stop the job, because it must run again; `raise_retry` then raises the first `reason`."""
        self._retry = self._retry or reason
        self.fail_waiting()
        self.scope.cancel()

    def raise_retry(self) -> None:
        """Raise the reason that `retry` was given, if it was.

        Call this however the job has ended: its end may come from an error of ours. The master acts
        on the error, and runs the job again.
        """
        if self._retry is not None:
            raise self._retry

    def has_thread(self, pid_namespace: int) -> bool:
        """Return whether this is the inode number of the job's pid namespace.

        The kernel gives the number to the next namespace as soon as the last process of the job has
        gone. The job may still run then, because its result is collected. A number that was read
        earlier therefore counts only if it is still that of the job's first process.
        """
        if not self._pid_namespace and self.pid:
            self._pid_namespace = self._read_pid_namespace()
            return pid_namespace == self._pid_namespace
        return pid_namespace == self._pid_namespace == self._read_pid_namespace()

    def _read_pid_namespace(self) -> int:
        """Return the number, or 0 if the first process has ended, even if it is a zombie."""
        return _namespace(f"/proc/{self.pid}/ns/pid_for_children") if self.pid else 0

    async def wait(self, fetch: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `fetch`. Raise FsError(EIO) when the job is about to be killed."""
        if self.is_ending:
            raise FsError(EIO)
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                return await fetch()
            finally:
                self._waiting.discard(scope)
        raise FsError(EIO)


class JobTable:
    """The jobs that run now, by number; `started` counts all jobs so far.

    `cpu_s` is the CPU time of those that have ended. `job_s` is the sum of the times of all, and
    `busy_s` the time in which any ran; both are those of the last change.
    """

    def __init__(self) -> None:
        self.running: dict[int, RunningJob] = {}
        self.started = 0
        self.cpu_s = 0.0
        self.job_s = 0.0
        self.busy_s = 0.0
        self._changed_s = 0.0
        self._inputs: list[bytes] = []

    def add(self, job: RunningJob) -> None:
        """Add a job that starts."""
        self.count_time()
        self.running[job.number] = job
        self.started += 1
        job.order = self.started

    def count_time(self) -> None:
        """Bring `job_s` and `busy_s` up to now."""
        now_s = time.monotonic()
        if self.running:
            self.job_s += len(self.running) * (now_s - self._changed_s)
            self.busy_s += now_s - self._changed_s
        self._changed_s = now_s

    def notice(self) -> MirrorNotice:
        """Return what the worker is told of the jobs, up to now."""
        self.count_time()
        return MirrorNotice(
            running=len(self.running),
            jobs=self.started,
            cpu_s=min(self.cpu_s, MOST_S),
            job_s=min(self.job_s, MOST_S),
            busy_s=min(self.busy_s, MOST_S),
        )

    def remove(self, job: RunningJob) -> None:
        """Remove a job that has ended."""
        self.count_time()
        del self.running[job.number]
        if job.stdin_file is not None:
            self._inputs.append(b"stdin/%d" % job.number)

    def pop_inputs(self) -> list[bytes]:
        """Return the paths of inputs of jobs that have ended since the last call.

        They are below the mount. The kernel would keep each of them forever, so the caller drops
        them.
        """
        inputs, self._inputs = self._inputs, []
        return inputs

    def owner(self, thread: int) -> RunningJob | None:
        """Return the job of a thread, given by its pid in our namespace.

        The thread may be in a pid namespace that the job has made, as bwrap and `unshare -p` do.
        Return None if the thread is not a job's, or is gone.
        """
        pid_namespace = _namespace(f"/proc/{thread}/ns/pid")
        return self._job_in(pid_namespace) or next(filter(None, map(self._job_in, _namespaces_above(thread))), None)

    async def wait_for(self, thread: int, fetch: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `fetch`, for a request of `thread`.

        Raise FsError, with which the system call fails, if the job is about to be killed. Stale
        (the file has changed since) and Retryable (this worker failed) become FsError too. They
        also stop the job, and it runs again, whatever it has written: a local command would not get
        this error, and might take it for an absent file.
        """
        job = self.owner(thread)
        try:
            return await (fetch() if job is None else job.wait(fetch))
        except Stale as error:
            self._stop(job, Stale(error.detail))
            raise FsError(ESTALE) from error
        except Retryable as error:
            self._stop(job, _reason_of(error))
            raise FsError(EIO) from error

    def give_back(self, thread: int, error: Exception) -> None:
        """Stop the job of a thread, which gets an error that is ours, so that it runs again.

        `thread` is 0 if the kernel has not named it. If the job cannot be found, stop all jobs that
        run now: each of them may have got the error.
        """
        self._stop(self.owner(thread) if thread else None, _reason_of(error))

    def outdate(self, path: bytes, started: int) -> None:
        """Run those of the first `started` jobs again that still run.

        Each of them may have met the entry at `path` as it was before.
        """
        for job in list(self.running.values()):
            if job.order <= started:
                job.retry(Stale(path))

    def note_copied(self, thread: int, key: LinkKey, *, is_certain: bool) -> None:
        """Note that a file with several names may have been copied up for the job of a thread.

        `is_certain`: note that the last such copy was certainly made. If the job cannot be found,
        it may be each one.
        """
        job = self.owner(thread)
        for met in [job] if job is not None else list(self.running.values()):
            copies = met.copied.setdefault(key, CopyUps())
            copies.most += not is_certain
            copies.is_certain |= is_certain

    def _job_in(self, pid_namespace: int) -> RunningJob | None:
        return next((job for job in self.running.values() if pid_namespace and job.has_thread(pid_namespace)), None)

    def _stop(self, job: RunningJob | None, reason: Retryable | Stale) -> None:
        """Stop a job, or all jobs if nobody knows which one met the reason.

        The master remembers of a job that it uses an unseen program. It must not do so of all.
        """
        if job is None and isinstance(reason, Retryable) and reason.reason is Reason.UNSEEN_PROGRAM:
            reason = Retryable(Reason.FILE_UNREADABLE, reason.detail)
        for met in [job] if job is not None else list(self.running.values()):
            met.retry(reason)


def _reason_of(error: Exception) -> Retryable:
    """Return what the scheduler is told of an error of the mirror."""
    if type(error) is Retryable:
        return error
    if isinstance(error, OSError):
        return Retryable(Reason.FILE_UNREADABLE, error.strerror or str(error))
    if isinstance(error, MemoryError):
        return Retryable(Reason.FILE_UNREADABLE, os.strerror(ENOMEM))
    if isinstance(error, TermiteError):
        return Retryable(Reason.FILE_UNREADABLE, str(error))
    return Retryable(Reason.WORKER_BUG, f"{type(error).__name__}: {error}")


def _namespace(path: str) -> int:
    """Return the inode number of a namespace, or 0 if its process is gone."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino
    return 0


def _namespaces_above(thread: int) -> list[int]:
    """Return the inode numbers of the pid namespaces above that of a thread, up to ours."""
    found: list[int] = []
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # EPERM: the next one is above ours
        fd = os.open(f"/proc/{thread}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, fd)
        while True:
            fd = fcntl.ioctl(fd, NS_GET_PARENT)
            opened.callback(os.close, fd)
            found.append(os.fstat(fd).st_ino)
    return found
