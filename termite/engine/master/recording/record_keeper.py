"""Make the records of finished jobs and write them, many at a time, in a thread.

The master's loop only appends to a queue. A batch is written at the latest half a second later, so
a master that is killed loses no more than that.
"""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.history.logic.job_record import BuildRecord, JobRecord
from termite.engine.history.record_writer import PackedRecords, RecordWriter
from termite.engine.host.process_exit import ExitUnknown, exit_of
from termite.engine.master.job import Job
from termite.engine.master.recording.build_notes import BuildNotes
from termite.engine.master.recording.job_notes import NO_PROCESS
from termite.engine.master.recording.job_records import RecordSettings, record_of
from termite.engine.model import Exit

PAUSE_S = 0.5  # after the first job of a batch
BATCH_STEPS = 256  # such a batch is written at once
MAX_STEPS = 5_000  # that wait while the disk stands still; more are dropped and counted
MAX_PROCESSES = 128  # pidfds that are kept; one that is too many is closed, and its exit is not known
CLOSE_PATIENCE_S = 5.0  # for the disk at the end of the master
EXIT_PATIENCE_S = 1.0  # for the parent of a process to wait for it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildStep:
    """The start or the end of a build."""

    build: BuildNotes
    is_end: bool


@dataclass(frozen=True, slots=True)
class Written:
    """A job that the keeper is done with. `record` is None if none could be made."""

    job: Job
    record: JobRecord | None


@dataclass(frozen=True, slots=True)
class WrittenBuild:
    """The start or the end of a build, whose number is final now, with its record."""

    build: BuildNotes
    record: BuildRecord
    is_end: bool


