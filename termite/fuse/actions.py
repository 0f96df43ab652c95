"""Do what the master of a lease asks for: run a command, send a content.

`Actions.run` is one job from end to end.
"""

import contextlib
import functools
import logging
import os
import platform
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from termite.engine.errors import Reason, Retryable, first_error
from termite.engine.model import Digest, PackedTrace, TraceGap
from termite.engine.sparse_content import pieces
from termite.engine.store.cas import refuse_unreadable
from termite.engine.wire.protocol.frames import DATA_BYTES, pack_piece
from termite.engine.wire.protocol.messages import MAX_CHANGES, Done, GetBlob, OpenLease, Ran, Run, UseTerminal
from termite.engine.wire.transport import SendChunk
from termite.fuse import mirror_calls
from termite.fuse.content.fetch import MirroredFiles
from termite.fuse.harvest.collect import Harvested, collect, find_left_in_memory
from termite.fuse.job_slots import JobSlots
from termite.fuse.job_terminal import JobTerminal
from termite.fuse.kernel_requests.ops import MirrorOperations
from termite.fuse.layers.real_layers import RealLayers
from termite.fuse.layers.warm_layer import WarmLayer
from termite.fuse.running_jobs import JobTable, RunningJob
from termite.fuse.sandbox.running_sandbox import OnOutput
from termite.fuse.sandbox.sandbox_order import SandboxSpec
from termite.fuse.sandbox.sandbox_report import SandboxResult
from termite.fuse.sandbox.sandboxes import Sandboxes
from termite.fuse.stdin.pipe_watcher import TerminalWatcher
from termite.fuse.stdin.stdin_pipe import StdinPipe, StdinSource
from termite.fuse.view.comparison import Homes, coarsened
from termite.fuse.view.link_comparers import Comparers, comparers_of
from termite.fuse.view.trace_names import TraceNames
from termite.fuse.view.views import Need

MADE_JOBS = 1024  # the last ones with results to fetch; a master fetches those of a job as soon as it has ended
JOURNAL_S = 30.0  # the Run that carries the changesets in front of this one is on the same connection

# The pause between two searches for a thread that reads from a terminal. No short job is searched.
MIN_LOOK_S, MAX_LOOK_S, LOOK_GROWTH = 0.05, 0.25, 1.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseParts:
    """The parts of the mirror that its jobs share, made when the master opens the lease.

    `has_network` is False if the worker gives a network to no job.
    """

    files: MirroredFiles
    layers: RealLayers
    warm: WarmLayer
    sandboxes: Sandboxes
    stdin_source: StdinSource
    operations: MirrorOperations
    has_network: bool

    def statistics(self) -> dict[str, int]:
        """Return the counts of all parts that have some."""
        parts = (self.files.tree, self.files.fetcher, self.layers, self.warm, self.operations)
        counts = {name: count for part in parts for name, count in part.statistics().items()}
        store = {f"store_{name}": count for name, count in self.files.cas.statistics().items()}
        return counts | store


