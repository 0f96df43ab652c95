"""Clear a staging directory: finish the plans of masters that have ended, and remove all else.

The next master of the tree does this before it serves, and the sweep after killed daemons does it.
The rules for a plan are those of `redo`. All functions block.
"""

import logging
import os
from contextlib import ExitStack, suppress
from errno import ENOENT
from pathlib import Path

from termite.engine import look_calls
from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.redo_plan import MakeDirectory, Outcome, PlaceEntry, Record, Step
from termite.engine.tree.logic.visibility import STAGING
from termite.engine.tree.publishing.areas import RECORD, remove_recorded
from termite.engine.tree.publishing.change_check import find_changed
from termite.engine.tree.publishing.kept_plans.discard_note import NOTE, DiscardNote
from termite.engine.tree.publishing.kept_plans.plan_file import PREFIX, FoundPlan, is_alive, lock, plan_names
from termite.engine.tree.publishing.redo import (
    SHOWN_NAMES,
    HalfDone,
    finish,
    open_own_plan,
    printable_path,
    split_names,
    steps_done,
)
from termite.engine.tree.publishing.staging import CLOCK, IGNORE, open_staging
from termite.engine.tree.publishing.steps import near_name
from termite.engine.tree.publishing.target_directories import TargetDirectories
from termite.engine.tree.tree_disk import PlanDisk, remove_beneath

OWN_FILES = (CLOCK, IGNORE)  # of the staging directory: they belong to no plan

log = logging.getLogger(__name__)


def clear_staging(root: Path, staging: int, own_label: bytes, note: DiscardNote) -> frozenset[bytes]:
    """Finish the plans of masters that have ended, and remove everything else that they have left.

    A plan is discarded if anything that it names has changed since, or cannot be looked at. Then
    `note` gets lines that name what is missing. The plan and the staged files of a master that
    lives are not touched. `own_label` is b"" for a process that has no plan. Return the plan files
    that stay, other than our own. Raise OSError.
    """
    # Entries are listed before plans. So an entry whose plan is not found has no living owner.
    entries = [entry for entry in map(os.fsencode, look_calls.listdir(staging)) if entry not in (*OWN_FILES, NOTE)]
    kept = {own_label} - {b""}
    files, locked = set(), set[bytes]()
    with ExitStack() as locks:  # kept until all is removed: another process must not use a plan that goes
        for name in plan_names(staging):
            label = name.removeprefix(PREFIX)
            try:
                fd = open_own_plan(staging, name) if label != own_label else -1
            except OSError as error:  # its launcher must not take it for absent
                log.warning("plan-unreadable plan=%r reason=%s", name, error)
                kept.add(label)
                continue
            if fd < 0:
                continue
            locks.callback(os.close, fd)
            if not lock(fd, wait=False):
                kept.add(label)
                locked.add(name)
            elif look_calls.fstat(fd).st_nlink and _finish_orphan(name, fd, root, staging, note):
                files.add(name)
        for entry in entries:
            label = entry.removeprefix(PREFIX) if entry.startswith(PREFIX) else entry.partition(b".")[0]
            if label not in kept and entry not in files:
                if RECORD in entry:
                    _remove_recorded_area(root, staging, entry)
                _remove_entry(staging, entry)
    note.await_plans(locked)
    note.read()
    return frozenset(files | {PREFIX + label for label in kept - {own_label}})


def _remove_entry(staging: int, entry: bytes) -> None:
    try:
        remove_beneath(staging, entry)
    except OSError as error:  # nobody needs it any more, and the master must begin
        log.warning("staging-not-emptied name=%r reason=%s", entry, error)


def _remove_recorded_area(root: Path, staging: int, record: bytes) -> None:
    try:
        area = look_calls.readlink(record, dir_fd=staging)
    except FileNotFoundError:  # it went with its plan, which was finished a moment ago
        return
    except OSError:  # no link: no master has made it
        return
    disk = PlanDisk(os.fsencode(root))
    try:
        remove_recorded(disk, area)
    except FsError:  # no path of an area
        log.warning("staging-not-emptied name=%r reason=%s", record, "its record names no area")
    finally:
        disk.close()


def clear_abandoned_tree(top: int) -> bool:
    """Finish the plans in a tree whose masters have ended, and remove its staging directory.

    `top` is the open top of the tree. Do nothing if the staging directory is another user's. Return
    whether nothing is left: a launcher may still ask for its plan. A note of lost results stays for
    the next master. Raise OSError.
    """
    try:
        staging = open_staging(top, is_made=False)
    except FileNotFoundError:
        return True
    try:
        if look_calls.fstat(staging).st_uid != os.geteuid():
            return True
        note = DiscardNote(staging)
        if clear_staging(Path(look_calls.readlink(f"/proc/self/fd/{top}")), staging, b"", note):
            return False
        if note.is_left():
            return True
        for entry in OWN_FILES:
            with suppress(FileNotFoundError):  # an earlier version had only one of them
                disk_calls.unlink(entry, dir_fd=staging)
    finally:
        os.close(staging)
    try:
        disk_calls.rmdir(STAGING, dir_fd=top)
    except OSError as error:
        return error.errno == ENOENT
    return True


def _finish_orphan(name: bytes, fd: int, root: Path, staging: int, note: DiscardNote) -> bool:
    """Finish or discard the plan of an ended master. Return whether a launcher may ask for it."""
    try:
        found = FoundPlan(name, fd)
    except (RemoteProtocolError, FsError) as error:
        log.warning("plan-unreadable plan=%r reason=%s", name, error)
        return False
    record = found.record
    if record is None:
        return False
    if record.outcome is Outcome.OPEN:
        trouble = _complete(found, record, root, staging)
        if trouble is None:
            log.info("plan-finished plan=%r steps=%d", name, len(record.plan.steps))
        else:
            if found.is_where_it_was_written:
                _remove_near_copies(record.plan.steps, root)
            names = b" ".join(trouble.left[:SHOWN_NAMES])
            log.warning("plan-discarded plan=%r paths=%r reason=%s", name, names, trouble.reason)
            note.add(trouble.later_lines())
    return any(is_alive(end.pid) for end in (record.plan.job, *record.plan.untold))


def _complete(found: FoundPlan, record: Record, root: Path, staging: int) -> HalfDone | None:
    """Carry out an open plan, unless its places have changed. Return what is missing."""
    steps = record.plan.steps
    if not found.is_of_this_boot:
        return split_names(steps, 0, "the machine was started again")
    if not found.is_where_it_was_written:
        return split_names(steps, 0, "the plan is a copy, or came with an archive")
    try:
        changed = find_changed(record, root, staging, found.written_ns)
    except OSError as error:  # unknown counts as changed; no master could begin in this tree otherwise
        trouble = split_names(steps, 0, f"{printable_path(error.filename or b'')}: {error.strerror}")
        done = 0
    else:
        if changed is None:
            return finish(found, root, staging)
        done = steps_done(steps, staging)
        trouble = split_names(steps, done, f"{printable_path(changed)} has changed since")
    found.end(Outcome.FAILED, done)
    return trouble


def _remove_near_copies(steps: tuple[Step, ...], root: Path) -> None:
    """Remove the copies that a discarded plan has left beside places on other file systems."""
    disk = PlanDisk(os.fsencode(root))
    directories = TargetDirectories(disk)
    try:
        for step in steps:
            if isinstance(step, PlaceEntry | MakeDirectory):
                with suppress(OSError):  # its directory is gone, or cannot be written
                    parent, _ = directories.parent(step.path)
                    remove_beneath(parent, near_name(step.staged))
    finally:
        directories.close()
        disk.close()
