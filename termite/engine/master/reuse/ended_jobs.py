"""Say what is stored of a job whose results are published, and why perhaps nothing is."""

import logging
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from termite.engine.master.job import Job
from termite.engine.master.reuse.result_cache import ResultCache
from termite.engine.master.reuse.run_observer import ObservedRun
from termite.engine.master.shared import Master
from termite.engine.model import Change, MachineFacts
from termite.engine.recall.ended_runs import EndedRun
from termite.engine.recall.known.known_table import NotKnown
from termite.engine.recall.logic.dependencies import Obstacle
from termite.engine.recall.look_up.clocks import find_clock
from termite.engine.recall.look_up.stored_rows import OutputPiece, RecordedResult
from termite.engine.recall.shared_store.sharing_rights import find_unshared
from termite.engine.wire.protocol.messages import Ran


class EndedJobRun(NamedTuple):
    """A run of a job whose results are published, and the machine of its worker."""

    ran: Ran
    observed: ObservedRun
    machine: MachineFacts


MOST_BYTES = 1 << 30  # of all files of one result

log = logging.getLogger(__name__)


def keep_ended(master: Master, cache: ResultCache, job: Job, ended: EndedJobRun) -> None:
    """Let the cache keep a job that has ended now, whose results are published (`ended_run`)."""
    try:
        run = ended_run(job, ended.ran, ended.observed, master.root, time.time())
        is_of_stdin = bool(job.stdin.held)  # nobody knows the path of that file, and who may read it
        if cache.may_send and not run.obstacle and not is_of_stdin and _may_be_shared(master, run):
            run = replace(run, shared_from=ended.machine)
        cache.keep(run)
    except Exception:  # around one result, which is not stored: its job has ended well
        log.exception("result-cache-failed step=%s", "keep")


def _may_be_shared(master: Master, run: EndedRun) -> bool:
    """Return whether everything that a run has read and made may leave this machine."""
    seen = run.observation
    if seen is None:
        return False
    path_set, changes, tree = seen.row.path_set, run.result.changes, master.tree
    unshared = find_unshared(path_set, seen.states, changes, master.writable_root, tree.is_public)
    if unshared is not None:
        log.debug("result-not-shared path=%r reason=private", unshared)
    return unshared is None


def ended_run(job: Job, ran: Ran, observed: ObservedRun, root: str, at_s: float) -> EndedRun:
    """Return what the cache keeps of a job that has ended.

    Call this when its results are published, and before its output is forgotten. `root` is the
    writable root, and `at_s` the present time in seconds since 1970. Contents that are not in
    memory are taken from the user's tree.
    """
    assert job.identity is not None, "only such a job is observed"
    obstacle, detail = _obstacle(job, ran, observed)
    is_stored = not obstacle
    carried = observed.dependencies.carried if is_stored and observed.dependencies is not None else ()
    pieces = job.output.kept.pieces if job.output.kept is not None else ()
    result = RecordedResult(
        changes=tuple(observed.changes) if is_stored else (),
        output=_joined(pieces) if is_stored else (),
        started_ns=ran.started_ns,
        ended_ns=ran.ended_ns,
        usage=ran.usage,
        job=f"job {job.id} in {root}".encode(errors="backslashreplace").decode(),  # the name may be no UTF-8
        tools=tuple(observed.tools),
        at_s=at_s,
        carried=carried,
        stdin_offset=ran.stdin_offset,
    )
    contents = dict(_contents(observed.changes, ran)) if is_stored else {}
    return EndedRun(
        job.identity, job.weak, observed.observation, observed.tools, result, contents, obstacle, detail, observed.known
    )


def _obstacle(job: Job, ran: Ran, observed: ObservedRun) -> tuple[str, bytes]:
    """Return why nothing is stored and what is to blame, or "" and b""."""
    if ran.exit.code or ran.exit.signal or ran.exec_errno or ran.timed_out:
        return Obstacle.EXIT, b"%d" % ran.exit.code
    if ran.dropped:
        return Obstacle.DROPPED, b"/" + ran.dropped[0]
    if observed.obstacle is not None:
        return observed.obstacle, observed.detail
    if job.has_met_others:
        return Obstacle.CONFLICT, b""
    assert job.identity is not None and observed.observation is not None, "there is no obstacle"
    if isinstance(observed.known, NotKnown) and observed.known.clock:
        return Obstacle.CLOCK, b"/" + observed.known.clock
    called = observed.observation.dependencies.called
    if clock := find_clock(job.identity.argv, (*observed.tools, *called)):
        return Obstacle.CLOCK, b"/" + clock
    size = sum(change.attr.size for change in observed.changes if change.attr is not None and change.content)
    if size > MOST_BYTES or job.output.kept is None or job.output.kept.is_too_long:
        return Obstacle.SIZE, b""
    return "", b""


def _contents(changes: Iterable[Change], ran: Ran) -> Iterable[tuple[bytes, bytes | Path]]:
    for change in changes:
        if (digest := _digest_of(change)) is not None:
            yield digest, ran.inline.get(digest) or Path("/" + os.fsdecode(change.path))


def _digest_of(change: Change) -> bytes | None:
    attr = change.attr
    if attr is None or attr.digest is None or not change.content or not stat.S_ISREG(attr.mode):
        return None
    return attr.digest.sha256


def _joined(pieces: Iterable[tuple[int, bytes]]) -> tuple[OutputPiece, ...]:
    """Return the output with neighbouring pieces of one stream joined."""
    joined: list[tuple[int, bytearray]] = []
    for fd, content in pieces:
        if joined and joined[-1][0] == fd:
            joined[-1][1].extend(content)
        else:
            joined.append((fd, bytearray(content)))
    return tuple(OutputPiece(fd, bytes(content)) for fd, content in joined)
