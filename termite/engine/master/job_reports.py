"""Count how a job has ended, and notify its user of what the exit code does not say."""

import logging
import os
from collections.abc import Iterable

from termite.engine.errors import ExitCode, HalfPublished
from termite.engine.master.job import Job
from termite.engine.master.shared import Master
from termite.engine.model import Exit
from termite.engine.paths import is_within, tree_path
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.messages import Ran

log = logging.getLogger(__name__)


async def report_result(master: Master, job: Job, ran: Ran, conflicts: tuple[bytes, ...]) -> None:
    """Count the job, and notify the user of conflicts, dropped files and an exceeded time limit."""
    counters = master.counters
    counters.remote += 1
    counters.fuse_requests += ran.usage.requests
    counters.conflicts += len(conflicts)
    if lost := job.stdin.finish(ran.stdin_offset, ran.stdin_taken):
        log.info("job-stdin-left job=%d bytes=%d", job.id, lost)
    counters.count_paths("written by two jobs at once", absolute(conflicts))
    for path in conflicts:
        await job.launcher.notice(
            f"termite: two jobs wrote {_absolute(path)} at the same time; keeping the version of this job"
        )
    if ran.dropped:
        await report_dropped(master, job, ran.dropped)
    if ran.timed_out:
        await job.launcher.notice("termite: killed the command, because it exceeded the time limit of its rule")


async def report_half_published(master: Master, job: Job, error: HalfPublished) -> Exit:
    """Count the job, notify the user of what was written and what was not, and return the exit."""
    master.counters.failed += 1
    for line in error.lines:
        await job.launcher.notice(f"termite: {line}")
    return Exit(ExitCode.LOST)


async def report_dropped(master: Master, job: Job, dropped: tuple[bytes, ...]) -> None:
    """Count the files that were not published, and notify the user of new ones.

    These are files outside the tree, and sockets in the tree.
    """
    root = tree_path(master.config.socket.parent)
    inside = {path for path in dropped if path != root and is_within(path, root)}
    sockets = tuple(path for path in dropped if path in inside)
    outside = tuple(path for path in dropped if path not in inside)
    counters = master.counters
    counters.dropped_writes += len(outside)
    counters.sockets_left += len(sockets)
    counters.count_paths("written outside the tree, dropped", absolute(outside))
    counters.count_paths("socket, stayed on its worker", absolute(sockets))
    for paths, kind in (
        (outside, "dropped files outside the tree"),
        (sockets, "a socket stays on its worker"),
    ):
        if named := master.notices.select_new(kind, paths):
            names = ", ".join(absolute(named))
            rest = f" and {len(paths) - len(named)} more" if len(paths) > len(named) else ""
            is_full = any(master.notices.is_place_full(kind, path) for path in named)
            last = "; others near it are only counted" if is_full else ""
            await job.launcher.notice(
                f"termite: {kind}: {names}{rest} (add a Local rule to run the command here{last})"
            )


def absolute(paths: Iterable[bytes]) -> tuple[str, ...]:
    """Return paths of the tree as the user writes them, safe to print."""
    return tuple(map(_absolute, paths))


def _absolute(path: bytes) -> str:
    """Return a path of the tree as the user writes it, safe to print."""
    return "/" + printable(os.fsdecode(path))
