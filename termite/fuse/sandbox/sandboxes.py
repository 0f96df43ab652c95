"""Run jobs, each in a sandbox that was made before the job came.

A job that ends while this machine is short of scratch space, memory or processes may have met that.
A script may even do something else then, and end with success. Its result does not count, and the
job runs once more elsewhere.
"""

import contextlib
import time
from collections import deque
from pathlib import Path

import msgspec
import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Exit, JobLimits, JobNetwork
from termite.fuse.sandbox.job_limits import LOOK_S, JobLimitWatches
from termite.fuse.sandbox.running_sandbox import JobIo, OnOutput, follow_job, make_job_io, read_paths, start_job
from termite.fuse.sandbox.sandbox_order import SandboxSpec
from termite.fuse.sandbox.sandbox_report import SandboxResult, sandbox_result
from termite.fuse.sandbox.sandbox_sources import SandboxSources
from termite.fuse.sandbox.scratch import Scratch
from termite.fuse.sandbox.shortages import Shortages
from termite.fuse.sandbox.standstill import CHECK_S, StandstillWatch

MAX_READY = 4  # sandboxes and pipes that wait: each costs 200 KB, and the next is there within a millisecond
NO_LIMITS = JobLimits()
OPEN_NETWORK = JobNetwork(is_given=True)


