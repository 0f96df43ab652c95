"""End jobs that take too much of the machine. Such a job is given back, and has not failed.

The kernel refuses a job more processes than its limit (RLIMIT_NPROC in its own user namespace).
The memory is watched from here, because a limit of the kernel would need a control group. Jobs that
end before the first look cost nothing.
"""

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.host.meminfo import MEMINFO, parse_memory
from termite.engine.host.preflight import kernel_version
from termite.engine.model import JobLimits
from termite.fuse.sandbox.job_uses import JobUse, read_uses, unmapped_bytes
from termite.fuse.sandbox.sandbox_report import SandboxResult
from termite.fuse.sandbox.spawner import WaitingSandbox

LOOK_S = 0.25  # between two looks at what jobs have; shorter jobs are never looked at
LOOK_SHARE = 0.05  # of a core at most: a look at thousands of processes makes the next one later
COUNTED_PER_JOB = (5, 14)  # older kernels count all processes of the user against the limit of a job
PART_NEAR_LIMIT = 64  # so near to its limit of processes (1/64) a job has met it; native/sandbox has the same

log = logging.getLogger(__name__)


class LimitWatch:
    """The watch over what one job has. `verdict` says why the job was ended; None: it was not.

    `on_kill` is called before the job is killed; it fails the job's requests.
    """

    def __init__(
        self, job: int, sandbox: WaitingSandbox, on_kill: Callable[[], None], began_s: float, made: int
    ) -> None:
        """`made` counts the processes that have been made in the lease so far."""
        self.verdict: Retryable | None = None
        self.began_s = began_s
        self.pid = sandbox.pid
        self._job = job
        self._sandbox = sandbox
        self._on_kill = on_kill
        self._most = self._seen = 0
        self._made_before = made

    def note(self, processes: int, made: int) -> None:
        """Note how many processes the job has now."""
        self._most = self.most_processes(made)
        self._seen, self._made_before = processes, made

    def most_processes(self, made: int) -> int:
        """Return how many processes the job may have had at once: no more than this."""
        return max(self._most, self._seen + made - self._made_before)

    def end(self, verdict: Retryable) -> None:
        """Kill all of the job."""
        if self.verdict is not None:
            return
        self.verdict = verdict
        log.warning("job-over-limit job=%d reason=%r", self._job, str(verdict))
        self._on_kill()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._sandbox.pidfd, signal.SIGKILL)


class JobLimitWatches:
    """The watches over the jobs of a lease, with the limits of each job."""

    def __init__(self, limits: JobLimits, scratch: Path) -> None:
        """`scratch` is the directory in which jobs write."""
        self._limits = limits
        self._scratch = scratch
        self.processes = limits.processes if kernel_version(os.uname().release) >= COUNTED_PER_JOB else 0
        self._watches: list[LimitWatch] = []
        self._due_s = 0.0
        self._load_fd = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self._memory_fd = os.open(MEMINFO, os.O_RDONLY | os.O_CLOEXEC)
        with open("/proc/sys/kernel/pid_max") as file:
            self._pid_max = int(file.read())
        self._newest = self._read_newest()
        self._made = 0

    def begin(self, job: int, sandbox: WaitingSandbox, on_kill: Callable[[], None], now_s: float) -> LimitWatch:
        """Watch a job that begins now."""
        watch = LimitWatch(job, sandbox, on_kill, now_s, self._made)
        self._watches.append(watch)
        return watch

    def leave(self, watch: LimitWatch) -> None:
        """Do not watch this job any more. Call this before the descriptors of its sandbox close."""
        self._watches.remove(watch)

    def close(self) -> None:
        """Close the files."""
        os.close(self._load_fd)
        os.close(self._memory_fd)

    async def check(self, now_s: float) -> None:
        """Look at the jobs if that is due, and end those that are over a limit.

        Call this often while jobs run. The look takes a thread, because it may have to wait for an
        answer of this process.
        """
        self._count_made()
        if now_s < self._due_s or not any(now_s - watch.began_s >= LOOK_S for watch in self._watches):
            return
        began_s = time.monotonic()
        is_short = self._is_short()
        uses = await trio.to_thread.run_sync(self._measure, {watch.pid for watch in self._watches}, is_short)
        looked_at = [watch for watch in self._watches if watch.pid in uses]
        for watch in looked_at:
            watch.note(uses[watch.pid].processes, self._made)
            self._judge(watch, uses[watch.pid])
        if is_short and looked_at:
            self._keep_reserve(max(looked_at, key=lambda watch: uses[watch.pid].memory_bytes), uses)
        self._due_s = now_s + max(LOOK_S, (time.monotonic() - began_s) / LOOK_SHARE)

    def _measure(self, inits: set[int], is_short: bool) -> dict[int, JobUse]:
        """Return what the jobs have, by their pid 1. Only what exceeds a limit is exact."""
        uses = read_uses(inits)
        device = os.stat(self._scratch).st_dev if is_short else 0
        for use in uses.values():
            limits = [self._limits.memory_bytes or math.inf, self._limits.fair_bytes if is_short else math.inf]
            use.settle(min(limits), unmapped_bytes(use, device) if is_short else 0)
        return uses

    def raise_if_hit(self, watch: LimitWatch, result: SandboxResult) -> None:
        """Raise Retryable if a job may have met its limit of processes, whatever its exit code."""
        if not result.processes_made:
            return
        self._count_made()
        may_have_met_it = watch.most_processes(self._made) >= self._limits.processes
        if result.is_full or may_have_met_it:
            raise self._too_many_processes()

    def _judge(self, watch: LimitWatch, use: JobUse) -> None:
        limits = self._limits
        if limits.processes and use.processes >= limits.processes - limits.processes // PART_NEAR_LIMIT:
            watch.end(self._too_many_processes())
        if limits.memory_bytes and use.memory_bytes > limits.memory_bytes:
            limit = f"{limits.memory_bytes >> 20} MiB"
            watch.end(Retryable(Reason.MEMORY_FULL, f"the job took more than {limit} (termite-worker -job-memory)"))

    def _too_many_processes(self) -> Retryable:
        limit = self._limits.processes
        return Retryable(
            Reason.PROCESSES_FULL, f"the job had {limit} processes and threads (termite-worker -job-processes)"
        )

    def _is_short(self) -> bool:
        """Return True if less of the machine's memory is available than must stay so."""
        if not self._limits.reserve_bytes:
            return False
        available = parse_memory(os.pread(self._memory_fd, 4096, 0).decode(), "MemAvailable")
        return available < self._limits.reserve_bytes

    def _keep_reserve(self, largest: LimitWatch, uses: dict[int, JobUse]) -> None:
        """End the largest job if it exceeds its share. Call this when the machine is short.

        The shares of all slots of this worker fit into the memory. If no job has more than its
        share, other programs of the machine take the memory, and no job is ended.
        """
        if uses[largest.pid].memory_bytes > self._limits.fair_bytes:
            share = f"{self._limits.fair_bytes >> 20} MiB"
            largest.end(Retryable(Reason.MEMORY_FULL, f"the machine ran short, and the job had more than {share}"))

    def _count_made(self) -> None:
        """Count the processes made since the last call. Those of all jobs have a pid here, too."""
        newest = self._read_newest()
        self._made += (newest - self._newest) % self._pid_max
        self._newest = newest

    def _read_newest(self) -> int:
        return int(os.pread(self._load_fd, 256, 0).rsplit(None, 1)[1])
