"""What the master of a lease asks for: run a command, send a content. `Actions.run` is one job from end to end."""

import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import trio

from termite.engine.errors import Reason, Retryable, first_error
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.frames import MAX_CHUNK_BYTES
from termite.engine.wire.protocol.messages import Done, GetBlob, OpenLease, Ran, Run
from termite.engine.wire.transport import SendChunk
from termite.fuse.content.fetch import Fetcher
from termite.fuse.harvest.collect import Harvested, collect
from termite.fuse.layers.real_layers import Layers
from termite.fuse.layers.warm_layer import Warm
from termite.fuse.running_jobs import Jobs, RunningJob
from termite.fuse.sandbox.sandboxes import Sandboxes, SandboxSpec
from termite.fuse.stdin.stdin_pipe import StdinPipe, Stdins
from termite.fuse.view.tree import Tree
from termite.fuse.view.views import Need, View

JOURNAL_S = 30.0  # the Run that carries the changesets in front of this one is on the same connection

_NO_PIPE = contextlib.nullcontext()

log = logging.getLogger(__name__)


class Actions:
    """The jobs of one lease. `on_change` is called when one starts or ends.

    `requests` counts what the kernel asked. It does not say for whom: `Usage.requests` has all since the last job that
    ended, so that the sum over all jobs is exact.
    """

    def __init__(
        self,
        lease: OpenLease,
        mount: Path,
        tree: Tree,
        cas: Cas,
        fetcher: Fetcher,
        stdins: Stdins,
        sandboxes: Sandboxes,
        jobs: Jobs,
        warm: Warm,
        layers: Layers,
        requests: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        self.slots = trio.CapacityLimiter(0)
        self._lease = lease
        self._mount = mount
        self._tree = tree
        self._cas = cas
        self._fetcher = fetcher
        self._stdins = stdins
        self._sandboxes = sandboxes
        self._jobs = jobs
        self._warm = warm
        self._layers = layers
        self._requests = requests
        self._requests_told = 0
        self._on_change = on_change
        self._moved = trio.lowlevel.ParkingLot()

    async def run(self, run: Run, send_chunk: SendChunk) -> Ran:
        """One job. Nothing is awaited before the journal is taken in: a job cancelled at once has brought it too."""
        self._tree.take_in(run.changesets)
        self._moved.unpark_all()
        await self._wait_for_number(run.number)
        self._tree.take_contents(run.contents, run.number)
        if not self._tree.is_known(b""):
            await self._fetcher.directory(b"")
        async with _Slot(self.slots):
            await self._layers.settle()
            view, generation = self._tree.open_view(), self._warm.enter()
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
                    self._sandboxes.discard(run.job)
                    self._tree.close_view(view)
                    self._warm.leave(generation)
                    self._on_change()
            job.raise_retry()
            return ran

    async def send_blob(self, request: GetBlob, send_chunk: SendChunk) -> Done:
        """A content that a job has made."""
        fd = self._cas.open(request.digest)
        if fd is None:
            raise Retryable(Reason.RESULT_LOST)
        try:
            while chunk := os.read(fd, MAX_CHUNK_BYTES):
                await send_chunk(chunk)
        finally:
            os.close(fd)
        return Done()

    async def _wait_for_number(self, number: int) -> None:
        if self._tree.number >= number:
            return
        with trio.move_on_after(JOURNAL_S):
            while self._tree.number < number:
                await self._moved.park()
            return
        raise Retryable(Reason.JOURNAL_GAP, f"the journal stands at {self._tree.number}, the job needs {number}")

    async def _run(self, job: RunningJob, run: Run, send_chunk: SendChunk) -> Ran:
        async def forward(chunk: bytes) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()  # what it says after `retry` is about an error of ours
            job.has_output = True
            await send_chunk(chunk)

        async with self._standard_input(job, run) if _has_pipe(run) else _NO_PIPE as pipe:
            result = await self._sandboxes.run(self._spec(job, run, pipe), forward)
            stdin_taken = pipe.taken if pipe else 0
        harvested = await self._harvest(result.upper, job.view)
        requests, self._requests_told = self._requests() - self._requests_told, self._requests()
        log.debug("job-ended job=%d exit=%r changes=%d", run.job, result.exit, len(harvested.changes))
        return Ran(
            exit=result.exit,
            usage=msgspec.structs.replace(result.usage, requests=requests),
            changes=harvested.changes,
            inline=harvested.inline,
            started_ns=result.started_ns,
            ended_ns=result.ended_ns,
            dropped=harvested.dropped,
            exec_errno=result.exec_errno,
            timed_out=result.timed_out,
            stdin_offset=result.stdin_offset,
            stdin_taken=stdin_taken,
        )

    @contextlib.asynccontextmanager
    async def _standard_input(self, job: RunningJob, run: Run) -> AsyncIterator[StdinPipe]:
        """The pipe that is the job's standard input, and is filled as long as this lasts."""
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
                nursery.start_soon(pipe.feed, job, self._stdins)
                yield pipe
                nursery.cancel_scope.cancel()

    def _spec(self, job: RunningJob, run: Run, pipe: StdinPipe | None) -> SandboxSpec:
        return SandboxSpec(
            job=run.job,
            mount=self._mount,
            lower=job.layers,
            uid=self._lease.uid,
            gid=self._lease.gid,
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
            hostname=self._lease.hostname,
            on_pid=job.started,
            on_kill=job.fail_waiting,
        )

    async def _harvest(self, upper: Path, view: View) -> Harvested:
        lower = functools.partial(self._tree.was_at, view)
        while True:
            try:
                return await collect(upper, self._lease.writable_root, lower, self._cas)
            except Need as need:
                await self._fetcher.directory(need.path)


class _Slot:
    """One of them; without a turn of the scheduler where one is free."""

    __slots__ = ("_slots",)

    def __init__(self, slots: trio.CapacityLimiter) -> None:
        self._slots = slots

    async def __aenter__(self) -> None:
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()


def _has_pipe(run: Run) -> bool:
    return run.stdin_ended or (run.stdin and run.stdin_file is None)
