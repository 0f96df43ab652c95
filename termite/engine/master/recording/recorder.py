"""Note what happens to jobs, for their records and for the readers of the live stream.

The path of a job calls this. Each call is a few assignments, never blocks and never fails.
"""

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import msgspec
import trio

from termite.engine.decide.environment import Environment
from termite.engine.decide.logic.command_mask import hidden_words
from termite.engine.errors import ExitCode, HalfPublished, Reason
from termite.engine.fleet.lease import Lease
from termite.engine.history.logic.job_record import NOT_KNOWN, BuildRecord, JobRecord, Where
from termite.engine.history.logic.live_events import (
    BuildEnded,
    BuildStarted,
    JobEnded,
    JobHome,
    JobQueued,
    JobRetried,
    JobSent,
    Snapshot,
)
from termite.engine.history.logic.missing_edges import missing_edge
from termite.engine.history.logic.recorded_text import recorded_line, recorded_text
from termite.engine.history.master_mark import own_mark
from termite.engine.history.watchers import SendFrames, Watchers
from termite.engine.launch.connection import LauncherGone
from termite.engine.launch.local_runs import parent_of
from termite.engine.master.job import Job
from termite.engine.master.recording.attempt_failures import detail_text, reason_of
from termite.engine.master.recording.build_notes import BuildNotes
from termite.engine.master.recording.fleet_view import FleetView, changes_of
from termite.engine.master.recording.job_builds import VARIABLE, JobBuilds, name_of
from termite.engine.master.recording.job_records import bare_record_of, record_of
from termite.engine.master.recording.record_keeper import BuildStep, RecordKeeper, Written
from termite.engine.master.recording.recorder_config import RecorderConfig
from termite.engine.model import Exit
from termite.engine.recall.look_up.stored_rows import RecordedResult
from termite.engine.wire.protocol.messages import Ran

FLEET_STEP_S = 1.0  # between two looks at the workers, while somebody reads
END_PATIENCE_S = 2.0  # of the end of a build for the disk

log = logging.getLogger(__name__)