class Sandboxes:
    """The sandboxes of one lease, made by the program `binary`. Each job writes below `scratch`.

    `tmpfs`: hold what jobs write in memory, if the kernel can. `network` is what jobs get that want
    one. `limits` hold for each job. `own` are the user and group of all jobs, and other
    groups of the submitter. Without them, calls that need the submitter's machine are not noticed.
    """

    def __init__(
        self,
        binary: Path,
        scratch: Path,
        tmpfs: bool,
        network: JobNetwork = OPEN_NETWORK,
        limits: JobLimits = NO_LIMITS,
        own: tuple[int, ...] = (),
    ) -> None:
        self.scratch = Scratch(binary, scratch)
        self._wants_tmpfs = tmpfs
        self._shortages = Shortages()
        self.limits = JobLimitWatches(limits, scratch)
        self._ready = 1
        self._ios: deque[JobIo] = deque()
        self._of_jobs: dict[int, Path] = {}
        self._watches: list[StandstillWatch] = []  # one for each running job
        self._idle = trio.lowlevel.ParkingLot()  # tasks that wait for a job to watch
        self._sources = SandboxSources(binary, scratch, network, own)

    def setup(self) -> None:
        """Mount the scratch space. Call this once, in the mount namespace in which jobs start."""
        if self._wants_tmpfs:
            self.scratch.mount_tmpfs()

    async def wait_ready(self) -> None:
        """Wait until a sandbox is ready. Call this when all that jobs must see is mounted.

        Raises Retryable if no sandbox can be made; the worker then refuses the lease.
        """
        await self._sources.wait_ready()

    def keep_ready(self, slots: int) -> None:
        """Keep enough ready for `slots` jobs at once, up to a small limit."""
        self._ready = min(slots, MAX_READY)
        self.prepare()

    def prepare(self) -> None:
        """Make in advance what the next jobs need. Call this after each job, when nobody waits.

        An error is ignored here, because `run` meets it again and raises it.
        """
        self._sources.refill(self._ready)
        with contextlib.suppress(OSError):
            while len(self._ios) < self._ready:
                self._ios.append(make_job_io(self.scratch.make_job_directory))

    def close(self) -> None:
        """End everything that is ready. Call this when no job runs, and none will."""
        self.scratch.close()
        self._shortages.close()
        self.limits.close()
        while self._ios:
            self._ios.popleft().close()
        self._sources.close()

    async def run(self, spec: SandboxSpec, on_output: OnOutput) -> SandboxResult:
        """Run a command to its end, and call `on_output` with each chunk behind its tag byte.

        Raises Retryable if the job could not run here, and NotAtRest if another job writes to its
        files; the master runs it once more. Call `discard` in the end, also after an error.
        """
        io = self._take_io()
        self._of_jobs[spec.job] = io.scratch
        began_s, started_ns = time.monotonic(), time.time_ns()
        if not self._watches:  # nobody has looked since the last job
            self.scratch.check_space(began_s)
        room_bytes = self.scratch.room_bytes
        try:
            sandbox, trace = await self._sources.take(spec)
        except BaseException:
            io.close()
            raise
        running = start_job(sandbox, io, msgspec.structs.replace(spec, trace=trace))
        report, timed_out, paths = dict[str, str](), False, b""
        with trio.CancelScope() as scope:
            on_kill = spec.on_kill or (lambda: None)
            watch = StandstillWatch(spec.job, sandbox, on_kill, scope.cancel)
            self._watches.append(watch)
            limit = self.limits.begin(spec.job, sandbox, on_kill, began_s)
            self._idle.unpark_all()
            try:
                report, timed_out = await follow_job(running, spec, on_output)
                paths = read_paths(running)
            finally:
                self.limits.leave(limit)
                running.close()
                self._watches.remove(watch)
        if limit.verdict is not None:
            raise limit.verdict
        if watch.verdict and not report:
            raise Retryable(Reason.SANDBOX_STUCK, watch.verdict)
        result = sandbox_result(report, started_ns, timed_out, io.scratch / "upper", paths)
        self.limits.raise_if_hit(limit, result)
        self._raise_shortage(result, began_s, room_bytes)
        return result

    def _take_io(self) -> JobIo:
        """Return the pipes and the directory of a job. Raise Retryable if the disk refuses."""
        try:
            return self._ios.popleft() if self._ios else make_job_io(self.scratch.make_job_directory)
        except OSError as error:
            raise Retryable(Reason.SANDBOX_FAILED, f"no scratch directory: {error.strerror}") from error

    async def keep_watching(self) -> None:
        """Check the free space, memory and sandboxes while jobs run, until cancelled.

        A job that finds no space may have made room again when it ends, so the end is too late.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_limits)
            await self._keep_space()

    async def _keep_limits(self) -> None:
        while True:
            await self._wait_for_jobs()
            while self._watches:
                await self.limits.check(time.monotonic())
                await trio.sleep(LOOK_S / 2)

    async def _keep_space(self) -> None:
        checked_s = 0.0
        while True:
            await self._wait_for_jobs()
            while self._watches:
                now_s = time.monotonic()
                self._shortages.check(now_s)
                pause_s = self.scratch.check_space(now_s)
                if now_s >= checked_s + CHECK_S:
                    checked_s = now_s
                    self._sources.check(now_s)
                    for watch in self._watches:
                        watch.check(now_s)
                await trio.sleep(min(pause_s, LOOK_S))

    async def _wait_for_jobs(self) -> None:
        while not self._watches:
            await self._idle.park()

    def discard(self, job: int) -> None:
        """Queue all that a job has written for removal. Call this also if `run` has failed."""
        scratch = self._of_jobs.pop(job, None)
        if scratch is not None:
            self.scratch.remove_later(scratch)

    def _raise_shortage(self, result: SandboxResult, began_s: float, room_bytes: int) -> None:
        """Raise Retryable if the result may come from a shortage on this machine.

        `room_bytes` of scratch space were free when the job began.
        """
        has_failed, now_s = result.exit != Exit(0), time.monotonic()
        peak_bytes = result.usage.peak_memory_bytes
        if has_failed:
            self._shortages.check(now_s)
            self.scratch.check_space(now_s)
        else:
            self._shortages.check_success(now_s, peak_bytes)
        is_full = self.scratch.is_full() or self.scratch.was_full_since(began_s)
        is_full = is_full or self.scratch.may_have_filled(began_s, room_bytes, result.written_bytes)
        if is_full or (has_failed and self.scratch.was_low_since(began_s)):
            raise Retryable(Reason.SCRATCH_FULL)
        self._shortages.raise_if_hit(began_s, peak_bytes, is_full=result.is_full)