class RecordKeeper:
    """The queue of what is to be recorded, and the writer of a tree's files.

    `describe` returns the record of a build. If `directory` is None, or cannot be used, or another
    master of the tree writes there, records are made for the live stream only. `last_build` and
    `last_job` are the highest ids so far, and `builds` are the past builds, the newest first.
    """

    def __init__(
        self, directory: Path | None, settings: RecordSettings, describe: Callable[[BuildNotes], BuildRecord]
    ) -> None:
        self._settings = settings
        self._describe = describe
        self._steps: deque[Job | BuildStep] = deque()
        self._late: list[Job] = []  # their commands have ended here, and their parents have not waited yet
        self._processes: set[int] = set()
        self._can_ask = True  # the kernel tells how processes have ended
        self._dropped = 0
        self._is_failing = False
        self._has_steps, self._is_full = trio.Event(), trio.Event()
        self._writing = threading.Lock()
        self._directory = directory
        self._writer: RecordWriter | None = None
        if directory is not None:
            try:
                self._writer = RecordWriter(directory)
            except Exception as error:  # around the files of earlier masters: this one works without records
                self._complain(error)
        self.last_build = self._writer.last_build if self._writer else 0
        self.last_job = self._writer.last_job if self._writer else 0
        self.builds = self._writer.past if self._writer else []

    def add(self, step: Job | BuildStep) -> bool:
        """Add a finished job, or a build that has started or ended. Never block.

        Return False if it was dropped, because too much waits for the disk.
        """
        if len(self._steps) >= MAX_STEPS and not isinstance(step, BuildStep):
            self._drop(step)
            return False
        self._steps.append(step)
        if not self._has_steps.is_set():
            self._has_steps.set()
        if isinstance(step, BuildStep) or len(self._steps) == BATCH_STEPS:
            self._is_full.set()
        return True

    def keep_process(self, pidfd: int) -> bool:
        """Return True if the keeper wants to close this pidfd of an ended command, with its job."""
        if not self._can_ask or len(self._processes) >= MAX_PROCESSES:
            return False
        self._processes.add(pidfd)
        return True

    def _drop(self, job: Job) -> None:
        self._dropped += 1
        if job.notes.build is not None:
            job.notes.build.begun -= 1
        self._close_process(job)

    def _close_process(self, job: Job) -> None:
        if job.notes.process != NO_PROCESS:
            self._processes.discard(job.notes.process)
            os.close(job.notes.process)
            job.notes.process = NO_PROCESS

    async def wait_for_batch(self) -> None:
        """Wait until there is something to write, and some time longer for more."""
        await self._has_steps.wait()
        with trio.move_on_after(PAUSE_S):
            await self._is_full.wait()

    async def write_batch(self) -> list[Written | WrittenBuild]:
        """Write everything that was added before this call. Only one task may do that.

        Return the jobs, and the builds that have started or ended, in their order. If the call is
        cancelled while the disk stands still, the thread is left behind.
        """
        self._has_steps, self._is_full = trio.Event(), trio.Event()
        written = await trio.to_thread.run_sync(self.write, abandon_on_cancel=True)
        if self._late:
            self._has_steps.set()
        return written

    def write(self) -> list[Written | WrittenBuild]:
        """Write as `write_batch` does, and block meanwhile."""
        with self._writing:
            return self._write_steps()

    def _write_steps(self) -> list[Written | WrittenBuild]:
        written: list[Written | WrittenBuild] = []
        packed: dict[BuildNotes, PackedRecords] = {}
        late, self._late = self._late, []
        self._steps.extendleft(late)
        for _ in range(len(self._steps)):
            step = self._steps.popleft()
            if isinstance(step, BuildStep):
                self._start(step.build)  # the record needs the final number of the build
                self._pack(packed, step.build, record := self._describe(step.build))
                written.append(WrittenBuild(step.build, record, step.is_end))
            elif self._is_late(step):
                self._late.append(step)
            elif (build := step.notes.build) is not None:
                written.append(Written(step, self._make(step, build, packed)))
                if build.is_over:
                    self._pack(packed, build, self._describe(build))
        for build, records in packed.items():
            self._write(build, records)
        if self._dropped:
            log.warning("records-dropped count=%d", self._dropped)
            self._dropped = 0
        return written

    def close(self) -> None:
        """Write the rest, and close the files. Exits that are not known yet stay unknown.

        If the disk stands still, the rest is lost after some seconds, and the master can end.
        """
        self._can_ask = False
        rest = threading.Thread(target=self._write_rest, name="last-records", daemon=True)
        rest.start()
        rest.join(CLOSE_PATIENCE_S)
        if rest.is_alive():
            self._complain(TimeoutError(errno.ETIMEDOUT, "the disk does not answer"))

    def _write_rest(self) -> None:
        try:
            self.write()
            if self._writer is not None:
                self._writer.close()
        except Exception:  # around the last records: the master ends all the same
            log.exception("records-failed")

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _is_late(self, job: Job) -> bool:
        """Ask how a local command has ended. Return True if that may be known later."""
        notes = job.notes
        if notes.process == NO_PROCESS:
            return False
        status: int | None = None
        try:
            status = exit_of(notes.process)
        except ExitUnknown:
            self._can_ask = False
        if status is None and self._can_ask and time.time() - notes.ended_s < EXIT_PATIENCE_S:
            return True
        self._close_process(job)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            notes.exit = Exit(0, -code) if code < 0 else Exit(code)
        return False

    def _make(self, job: Job, build: BuildNotes, packed: dict[BuildNotes, PackedRecords]) -> JobRecord | None:
        record: JobRecord | None = None
        try:
            self._start(build)  # the record needs the final number of the build
            record = record_of(job, self._settings)
            build.tally.add(record, job.notes.conflicts)
            self._pack(packed, build, record)
        except Exception:  # around one job: the others are recorded
            build.tally.jobs += record is None
            log.exception("record-failed job=%d", job.id)
        return record

    def _pack(
        self, packed: dict[BuildNotes, PackedRecords], build: BuildNotes, record: JobRecord | BuildRecord
    ) -> None:
        self._start(build)
        if build.is_on_disk and not build.is_closed:
            packed.setdefault(build, PackedRecords(build.id)).add(record)

    def _start(self, build: BuildNotes) -> None:
        """Make the file of a build, if it has none."""
        if build.is_on_disk or self._writer is None:
            return
        try:
            while not self._writer.start(build.id):  # a master with another socket works in the same tree
                build.id = self._writer.last_build + 1
            build.is_on_disk = True
        except OSError as error:
            self._complain(error)

    def _write(self, build: BuildNotes, packed: PackedRecords) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(packed)
            self._is_failing = False
        except OSError as error:
            self._complain(error)
        if build.is_over:
            build.is_closed = True
            try:
                self._writer.end(build.id)
            except OSError as error:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Log the first of several failures. The records are lost, and the builds go on."""
        if not self._is_failing:
            words = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            log.warning("records-not-written path=%s reason=%s", self._directory, words)
        self._is_failing = True
