"""Count how a job has ended, and notify its user of what the exit code does not say."""

import logging
import os
import time
from collections.abc import Iterable, Sequence

from termite.engine.decide.command_memory import key_of
from termite.engine.decide.outside_writes import WritesOutside
from termite.engine.decide.refused_commands import Refusal
from termite.engine.errors import ExitCode, HalfPublished, Reason
from termite.engine.fleet.lease import Lease
from termite.engine.master.job import Job
from termite.engine.master.shared import Master
from termite.engine.master.user_notices.notices import NoticeKind
from termite.engine.model import Exit
from termite.engine.paths import is_within
from termite.engine.status.report import PathEvent
from termite.engine.tree.publishing.publication import Ticket
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable
from termite.engine.wire.protocol.messages import Ran

NAMED_PLACES = 3  # as many as a person reads in one line

log = logging.getLogger(__name__)


async def report_result(master: Master, job: Job, ran: Ran, conflicts: tuple[bytes, ...]) -> None:
    """Count the job, and notify the user of conflicts, dropped files and an exceeded time limit."""
    for counters in master.counters_of(job):
        counters.remote += 1
        counters.fuse_requests += ran.usage.requests
        if conflicts:
            counters.conflicts += len(conflicts)
            counters.count_paths(PathEvent.WRITTEN_TWICE, absolute(conflicts))
    if job.notes.late_inputs and (line := master.recorder.missing_edge_of(job)):
        for counters in master.counters_of(job):
            counters.count_missing_edge(printable(line, LONGEST_LINE))
    if lost := job.stdin.finish(ran.stdin_offset, ran.stdin_taken):
        log.info("job-stdin-left job=%d bytes=%d", job.id, lost)
    for path in conflicts:
        await job.launcher.notice(
            f"termite: 2 jobs wrote {_absolute(path)} at the same time; keeping the version of this one"
        )
    if ran.dropped:
        await report_dropped(master, job, ran.dropped)
    if ran.timed_out:
        await job.launcher.notice("termite: killed the command, because it exceeded the time limit of its rule")


async def report_half_published(master: Master, job: Job, error: HalfPublished) -> Exit:
    """Count the job, notify the user of what was written and what was not, and return the exit."""
    for counters in master.counters_of(job):
        counters.failed += 1
    master.recorder.half_published(job, error)
    for line in error.lines:
        await job.launcher.notice(f"termite: {line}")
    return Exit(ExitCode.LOST)


async def report_happened(master: Master, job: Job, ticket: Ticket, error: Exception) -> Exit:
    """Return the exit of a job that met a bug of ours after its plan was written.

    It is the command's own if all results are written. Otherwise nobody knows what is missing.
    """
    if ticket.is_complete:
        master.recorder.published(job)
        return Exit(ticket.end.code, ticket.end.signal)
    line = f"the results of this command may not all be written, and it cannot run again ({error!r})"
    return await report_half_published(master, job, HalfPublished((printable(line),)))


def count_attempt(master: Master, job: Job, lease: Lease) -> None:
    """Count a further attempt of a job, after one that failed. `lease` gets it.

    A command that runs again because an input has changed is counted by that.
    """
    if job.notes.attempts[-1].reason == Reason.INPUT_CHANGED:
        return
    is_other = job.notes.attempts[-1].worker != lease.worker
    for counters in master.counters_of(job):
        if is_other:
            counters.moved += 1
        else:
            counters.repeated += 1


def outside_writes(master: Master, job: Job, dropped: Sequence[bytes]) -> WritesOutside:
    """Return the writes of a job outside the tree. `dropped` also has sockets in the tree."""
    assert job.command is not None, "it was parsed"
    sockets = set(_sockets(master, dropped))
    return master.outside.sort([path for path in dropped if path not in sockets], job.command)


def record_refusal(master: Master, job: Job, reason: Reason, places: Sequence[str]) -> None:
    """Record why the job's result was refused, so that the same command runs here the next time."""
    command = job.command
    assert command is not None, "it was parsed"
    if reason is Reason.WRITES_OUTSIDE:
        job.place = master.outside.add(command, places)
    place = job.place
    if reason is Reason.LATER_CODE:
        place = printable(places[0]) if places else ""
        for counters in master.counters_of(job):
            counters.count_paths(PathEvent.LATER_CODE, map(printable, places))
    master.refused.record(job.key or key_of(command), Refusal(reason, place), time.time())
    if job.key:
        master.short.forget(job.key)


def count_local(master: Master, job: Job) -> None:
    """Count a command that runs here, and the place outside the tree that is to blame."""
    is_private = job.verdict is not None and job.verdict.tie is Reason.NAMES_PRIVATE
    for counters in master.counters_of(job):
        counters.count_local(job.verdict)
        if job.place and job.command is not None:
            counters.count_place(counters.private if is_private else counters.outside, job.place)
    if job.place and job.command is not None and not is_private:
        master.outside.count(job.command, job.place)


async def report_dropped(master: Master, job: Job, dropped: tuple[bytes, ...]) -> None:
    """Count the files that were not published, and notify the user of new ones.

    These are files outside the tree that may be dropped, and sockets in the tree. A command that
    has exceeded its time limit may have left others.
    """
    writes = outside_writes(master, job, dropped)
    sockets = _sockets(master, dropped)
    for counters in master.counters_of(job):
        counters.dropped_writes += writes.dropped.total() + len(writes.lost)
        counters.sockets_left += len(sockets)
        counters.count_paths(PathEvent.DROPPED, writes.lost)
        counters.count_paths(PathEvent.SOCKET_LEFT, absolute(sockets))
    for place in writes.dropped:
        if master.notices.select_new(NoticeKind.DROPPED_PLACE, [os.fsencode(place)]):
            await job.launcher.notice(f"termite: 1 command wrote to {printable(place)}, outside the tree: dropped")
    lost = [os.fsencode(path)[1:] for path in writes.lost]
    for paths, kind, text in (
        (lost, NoticeKind.DROPPED, "wrote files outside the tree, which were dropped"),
        (sockets, NoticeKind.SOCKET_LEFT, "left a socket on its worker"),
    ):
        if named := master.notices.select_new(kind, paths):
            names = ", ".join(absolute(named))
            rest = f" and {len(paths) - len(named)} more" if len(paths) > len(named) else ""
            is_full = any(master.notices.is_place_full(kind, path) for path in named)
            last = "; others near it are only counted" if is_full else ""
            await job.launcher.notice(
                f"termite: 1 command {text}: {names}{rest} (add a Local rule to run it here{last})"
            )


def _sockets(master: Master, dropped: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the dropped paths in the tree. Only sockets in it are dropped."""
    return tuple(path for path in dropped if path != master.writable_root and is_within(path, master.writable_root))


def absolute(paths: Iterable[bytes]) -> tuple[str, ...]:
    """Return paths of the tree as the user writes them, safe to print."""
    return tuple(map(_absolute, paths))


def _absolute(path: bytes) -> str:
    """Return a path of the tree as the user writes it, safe to print."""
    return "/" + printable(os.fsdecode(path))
