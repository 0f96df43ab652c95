"""Finish the plans of masters that were killed while they published a job's results.

Three processes do this: `termite-redo`, which the launcher of that job starts, the next master of
the tree, before it serves, and the sweep after killed daemons. Whoever locks the plan file first
does it. The module `orphaned_plans` does it for the last two. All functions block.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EIO, EISDIR, ELOOP, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, ENXIO, EROFS, ESTALE
from pathlib import Path

from termite.engine import look_calls
from termite.engine.errors import ExitCode, FsError
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.redo_plan import (
    JobEnd,
    MakeDirectory,
    Outcome,
    PlaceEntry,
    Record,
    SetAttributes,
    SetDirectory,
    Step,
    Trash,
    area_of,
)
from termite.engine.tree.logic.visibility import STAGING
from termite.engine.tree.publishing.areas import FoundAreas
from termite.engine.tree.publishing.kept_plans.plan_file import (
    MAX_PLAN_BYTES,
    OPEN,
    FoundPlan,
    is_alive,
    lock,
    plan_names,
)
from termite.engine.tree.publishing.staging import IGNORE, open_staging
from termite.engine.tree.publishing.steps import ReplayRecord, StepRunner
from termite.engine.tree.publishing.target_directories import TargetDirectories
from termite.engine.tree.tree_disk import Disk, PlanDisk, remove_beneath

# These errors may pass: somebody frees space, a descriptor is closed, or a server answers again.
PASSING = frozenset((EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS, ESTALE))
NO_PLAN = frozenset((EISDIR, ELOOP, ENOENT, ENXIO))  # opening fails so if the name is no file
RETRY_S = 5.0  # for so long a step is repeated that fails with one of them
PAUSE_S = 0.1
SHOWN_NAMES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HalfDone:
    """The state in which a plan was given up: published paths, other paths, and the reason.

    `done` is the number of its steps that were carried out.
    """

    published: tuple[bytes, ...]
    left: tuple[bytes, ...]
    reason: str
    done: int

    def lines(self) -> Iterator[str]:
        """Yield the lines that tell a user."""
        yield f"the results were not all written to the tree ({self.reason}), and the command must not run again"
        yield from self._lists()

    def later_lines(self) -> Iterator[str]:
        """Yield the lines that tell the user of a later build."""
        yield f"a master was killed, and a command's results were not all written to the tree ({self.reason})"
        yield from self._lists()

    def _lists(self) -> Iterator[str]:
        for words, paths in (("written", self.published), ("not written", self.left)):
            if paths:
                rest = f" and {len(paths) - SHOWN_NAMES} more" if len(paths) > SHOWN_NAMES else ""
                yield f"{words}: {', '.join(printable_path(p) for p in paths[:SHOWN_NAMES])}{rest}"


def printable_path(path: bytes) -> str:
    """Return a path for a line of text, without characters that control a terminal."""
    return ascii(os.fsdecode(path))[1:-1]


def split_names(steps: tuple[Step, ...], done: int, reason: str) -> HalfDone:
    """Return the state in which only the first `done` steps were carried out."""
    names = [
        step.path if isinstance(step, MakeDirectory | PlaceEntry | Trash | SetAttributes) else b"" for step in steps
    ]
    left = dict.fromkeys(name for name in names[done:] if name)
    published = dict.fromkeys(name for name in names[:done] if name and name not in left)
    return HalfDone(tuple(published), tuple(left), reason, done)


def steps_done(steps: tuple[Step, ...], staging: int) -> int:
    """Return how many steps a killed master has carried out at least.

    A step moves its staged entry away from the open directory `staging`. An entry that is on
    another file system tells nothing.
    """
    for count in range(len(steps), 0, -1):
        step = steps[count - 1]
        if isinstance(step, MakeDirectory | PlaceEntry) and step.staged and not area_of(step.staged):
            try:
                look_calls.stat(step.staged, dir_fd=staging, follow_symlinks=False)
            except FileNotFoundError:
                return count
    return 0


# -- for one launcher -------------------------------------------------------------------------------------------------


def finish_job(root: Path, token: bytes, say: Callable[[str], None], patience_s: float) -> JobEnd | None:
    """Finish the plan of the job with this token, and return its end. None: it has no plan.

    `say` gets lines for the user. If another process holds the plan for longer than `patience_s`,
    it is named once. Raise OSError or RemoteProtocolError if the plans cannot be read.
    """
    top = look_calls.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        staging = open_staging(top, is_made=False)
    except FileNotFoundError:
        return None
    for name in plan_names(staging):
        fd = open_own_plan(staging, name)
        if fd < 0:
            continue
        try:
            record = FoundPlan(name, fd).record
            if record is None or record.end_of(token) is None:
                continue
            end = _finish_for(_wait_until_settled(name, fd, token, say, patience_s), root, staging, token, say)
            with suppress(OSError):  # the next master or the sweep removes what stays
                if lock(fd, wait=False) and _is_only_for(record, token):
                    disk_calls.unlink(name, dir_fd=staging)
                    if look_calls.listdir(staging) == [os.fsdecode(IGNORE)]:
                        disk_calls.unlink(IGNORE, dir_fd=staging)
                    disk_calls.rmdir(STAGING, dir_fd=top)
            return end
        finally:
            os.close(fd)
    return None


def open_own_plan(staging: int, name: bytes) -> int:
    """Return an fd of a plan file, or -1 if it is gone, another user's, or no plan file at all.

    Raise OSError if it is our own, but cannot be opened: it may be the plan of any job.
    """
    try:
        fd = look_calls.open(name, OPEN, dir_fd=staging)
    except OSError as error:
        if error.errno in NO_PLAN or (error.errno == EACCES and not _is_own_file(staging, name)):
            return -1
        raise
    try:
        status = look_calls.fstat(fd)
        is_file = stat.S_ISREG(status.st_mode) and status.st_size <= MAX_PLAN_BYTES
        if is_file and status.st_uid == os.geteuid() and look_calls.fstat(staging).st_uid == os.geteuid():
            return fd
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def _is_own_file(staging: int, name: bytes) -> bool:
    try:
        status = look_calls.stat(name, dir_fd=staging, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _wait_until_settled(name: bytes, fd: int, token: bytes, say: Callable[[str], None], patience_s: float) -> FoundPlan:
    """Return the plan when we have its lock, or when its master has ended the job without us.

    A master that lives keeps the lock. Its launcher may have lost the connection all the same.
    """
    told_s = time.monotonic() + patience_s
    is_told = False
    while not lock(fd, wait=False):
        found = FoundPlan(name, fd)
        record = found.record
        if record is None or record.plan.job.token != token or record.outcome is not Outcome.OPEN:
            return found
        if not is_told and time.monotonic() > told_s:
            say(f"the master (process {record.plan.master}) does not answer; it is writing the results of this command")
            is_told = True
        time.sleep(0.05)
    return FoundPlan(name, fd)


def _finish_for(found: FoundPlan, root: Path, staging: int, token: bytes, say: Callable[[str], None]) -> JobEnd | None:
    record = found.record
    end = record.end_of(token) if record else None
    if record is None or end is None or end != record.plan.job:
        return end
    trouble: HalfDone | None = None
    if record.outcome is Outcome.FAILED:
        trouble = split_names(record.plan.steps, record.done, "an earlier attempt failed")
    elif record.outcome is Outcome.OPEN:
        trouble = finish(found, root, staging)
    if trouble is None:
        return end
    for line in trouble.lines():
        say(line)
    return JobEnd(end.token, end.pid, ExitCode.LOST, 0, end.stdin)


def _is_only_for(record: Record, token: bytes) -> bool:
    """Return whether no other launcher may still ask for this record."""
    return not any(is_alive(end.pid) for end in (record.plan.job, *record.plan.untold) if end.token != token)


# -- finishing --------------------------------------------------------------------------------------------------------


def finish(found: FoundPlan, root: Path, staging: int) -> HalfDone | None:
    """Carry out what is left of a plan, and write its outcome. Return None if it is complete."""
    assert found.record is not None, "there is a plan"
    plan = found.record.plan
    disk = PlanDisk(os.fsencode(root))
    areas = FoundAreas(disk, staging, plan.areas)
    try:
        trouble = _carry_out(plan.steps, disk, areas)
        found.end(Outcome.FAILED if trouble else Outcome.DONE, trouble.done if trouble else 0)
        if trouble is None:
            areas.remove()
            for entry in map(os.fsencode, look_calls.listdir(staging)):
                if entry.startswith(found.label + b"."):
                    remove_beneath(staging, entry)
    finally:
        areas.close()
        disk.close()
    return trouble


def _carry_out(steps: tuple[Step, ...], disk: Disk, areas: FoundAreas) -> HalfDone | None:
    directories = TargetDirectories(disk)
    runner = StepRunner(directories, areas.fd_of, ReplayRecord(), {})
    deadline_s = time.monotonic() + RETRY_S
    try:
        if areas.missing is not None:
            done = steps_done(steps, areas.fd_of(b""))
            _finish_directories(runner, steps)
            place = printable_path(areas.missing)
            return split_names(steps, done, f"the file system at {place} is not mounted any more")
        for count, step in enumerate(steps):
            try:
                _run_step(runner, step, deadline_s)
            except (OSError, FsError) as error:
                _finish_directories(runner, steps)
                return split_names(steps, count, os.strerror(error.errno or EIO))
    finally:
        directories.close()
    return None


def _run_step(runner: StepRunner, step: Step, deadline_s: float) -> None:
    while True:
        try:
            runner.run(step)
            return
        except OSError as error:
            if error.errno not in PASSING or time.monotonic() > deadline_s:
                raise
        time.sleep(PAUSE_S)


def _finish_directories(runner: StepRunner, steps: tuple[Step, ...]) -> None:
    """Set the attributes of directories though the plan is given up: some of them were unlocked."""
    for step in steps:
        if isinstance(step, SetDirectory):
            with suppress(OSError):  # the error that ends the plan is the one to report
                runner.run(step)
