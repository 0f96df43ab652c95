"""Publish the results of one job: reconcile and stage them, write the plan, carry it out in slices.

Between two slices other tasks run, so the journal has everything that was done before each of them.
A job that starts in between sees half of a result, as it would beside a local command.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EIO
from pathlib import Path

import msgspec
import trio

from termite.engine.errors import ExitCode, FsError, HalfPublished, Reason, ResultRefused, TermiteError
from termite.engine.loop.long_work import MANY, compute
from termite.engine.model import Change
from termite.engine.paths import from_root_down
from termite.engine.tree.disk_follower import DiskFollower
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.logic.attrs import Events
from termite.engine.tree.logic.journal import Journal
from termite.engine.tree.logic.plan import Plan, make_plan
from termite.engine.tree.logic.redo_plan import JobEnd, Outcome, PlaceEntry, SetDirectory, Step, Trash, place_in_plan
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.publishing.areas import StagingAreas
from termite.engine.tree.publishing.kept_plans.plan_file import IsTold
from termite.engine.tree.publishing.preparation import Contents, KnownFiles, Preparation
from termite.engine.tree.publishing.reconciliation import Neighbours, Reconciled, Reconciliation
from termite.engine.tree.publishing.redo import PASSING, PAUSE_S, RETRY_S, split_names
from termite.engine.tree.publishing.staging import Staging
from termite.engine.tree.publishing.steps import ReplayRecord, StepRunner
from termite.engine.tree.publishing.target_directories import TargetDirectories
from termite.engine.tree.temporary_files import TemporaryFiles
from termite.engine.tree.tree_disk import Disk, FsErrors

SLICE_S = 0.01  # after this time other tasks run
SLICED_ROUNDS = 2  # in which the steps of a plan are found; then others have had their turns

log = logging.getLogger(__name__)


class ReaderWaits(TermiteError):
    """An error before the plan: somebody must read the output of the job first.

    He may take for ever, so nobody waits for him in the turn of a publication. Nothing was changed.
    """


def _show_nothing() -> bool:
    return True


@dataclass(slots=True)
class Ticket:
    """The end of a job that its launcher must hear.

    `is_told` returns whether the launcher was sent it, or its process has ended. `is_left` returns
    whether nobody waits for it any more, because the launcher has gone.

    `before_plan` is called when everything is staged. It shows the output that was held, because
    nobody else has it if the master dies later. It never waits: it returns False if not all could
    be shown, and `wait_for_reader` waits until all is.

    `has_happened` is set when the plan of the job is written, and `is_complete` when all of its
    steps are carried out. `umask` is that of the job.
    `may_set_modes` returns whether its command may set modes itself.
    """

    end: JobEnd
    is_told: IsTold
    before_plan: Callable[[], bool] = _show_nothing
    wait_for_reader: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    has_happened: bool = False
    is_complete: bool = False
    umask: int = 0o022
    may_set_modes: Callable[[], bool] = bool
    is_left: Callable[[], bool] = bool


NOBODY = Ticket(JobEnd(b"", 0, 0, 0, b""), lambda: True)  # no launcher waits for these results


class Published(msgspec.Struct, frozen=True):
    """The state after a job's results were written to disk: the journal has them up to `number`.

    `conflicts` are paths that this job has made anew, and that another job, which ran at the same
    time, had written differently. `appended` are files to which others had appended meanwhile, too.
    """

    number: int
    conflicts: tuple[bytes, ...]
    appended: tuple[bytes, ...] = ()


@dataclass(slots=True)
class TreeParts:
    """The parts of a master's tree that a publication needs.

    `never_leaves` are paths that no job may remove. `held` are paths that commands may change which
    run on this machine because of a conflict. `ticket` is that of the job whose plan is being
    carried out, or None.
    """

    disk: Disk
    exports: Exports
    temporary: TemporaryFiles
    hashes: Hashes
    follower: DiskFollower
    journal: Journal
    staging: Staging
    never_leaves: frozenset[bytes]
    held: Counter[bytes] = field(default_factory=Counter)
    ticket: Ticket | None = None


class Publication:
    """The publication of one job. No other one may run at the same time."""

    def __init__(self, parts: TreeParts, timing: Timing, ticket: Ticket) -> None:
        self.done = ReplayRecord()
        self._parts = parts
        self._timing = timing
        self._ticket = ticket
        self._directories = TargetDirectories(parts.disk)
        self._slice_end_s = time.perf_counter() + SLICE_S
        self._recorded: list[Step] = []  # the steps as the plan file gets them
        self._is_outside = False  # a change is outside the writable root

    async def run(self, changes: Sequence[Change], contents: Contents) -> Published:
        """Publish, and raise as `MasterTree.publish` does.

        Raise ReaderWaits if another publication must begin when `wait_for_reader` has returned.
        """
        parts = self._parts
        journal = parts.journal
        plan = await compute(len(changes), lambda: make_plan(changes, parts.exports.is_writable))
        # Only publications change what this looks at.
        conflicts = journal.conflicts(self._timing.number, (change for change in changes if change.base is None))
        if len(changes) > MANY:
            await self._next_slice()
        self._drain()
        self._is_outside = parts.temporary.admit(changes)
        reconciliation = self._reconciliation()
        try:
            with FsErrors(b""):
                reconciled = await reconciliation.run(changes, contents)
            if reconciled.appended:
                plan = await compute(len(changes), lambda: make_plan(reconciled.changes, parts.exports.is_writable))
            number = await self._publish(plan, reconciled, reconciliation)
            conflicts += await reconciliation.late.rescue()
            if reconciliation.late.has_rescued:
                with suppress(TermiteError):  # the job has happened; the next drain looks again
                    self._drain()
        finally:
            reconciliation.close()
        return Published(number, conflicts, tuple(reconciled.appended))

    async def _publish(self, plan: Plan, reconciled: Reconciled, reconciliation: Reconciliation) -> int:
        """Stage the plan and carry it out. Return the journal number."""
        parts = self._parts
        root = parts.exports.writable_root
        ticket, is_mixed = self._ticket, parts.follower.reader.notes.is_mixed
        known = KnownFiles(parts.follower.tree, self._kept, ticket.umask, ticket.may_set_modes, root, is_mixed)
        areas = StagingAreas(parts.staging, self._directories, root, plan.replaced)
        preparation = Preparation(self._directories, areas, self._timing, known, plan)
        contents, fetched = reconciled.contents, set[bytes]()
        try:
            with FsErrors(b""):
                if await self._do_in_slices(preparation.prepare(contents)):
                    self._meet_others()
                await self._find_steps(preparation, reconciled, reconciliation, plan)
            steps = preparation.steps
            if not steps:
                return parts.journal.number
            if not parts.staging.is_in_place:
                raise ResultRefused(Reason.TREE_GONE, ())
            if self._is_outside:
                parts.temporary.expect(reconciled.changes)
            runner = self._runner(preparation, areas, steps)
            with FsErrors(b""):
                parts.staging.plan.begin(self._ticket.end, self._ticket.is_told, tuple(self._recorded), areas.paths)
            self._ticket.has_happened = True  # from here on every error is HalfPublished until all is done
            number = await self._carry_out(preparation, runner, steps)
            if self._is_outside:
                parts.temporary.note_made(reconciled.changes)
        except ReaderWaits:
            fetched = {os.fsencode(content.name) for content in contents.values() if isinstance(content, Path)}
            raise
        finally:
            self._directories.close()
            preparation.close(fetched)
            areas.close()
        parts.journal.note_results(number, reconciled.changes)
        return number

    async def _find_steps(
        self, preparation: Preparation, reconciled: Reconciled, reconciliation: Reconciliation, plan: Plan
    ) -> None:
        """Find the steps of the plan for the state that the tree has in this turn.

        Between two slices others may touch the places of the plan; then the steps are found anew,
        the last time at once.
        """
        contents = reconciled.contents
        is_look_old = False  # others have run since the files were looked at
        for turns_left in reversed(range(SLICED_ROUNDS + 1)):
            number = self._parts.journal.number
            was_interrupted = await self._do_in_slices(self._found(preparation, contents), at_once=not turns_left)
            is_look_old |= was_interrupted
            if turns_left == SLICED_ROUNDS:
                # Before the output is shown, which a second run could not take back.
                reconciliation.check()
                if is_look_old := await self._do_in_slices(reconciliation.look_at_files()):
                    was_interrupted = True
                    reconciliation.check()
                if not self._ticket.before_plan():
                    raise ReaderWaits
            # Even without an interruption the drains since have told what programs did meanwhile.
            if was_interrupted or self._is_touched(number, reconciled.changes, plan):
                self._meet_others()
                reconciliation.check()
                if self._is_touched(number, reconciled.changes, plan):
                    continue
            if is_look_old:
                await self._do_in_slices(reconciliation.look_at_files(), at_once=True)
            return

    def _found(self, preparation: Preparation, contents: Contents) -> Iterator[None]:
        """Find the steps, and as they are recorded for another process, too."""
        yield from preparation.find_steps(contents)
        self._recorded = []
        for step in preparation.steps:
            self._recorded.append(self._relative(step))
            yield

    def _is_touched(self, number: int, changes: Sequence[Change], plan: Plan) -> bool:
        """Return whether others have changed a place of the plan since `number`, or one above."""
        journal = self._parts.journal
        if journal.number == number:
            return False
        named = {change.path for change in changes}
        above = {step for parent in plan.parents(frozenset()) for step in from_root_down(parent)}
        touched = {change.path for changeset in journal.since(number) for change in changeset.changes}
        return any(path in above or not named.isdisjoint(from_root_down(path)) for path in touched)

    def _meet_others(self) -> None:
        """Take in what other tasks and programs have done since the last slice."""
        self._directories.close()  # other tasks may have heard of other directories
        self._drain()

    async def _do_in_slices(self, work: Iterator[None], *, at_once: bool = False) -> bool:
        """Do `work`, in slices unless `at_once`. Return True if other tasks have run meanwhile."""
        was_interrupted = False
        for _ in work:
            if time.perf_counter() > self._slice_end_s and not at_once:
                was_interrupted = True
                await self._next_slice()
        return was_interrupted

    def _reconciliation(self) -> Reconciliation:
        parts = self._parts
        near = Neighbours(parts.disk, parts.hashes, parts.follower.tree, parts.journal, parts.staging, parts.held)
        return Reconciliation(near, self._timing, self._drain)

    def _drain(self) -> None:
        self._parts.journal.append(self._parts.follower.drain())

    def _kept(self) -> frozenset[bytes]:
        """Return the paths that stay if a directory above them is removed."""
        return self._parts.journal.made_since(self._timing.number) | self._parts.never_leaves

    async def _carry_out(self, preparation: Preparation, runner: StepRunner, steps: tuple[Step, ...]) -> int:
        """Carry the plan out, return the journal number. Raise HalfPublished, but never Cancelled.

        A scope costs 4 us, so there is one around each of the few places that wait.
        """
        parts = self._parts
        parts.ticket = self._ticket
        count = 0
        try:
            deadline_s = 0.0
            while count < len(steps):
                try:
                    runner.run(steps[count])
                    count += 1
                except OSError as error:
                    deadline_s = deadline_s or trio.current_time() + RETRY_S
                    if error.errno not in PASSING or trio.current_time() > deadline_s:
                        raise
                    self._note_done()
                    with trio.CancelScope(shield=True):
                        await trio.sleep(PAUSE_S)
                if time.perf_counter() > self._slice_end_s:
                    self._note_done()
                    with trio.CancelScope(shield=True):
                        await self._next_slice()
            preparation.note_published()
            number = self._note_done()
            self._ticket.is_complete = True
        except Exception as error:  # around one publication: whatever it is, the command must not run again
            raise self._give_up(runner, steps, count, error) from error
        finally:
            parts.ticket = None
        self._write_outcome(Outcome.DONE, self._ticket.end)
        return number

    def _runner(self, preparation: Preparation, areas: StagingAreas, steps: tuple[Step, ...]) -> StepRunner:
        journal = self._parts.journal
        planned = journal.number

        def late() -> frozenset[bytes]:
            """Return what others have made since the plan was written."""
            return journal.made_since(planned) - {step.path for step in steps}

        return StepRunner(self._directories, areas.fd_of, self.done, preparation.files, preparation.now_ns, late)

    def _give_up(self, runner: StepRunner, steps: tuple[Step, ...], count: int, error: Exception) -> HalfPublished:
        """End the plan though it is not complete, and return the error of the job."""
        number = error.errno or EIO if isinstance(error, OSError | FsError) else EIO
        for step in steps:
            if isinstance(step, SetDirectory):
                with suppress(Exception):  # the error that ends the plan is the one to report
                    runner.run(step)
        with suppress(Exception):  # the next drain does it
            self._note_done()
        end = self._ticket.end
        self._write_outcome(Outcome.FAILED, JobEnd(end.token, end.pid, ExitCode.LOST, 0, end.stdin), count)
        half = split_names(tuple(map(self._relative, steps)), count, os.strerror(number))
        if not isinstance(error, OSError | FsError):
            log.error("publication-failed", exc_info=error)
        log.warning(
            "job-half-published published=%d left=%d reason=%s", len(half.published), len(half.left), half.reason
        )
        return HalfPublished(tuple(half.lines()))

    def _write_outcome(self, outcome: Outcome, end: JobEnd, done: int = 0) -> None:
        try:
            self._parts.staging.plan.end(outcome, end, done)
        except (OSError, MemoryError) as error:  # whoever finishes the plan again changes nothing
            log.warning("outcome-not-written reason=%s", error)

    def _note_done(self) -> int:
        """Bring everything that was done so far into the journal, and return its number."""
        for stamp, digest in self.done.placed:
            self._parts.hashes.remember(stamp, digest)
        self.done.placed.clear()
        events, self.done.events = self.done.events, Events()
        return self._parts.journal.append(self._parts.follower.check(events))

    async def _next_slice(self) -> None:
        await trio.lowlevel.checkpoint()
        self._slice_end_s = time.perf_counter() + SLICE_S

    def _relative(self, step: Step) -> Step:
        """Return a step with the paths of a plan, for another process."""
        root = self._parts.exports.writable_root
        replace, path = msgspec.structs.replace, place_in_plan(step.path, root)
        if isinstance(step, PlaceEntry) and step.linked is not None:
            return replace(step, path=path, linked=place_in_plan(step.linked, root))
        if isinstance(step, Trash) and step.kept:
            return replace(step, path=path, kept=tuple(place_in_plan(kept, root) for kept in step.kept))
        return replace(step, path=path)


async def publish_in_turn(
    turn: trio.Lock, publication: Publication, changes: Sequence[Change], contents: Contents
) -> Published | None:
    """Publish when no other publication runs. Return None if a reader must be waited for first."""
    try:
        turn.acquire_nowait()
    except trio.WouldBlock:
        await turn.acquire()
    try:
        return await publication.run(changes, contents)
    except ReaderWaits:
        return None
    finally:
        turn.release()