class Recorder:
    """The recorder of one master. `look_at_fleet` returns what is to be seen of its workers."""

    def __init__(self, config: RecorderConfig, look_at_fleet: Callable[[], FleetView]) -> None:
        self._config = config
        self._look_at_fleet = look_at_fleet
        self._keeper = RecordKeeper(config.directory, config.settings, self._describe)
        self._builds = JobBuilds(self._keeper.last_build, self._keeper.builds, parent_of)
        self._jobs: dict[int, Job] = {}  # those that are not home, or whose record is not made yet
        self._ends: dict[BuildNotes, trio.Event] = {}  # set when the end of a build is on the disk
        self._last_job_s = 0.0
        self._fleet = FleetView({})
        self._started_s, self._mark = time.time(), own_mark()
        self.last_job = self._keeper.last_job
        self.watchers = Watchers(self._snapshot)

    # -- one job ------------------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Note a new job, and which build it belongs to."""
        now_s = job.notes.queued_s = self._last_job_s = time.time()
        build, is_new = self._builds.find(job.request.invocation.env, job.launcher.pid)
        if is_new:
            build.started_s = now_s
            self._start(build)
        job.notes.build = build
        build.begun += 1
        build.last_job = job.id
        self._jobs[job.id] = job

    def answered(self, job: Job) -> None:
        """Note that the command does nothing, and that its launcher was told so."""
        job.notes.where, job.notes.exit = Where.ANSWERED, Exit(0)
        self.finish(job)

    def fell_back(self, job: Job, reason: Reason, detail: str) -> None:
        """Note why the command runs here after all, or not at all."""
        notes = job.notes
        notes.reason, notes.detail = reason, detail_text(detail)
        if notes.sent_s:  # the attempt has succeeded, but it could not start the command
            self.fail(job, reason, notes.detail)

    def refused(self, job: Job, code: int) -> None:
        """Note that the command runs nowhere, and that its launcher ends with `code`."""
        job.notes.is_forbidden, job.notes.where, job.notes.exit = True, Where.NOWHERE, Exit(code)

    def command_ended(self, job: Job, ran: Ran, offset_ns: int) -> None:
        """Note that the command has ended on a worker, whose clock plus `offset_ns` is ours."""
        notes = job.notes
        notes.started_s = (ran.started_ns + offset_ns) / 1e9
        notes.ended_s = (ran.ended_ns + offset_ns) / 1e9
        notes.exit, notes.usage, notes.changes = ran.exit, ran.usage, ran.changes
        notes.dropped, notes.timed_out, notes.trace = ran.dropped, ran.timed_out, ran.trace
        self.tell_end(job)

    def published(self, job: Job, conflicts: int = 0) -> None:
        """Note that the result of the present attempt counts."""
        notes = job.notes
        notes.where, notes.is_published, notes.conflicts = Where.WORKER, True, conflicts

    def missing_edge_of(self, job: Job) -> str:
        """Return the line about a job that failed and then passed, or "" if it is none."""
        return missing_edge(self._present(job))

    def recalled(self, job: Job, result: RecordedResult, exit: Exit) -> None:
        """Note that the result of an earlier run is published, and nothing ran."""
        notes = job.notes
        notes.where, notes.is_published, notes.exit = Where.CACHE, True, exit
        notes.changes, notes.recalled = result.changes, result.job

    def half_published(self, job: Job, error: HalfPublished) -> None:
        """Note that only a part of the results is in the tree; the launcher ends with 101."""
        job.notes.reason, job.notes.detail = Reason.NOT_PUBLISHED, detail_text(" ".join(error.lines))
        self.refused(job, ExitCode.LOST)

    def attempt(self, job: Job, lease: Lease) -> "Attempt":
        """Return a context manager for one attempt of a job on a lease."""
        return Attempt(self, job, lease)

    def following(self, job: Job) -> "Following":
        """Return a context manager for the remaining steps of a job."""
        return Following(self, job)

    def cancelled(self, job: Job) -> None:
        """Note that the job has ended because its launcher, or this master, has."""
        notes, gone = job.notes, job.launcher.gone
        if notes.home_s or notes.is_published:
            return
        notes.where, notes.is_cancelled = Where.NOWHERE, True
        signal = gone.signal if isinstance(gone, LauncherGone) else 0
        notes.exit = Exit(0, signal) if signal else None
        self.finish(job)

    def queue(self, job: Job) -> None:
        """Tell readers that the job waits for something."""
        if self.watchers.are_there:
            self.watchers.emit(JobQueued(self._present(job)))

    def witness(self, job: Job) -> "Witness":
        """Return the witness of a run of the command here."""
        return Witness(self, job, self._keeper.keep_process)

    def handed_over(self, job: Job) -> None:
        """Note that the launcher runs the command, and that nobody notices its end."""
        witness = self.witness(job)
        witness.begin(NOT_KNOWN)
        witness.lose_sight()

    # -- builds -------------------------------------------------------------------------------------------------------

    def start_build(
        self, front_end: str, argv: tuple[str, ...], cwd: str, env: Mapping[str, str], pid: int
    ) -> BuildNotes:
        """Note that a front end has started a build."""
        hidden = Environment(env).hidden(self._config.settings.env_exclude)
        text = " ".join(argv)
        text = recorded_text(text, (*hidden_words(text, argv), *hidden))
        pid = pid if pid in range(2**31) else 0
        build = self._builds.start(recorded_line(front_end), text, recorded_line(cwd), pid)
        self._start(build)
        return build

    def variables_of(self, build: BuildNotes) -> dict[str, str]:
        """Return the variables by which the commands of a build are known."""
        return {VARIABLE: name_of(build)}

    async def end_build(self, build: BuildNotes, exit_code: int, signal: int) -> None:
        """Note the end of a build, and wait until its records are on the disk.

        Give up after some seconds if the disk stands still: the front end is not held up.
        """
        if self._end(build, exit_code, signal):
            is_written = self._ends[build] = trio.Event()
            with trio.move_on_after(END_PATIENCE_S):
                await is_written.wait()
            del self._ends[build]

    def abandon_build(self, build: BuildNotes) -> None:
        """Note that the front end has gone without a word."""
        self._end(build, -1, 0)

    def end_quiet_build(self) -> None:
        """End the build without a front end if no job came for a while."""
        if build := self._builds.quiet_build(self._last_job_s, time.time()):
            self._end(build, -1, 0)

    def _start(self, build: BuildNotes) -> None:
        """Let the keeper give the build its final number, with which readers then see it."""
        self._keeper.add(BuildStep(build, is_end=False))

    def _end(self, build: BuildNotes, exit_code: int, signal: int) -> bool:
        if build.ended_s:
            return False
        # A front end may say anything.
        code = exit_code if exit_code in range(256) else NOT_KNOWN
        self._builds.end(build, code, signal if signal in range(128) else 0)
        self._keeper.add(BuildStep(build, is_end=True))
        return True

    def _describe(self, build: BuildNotes) -> BuildRecord:
        return build.record(self._config.tree, self._config.version, self._mark)

    def _present_build(self, build: BuildNotes) -> BuildRecord:
        """Return the build as readers know it: a job counts when they know that it is home."""
        return msgspec.structs.replace(self._describe(build), jobs=build.shown_jobs)

    # -- tasks --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write records, until cancelled."""
        while True:
            await self._keeper.wait_for_batch()
            try:
                await self._write()
            except Exception:  # around one batch of records: the jobs and the master go on
                log.exception("records-failed")

    def close(self) -> None:
        """End all builds and write everything, because the master ends."""
        for build in self._builds.running:
            self._end(build, -1, 0)
        self._keeper.close()

    async def serve_reader(self, send: SendFrames) -> None:
        """Send the live stream to a reader, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_fleet)
            await self.watchers.serve(send)

    async def _watch_fleet(self) -> None:
        while True:
            await trio.sleep(FLEET_STEP_S)
            self._renew_fleet()

    def _renew_fleet(self) -> None:
        """Look at the workers, and tell all readers what has changed, whoever has asked."""
        old, self._fleet = self._fleet, self._look_at_fleet()
        for event in changes_of(old, self._fleet, time.time()):
            self.watchers.emit(event)

    async def _write(self) -> None:
        for written in await self._keeper.write_batch():
            if isinstance(written, Written):
                self._tell_home(written.job, written.record)
            elif written.is_end:
                self.watchers.emit(BuildEnded(written.record))
                if written.build in self._ends:
                    self._ends[written.build].set()
            else:
                written.build.is_shown = True
                self.watchers.emit(BuildStarted(self._present_build(written.build)))

    # -- inside -------------------------------------------------------------------------------------------------------

    def send(self, job: Job) -> None:
        """Tell readers that an attempt starts."""
        if self.watchers.are_there:
            self.watchers.emit(JobSent(self._present(job)))

    def fail(self, job: Job, reason: Reason, detail: str) -> None:
        """Note that the present attempt has failed."""
        attempt = job.notes.fail_attempt(reason, detail, time.time())
        if self.watchers.are_there:
            self.watchers.emit(JobRetried(job.id, attempt))

    def tell_end(self, job: Job) -> None:
        """Tell readers that the command has ended."""
        if self.watchers.are_there:
            notes, exit = job.notes, job.notes.exit
            code = NOT_KNOWN if exit is None or exit.signal else exit.code
            signal = exit.signal if exit else 0
            self.watchers.emit(JobEnded(job.id, notes.started_s, notes.ended_s, code, signal))

    def finish(self, job: Job) -> None:
        """Note that the job is done."""
        job.notes.home_s = time.time()
        job.output.forget()  # its record may wait for the disk
        if not self._keeper.add(job):  # its record is lost, and readers need not wait for the disk
            self._tell_home(job, self._present(job) if self.watchers.are_there else None)

    def _tell_home(self, job: Job, record: JobRecord | None) -> None:
        """Tell readers that the job is done. `record` is None if none could be made."""
        self._jobs.pop(job.id, None)
        if job.notes.build is not None:
            job.notes.build.shown_jobs += 1
        if self.watchers.are_there:
            self.watchers.emit(JobHome(record or bare_record_of(job)))

    def _present(self, job: Job) -> JobRecord:
        """Return what readers see of a job, also if there is a bug with its record."""
        try:
            return record_of(job, self._config.settings)
        except Exception:  # around one job, which must not fail because somebody watches it
            log.exception("record-failed job=%d", job.id)
            return bare_record_of(job)

    def _snapshot(self) -> Snapshot:
        config = self._config
        self._renew_fleet()
        return Snapshot(
            at_s=time.time(),
            master=config.master_state(self._started_s),
            jobs=tuple(self._present(job) for job in self._jobs.values()),
            builds=tuple(self._present_build(build) for build in self._builds.running if build.is_shown),
            workers=tuple(self._fleet.workers.values()),
            waits_for=self._fleet.waits_for,
        )


class Attempt:
    """One attempt of a job on a worker. An error that leaves the block is its failure.

    A generator would be shorter, but slower, and every job that goes to a worker comes here.
    """

    __slots__ = ("_job", "_lease", "_recorder", "_slot")

    def __init__(self, recorder: Recorder, job: Job, lease: Lease) -> None:
        self._recorder, self._job, self._lease = recorder, job, lease

    def __enter__(self) -> None:
        self._slot = self._lease.slot_numbers.take()
        self._job.notes.begin_attempt(self._lease.worker, self._slot, time.time())
        self._recorder.send(self._job)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        self._lease.slot_numbers.give_back(self._slot)
        notes = self._job.notes
        sent, received, requests = notes.traffic
        more_sent, more_received, more_requests = self._lease.take_traffic()
        notes.traffic = sent + more_sent, received + more_received, requests + more_requests
        if isinstance(error, Exception) and not isinstance(error, LauncherGone | HalfPublished):
            reason, detail = reason_of(error, self._job)
            self._recorder.fail(self._job, reason, detail_text(detail))


class Following:
    """The remaining steps of a job, which ends with them unless its command runs here."""

    __slots__ = ("_job", "_recorder")

    def __init__(self, recorder: Recorder, job: Job) -> None:
        self._recorder, self._job = recorder, job

    def __enter__(self) -> None:
        self._recorder.queue(self._job)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        notes = self._job.notes
        if error is not None:
            self._recorder.cancelled(self._job)
        if notes.where is not Where.HERE and not notes.home_s:
            self._recorder.finish(self._job)


class Witness:
    """The witness of a run of a job's command on the master's machine."""

    __slots__ = ("_job", "_keep", "_recorder")

    def __init__(self, recorder: Recorder, job: Job, keep: Callable[[int], bool]) -> None:
        self._recorder, self._job, self._keep = recorder, job, keep

    def begin(self, slot: int) -> None:
        """Note that the launcher is told to execute the command."""
        notes = self._job.notes
        notes.begin_attempt("", slot, time.time())
        notes.started_s = notes.sent_s
        self._recorder.send(self._job)

    def end(self, process: int) -> bool:
        """Note that the command has ended. Return True if the keeper closes its pidfd."""
        if self._job.notes.home_s:
            return False
        is_kept = self._keep(process)
        if is_kept:
            self._job.notes.process = process
        self._job.notes.ended_s = time.time()
        self._recorder.tell_end(self._job)
        self._recorder.finish(self._job)
        return is_kept

    def lose_sight(self) -> None:
        """Note that nobody will notice the end of the command."""
        self._recorder.finish(self._job)