class Actions:
    """The jobs of one lease.

    `slots` limits how many run at once. `mount` is the mount point of the mirror. `on_change` is
    called when a job starts or ends.

    The kernel does not say for which job it asks. Therefore `Usage.requests` of a job has all
    requests since the last job that ended, and the sum over all jobs is exact.
    """

    def __init__(
        self,
        request: OpenLease,
        mount: Path,
        parts: LeaseParts,
        jobs: JobTable,
        on_change: Callable[[], None],
    ) -> None:
        self.slots = JobSlots()
        self._request = request
        self._homes = Homes(request.writable_root, request.temporary)
        self._mount = mount
        self._parts = parts
        self._files = parts.files
        self._tree = parts.files.tree
        self._jobs = jobs
        self._on_change = on_change
        self._requests_reported = 0
        self._made: deque[frozenset[Digest]] = deque(maxlen=MADE_JOBS)
        self._journal_advanced = trio.lowlevel.ParkingLot()
        self._terminals: dict[int, JobTerminal] = {}
        self._traced_names = TraceNames()

    async def run(self, run: Run, send_chunk: SendChunk) -> Ran:
        """Run one job, and return its result; the files that it made are in the store then.

        Raise Retryable or Stale if the master should run it again. Nothing blocks before the
        changesets are taken in, so that a job brings them even if it is cancelled at once.
        """
        if run.terminal is None:
            return await self._run_in_view(run, send_chunk)
        terminal = self._terminals[run.job] = JobTerminal(run.terminal)  # at once: keys may already be on their way
        try:
            return await self._run_in_view(run, send_chunk)
        finally:
            del self._terminals[run.job]
            terminal.close()

    async def _run_in_view(self, run: Run, send_chunk: SendChunk) -> Ran:
        self._tree.take_in(run.changesets)
        self._tree.fresh = frozenset(run.fresh)
        self._traced_names.note_known(run.names_known)
        self._journal_advanced.unpark_all()
        if run.network and not self._parts.has_network:
            raise Retryable(Reason.NETWORK_DENIED)
        await self._wait_for_number(run.number)
        self._tree.take_contents(run.contents, run.number)
        if not self._tree.is_known(b""):
            await self._files.fetcher.directory(b"")
        async with self.slots:
            await self._parts.layers.settle()
            view, generation = self._tree.open_view(), self._parts.warm.enter()
            with trio.CancelScope() as scope:
                layers = view.layers(generation.layer() if generation else "")
                job = RunningJob(run.job, view, layers, scope, run.stdin_file)
                self._jobs.add(job)
                self._on_change()
                try:
                    ran = await self._run(job, run, send_chunk)
                finally:
                    job.fail_waiting()
                    self._jobs.remove(job)
                    self._parts.sandboxes.discard(run.job)
                    self._tree.close_view(view)
                    self._parts.warm.leave(generation)
                    self._on_change()
            job.raise_retry()
            self._note_made(ran)
            return ran

    def _note_made(self, ran: Ran) -> None:
        """Note which contents the master may fetch: those of the jobs of this lease only."""
        digests = frozenset(change.attr.digest for change in ran.changes if change.attr and change.attr.digest)
        if to_fetch := frozenset(digest for digest in digests if digest.sha256 not in ran.inline):
            self._made.append(to_fetch)

    async def send_blob(self, request: GetBlob, send_chunk: SendChunk) -> Done:
        """Send a content that a job of this lease has made.

        Raise Retryable if no job has, if the store has evicted it, or has found it bad. The master
        then runs the job again. The store has contents of other masters, too.
        """
        if not any(request.digest in made for made in self._made):
            raise Retryable(Reason.RESULT_LOST)
        cas = self._files.cas
        if cas.is_verified(request.digest):
            fd = cas.open(request.digest)
        else:
            fd = await trio.to_thread.run_sync(cas.open, request.digest)
        if fd is None:
            raise Retryable(Reason.RESULT_LOST)
        try:
            for piece in pieces(fd, request.digest.size, DATA_BYTES, mirror_calls.pread):
                await send_chunk(pack_piece(piece))
        except OSError as error:
            refuse_unreadable(cas, request.digest, error)
            raise Retryable(Reason.RESULT_LOST, str(error.strerror)) from error
        finally:
            os.close(fd)
        return Done()

    async def use_terminal(self, request: UseTerminal) -> Done:
        """Change the window of a job's terminals, or type at one. Wait until that has been done."""
        terminal = self._terminals.get(request.job)
        if terminal is not None and request.size is not None:
            terminal.resize(request.size)
        if terminal is not None and request.typed:
            await terminal.type(request.typed)
        return Done()

    async def _wait_for_number(self, number: int) -> None:
        if self._tree.number >= number:
            return
        with self._files.fetcher.patience.within(JOURNAL_S):
            while self._tree.number < number:
                await self._journal_advanced.park()
            return
        raise Retryable(Reason.JOURNAL_GAP, f"the journal stands at {self._tree.number}, the job needs {number}")

    async def _run(self, job: RunningJob, run: Run, send_chunk: SendChunk) -> Ran:
        async def forward(chunk: bytes) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()  # after `retry` its output is about an error of ours
            await send_chunk(chunk)

        if _has_pipe(run):
            async with self._stdin_pipe(job, run) as pipe:
                result, stdin_taken = await self._run_sandbox(job, run, pipe, forward), pipe.taken
        else:
            result, stdin_taken = await self._run_sandbox(job, run, None, forward), 0
        self._jobs.cpu_s += result.usage.user_s + result.usage.system_s
        is_typed_at = run.terminal is not None and run.terminal.is_typed_at
        if result.is_left and not is_typed_at:
            raise Retryable(Reason.PROCESS_LEFT)
        comparers = comparers_of(run.argv) if result.is_linked else Comparers.NONE
        harvested = await self._harvest(result.upper, job, comparers)
        dropped = harvested.dropped
        if left := find_left_in_memory(result.upper):
            dropped = coarsened((*dropped, *left))
        if len(harvested.changes) > MAX_CHANGES:
            raise Retryable(Reason.TOO_LARGE, f"a result of {len(harvested.changes)} files, links and directories")
        log.debug("job-ended job=%d exit=%r changes=%d", run.job, result.exit, len(harvested.changes))
        return Ran(
            exit=result.exit,
            usage=msgspec.structs.replace(result.usage, requests=self._new_requests()),
            changes=harvested.changes,
            inline=harvested.inline,
            started_ns=result.started_ns,
            ended_ns=result.ended_ns,
            dropped=dropped,
            exec_errno=result.exec_errno,
            timed_out=result.timed_out,
            stdin_offset=result.stdin_offset,
            stdin_taken=stdin_taken,
            trace=self._packed_trace(run, result),
        )

    def _packed_trace(self, run: Run, result: SandboxResult) -> PackedTrace | None:
        if not run.trace:
            return None
        if result.trace is None:
            return PackedTrace(0, TraceGap.IMPOSSIBLE)
        try:
            return self._traced_names.pack(result.trace.paths, result.trace.calls, result.trace.gaps)
        except ValueError as error:
            raise Retryable(Reason.SANDBOX_FAILED, f"a trace that cannot be read: {error}") from error

    def _new_requests(self) -> int:
        """Return the number of requests of the kernel that no job has reported yet."""
        total = self._parts.operations.requests
        new, self._requests_reported = total - self._requests_reported, total
        return new

    @contextlib.asynccontextmanager
    async def _stdin_pipe(self, job: RunningJob, run: Run) -> AsyncIterator[StdinPipe]:
        """Yield the pipe that is the job's standard input, and feed it until the block ends."""
        try:
            pipe = StdinPipe()
        except OSError as error:
            raise Retryable(Reason.SANDBOX_FAILED, f"no pipe for its standard input: {error.strerror}") from error
        if run.stdin_ended:
            with pipe:
                pipe.end()
                yield pipe
            return
        with pipe, first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipe.feed, job, self._parts.stdin_source)
                yield pipe
                nursery.cancel_scope.cancel()

    async def _run_sandbox(self, job: RunningJob, run: Run, pipe: StdinPipe | None, forward: OnOutput) -> SandboxResult:
        """Run the job in a sandbox. If it has terminals, watch whether it reads from them."""
        if run.terminal is None:
            return await self._parts.sandboxes.run(self._spec(job, run, pipe, None), forward)
        terminal = self._terminals[run.job]
        with first_error():
            async with trio.open_nursery() as nursery:
                if not run.terminal.is_typed_at:
                    nursery.start_soon(_send_home_if_it_reads, job, terminal)
                result = await self._parts.sandboxes.run(self._spec(job, run, pipe, terminal), forward)
                nursery.cancel_scope.cancel()
        return result

    def _spec(self, job: RunningJob, run: Run, pipe: StdinPipe | None, terminal: JobTerminal | None) -> SandboxSpec:
        return SandboxSpec(
            job=run.job,
            mount=self._mount,
            lower=job.layers,
            uid=self._request.uid,
            gid=self._request.gid,
            argv=run.argv,
            exe=run.exe,
            search=run.search,
            env=run.env,
            cwd=run.cwd,
            umask=run.umask,
            stdin_fd=pipe.reader if pipe else -1,
            stdin_offset=run.stdin_file.offset if run.stdin_file else -1,
            stdin_closed=run.stdin_closed,
            merge=run.merge,
            network=run.network,
            timeout_s=run.timeout_s,
            memory_bytes=run.memory_bytes,
            limits=run.limits,
            nice=run.nice,
            ignored=run.ignored,
            processes=self._parts.sandboxes.limits.processes,
            hostname=self._request.hostname,
            terminal=terminal,
            trace=run.trace,
            on_pid=job.started,
            on_kill=job.fail_waiting,
        )

    async def _harvest(self, upper: Path, job: RunningJob, comparers: Comparers) -> Harvested:
        lower = functools.partial(self._tree.was_at, job.view)
        place = (upper, self._homes, lower, self._files.cas, job.copied)
        while True:
            try:
                return await collect(*place, comparers=comparers)
            except Need as need:
                await self._files.fetcher.directory(need.path)


def _has_pipe(run: Run) -> bool:
    """Return False if the job has no standard input, or if that is a file."""
    return run.stdin_ended or (run.stdin and run.stdin_file is None)


async def _send_home_if_it_reads(job: RunningJob, terminal: JobTerminal) -> None:
    """Stop the job as soon as it waits for somebody to type, because nobody can.

    The command then runs on the submitter's machine, where its terminal is.
    """
    watcher, pause_s = TerminalWatcher(platform.machine()), MIN_LOOK_S
    while not terminal.is_typed_for:
        await trio.sleep(pause_s)
        pause_s = min(LOOK_GROWTH * pause_s, MAX_LOOK_S)
        if job.pid and await trio.to_thread.run_sync(watcher.is_waited_for, job.pid, abandon_on_cancel=True):
            break
    job.retry(Retryable(Reason.READS_TERMINAL))
