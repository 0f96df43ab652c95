"""Answer a job with the stored result of an earlier run, without a worker."""

import logging
import os
from collections.abc import Collection, Sequence

from termite.engine.errors import (
    Conflict,
    FsError,
    HalfPublished,
    Reason,
    RemoteProtocolError,
    ResultRefused,
    Retryable,
)
from termite.engine.master.job import Job
from termite.engine.master.job_reports import NAMED_PLACES, report_half_published
from termite.engine.master.remote_runs.machine_questions import Wanted
from termite.engine.master.results import publish_contents
from termite.engine.master.reuse.result_cache import ResultCache
from termite.engine.master.reuse.stored_contents import StoredContents
from termite.engine.master.shared import Master
from termite.engine.model import Change, Command, Exit, MachineFacts, Phase
from termite.engine.recall.look_up.canonical_changes import rebased_changes
from termite.engine.recall.look_up.differences import MissCause
from termite.engine.recall.look_up.stored_rows import ResultRow
from termite.engine.tree.logic.times import Timing
from termite.engine.wire.protocol.foreign_text import printable

log = logging.getLogger(__name__)


async def recall_job(master: Master, cache: ResultCache, job: Job, command: Command, wanted: Wanted) -> Exit | None:
    """Publish a stored result for the job, and return the exit that the launcher gets.

    Return None if there is none, or if it cannot be published: then the command runs. Raise
    LauncherGone if the launcher closed the connection.
    """
    await job.stdin.hold_file()
    cache.identify(job, command, wanted.machine if wanted.questions else None)
    row = await _find(master, cache, job) if job.identity is not None else None
    if row is None:
        _count_miss(master, job)
        return None
    # The job is as one that runs at this moment. The journal keeps what comes after it.
    number = job.number = master.tree.number
    changes = rebased_changes(row.result.changes, master.tree.attrs, row.result.carried)
    try:
        await _publish(master, cache, job, row, changes, number)
    except HalfPublished as error:
        return await report_half_published(master, job, error)
    except (Conflict, FsError, RemoteProtocolError, ResultRefused, Retryable) as error:
        # Nothing was published. The run that follows meets the same obstacle, or none.
        obstacle = _obstacle(error)
        log.info("result-not-recalled job=%d detail=%r reason=%s", job.id, obstacle.detail, obstacle.reason)
        if job.output.has_shown:  # a run that prints something else ends the job for this reason
            job.failures.append(obstacle)
        job.output.drop()
        return None
    finally:
        job.number = None  # the journal may drop its changes, however slow the launcher is
    cache.note_use(job.weak, row)
    for counters in master.counters_of(job):
        counters.cached += 1
    exit = Exit(row.result.code)
    master.recorder.recalled(job, row.result, exit)
    await job.output.flush_large()
    job.output.release_nowait()
    await job.launcher.stop_reading()
    return exit


def _obstacle(error: Conflict | FsError | RemoteProtocolError | ResultRefused | Retryable) -> Retryable:
    """Return why a result could not be published. The detail does not repeat the reason."""
    match error:
        case Retryable():
            return error
        case ResultRefused():
            return Retryable(error.reason, ", ".join(map(printable, error.places[:NAMED_PLACES])))
        case FsError():
            return Retryable(Reason.NOT_PUBLISHED, os.strerror(error.errno))
    return Retryable(Reason.NOT_PUBLISHED, str(error))


def _count_miss(master: Master, job: Job) -> None:
    for counters in master.counters_of(job) if job.identity is not None else ():
        counters.misses[job.notes.miss] += 1


async def _find(master: Master, cache: ResultCache, job: Job) -> ResultRow | None:
    """Return the stored result that the job may get, or None with the reason in its notes."""
    row = await cache.find(job, master.tree, master.fact_reader, lambda: is_slot_idle(master))
    if row is None and await cache.twins.wait_for(job.weak, cache.source):
        row = await cache.find(job, master.tree, master.fact_reader)
    if row is None and await cache.bring(job, master.tree, master.fact_reader, lambda: _machines(master)):
        row = await cache.find(job, master.tree, master.fact_reader)
    if row is not None and _shows_owners(master, job):
        job.notes.miss = MissCause.OWNERS.value
        return None
    return row


def _shows_owners(master: Master, job: Job) -> bool:
    """Return whether the command may show owners of files, which no fingerprint has."""
    rule = job.verdict.rule if job.verdict else None
    is_mixed = master.tree.notes.is_mixed
    return rule is None and is_mixed and job.command is not None and master.depends_on_owners(job.command)


def _machines(master: Master) -> Collection[MachineFacts]:
    """Return the machines on which a command may run: those of the workers, or this one."""
    return {worker.machine for worker in master.pool.fleet.workers} or {master.machine}


def is_slot_idle(master: Master) -> bool:
    """Return whether a worker has a free slot, and nobody waits for one."""
    return not master.pool.waiting and any(
        lease.is_open and lease.running < lease.slots for lease in master.pool.leases
    )


async def _publish(
    master: Master, cache: ResultCache, job: Job, row: ResultRow, changes: Sequence[Change], number: int
) -> None:
    """Publish these changes of a result, and raise as `publish_contents` does.

    `number` is that of the journal at which the job has seen the tree.
    """
    result = row.result
    # Outputs get new times, in their order: as if the command had ended now.
    now_ns = master.tree.now_ns()
    timing = Timing(now_ns, result.started_ns, result.ended_ns, now_ns - result.ended_ns, number)
    carried = {output for output, _ in result.carried}
    kept_ns = [change.attr.mtime_ns for change in changes if change.path in carried and change.attr is not None]
    if any(map(timing.is_made_in_job, kept_ns)):  # it would get a new time
        raise Retryable(Reason.LOOK_FAILED, "a moved file is as old as the stored result")
    output = cache.store.output(row)
    if output is None:
        raise Retryable(Reason.LOOK_FAILED, "the output is gone")
    rule = job.verdict.rule if job.verdict else None
    if not (rule and rule.trusted) and await master.find_later_code(changes):
        raise ResultRefused(Reason.LATER_CODE, ())
    job.phase = Phase.FETCHING
    blobs = {sha256: digest for sha256, digest in result.blobs.items() if digest != result.output_blob}
    async with StoredContents(cache.store, blobs.values(), master.tree) as contents:
        for piece in output:
            job.output.hold(piece.fd, piece.content)
        await job.launcher.stop_reading()
        job.stdin.finish(result.stdin_offset, 0)
        if changes:
            await publish_contents(master, job, changes, contents, timing, Exit(result.code))
