"""Make the record of a job from its notes, finished or not."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.command_mask import hidden_words
from termite.engine.decide.logic.switches import is_local_forbidden
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import NOT_KNOWN, Cause, JobRecord, Where, Why
from termite.engine.history.logic.recorded_text import (
    recorded_line,
    recorded_names,
    recorded_output,
    recorded_text,
)
from termite.engine.master.job import Job
from termite.engine.master.recording.job_notes import JobNotes
from termite.engine.model import Change, Rule, TraceGap, Usage

# With these, the worker has not started the command.
NOT_STARTED = frozenset({Reason.NETWORK_DENIED.value, Reason.EXEC_FAILED.value, Reason.TOO_LARGE.value})
NO_USAGE = Usage()
_PLAIN_CAUSES = {kind: Cause(kind) for kind in Why}
MADE_HERE = "its launcher runs the command: the master has ended"


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """The settings of all records of a master.

    `writable_root` is the tree as a path below the root. `env_exclude` are patterns of variables
    whose values no record has. Without `keeps_output`, no record has any output.
    """

    writable_root: bytes
    env_exclude: tuple[str, ...] = ()
    keeps_output: bool = True


def record_of(job: Job, settings: RecordSettings) -> JobRecord:
    """Return the record of a job as it is now."""
    notes, invocation = job.notes, job.request.invocation
    command, rule = job.command, job.verdict.rule if job.verdict else None
    hidden = environment_of(command or invocation).hidden(settings.env_exclude) if settings.env_exclude else ()
    shown, length = _text(job, hidden)
    files, file_count = files_below(settings.writable_root, notes.changes) if notes.changes else ((), 0)
    is_kept = settings.keeps_output and (rule is None or rule.log)
    output = job.output.tail if notes.where is not Where.HERE else None
    return JobRecord(
        **_times_and_end(notes),
        id=job.id,
        build=notes.build.id if notes.build else 0,
        text=shown,
        cwd=recorded_line(command.cwd if command else invocation.cwd),
        text_length=length,
        how=invocation.how,
        tool=recorded_line(invocation.tool),
        plugin=job.plugin,
        where=notes.where,
        cause=_cause(job, rule, hidden),
        worker=notes.worker,
        slot=notes.slot,
        sent_bytes=notes.traffic[0],
        received_bytes=notes.traffic[1],
        wire_requests=notes.traffic[2],
        files=files,
        file_count=file_count,
        dropped=recorded_names([b"/" + path for path in notes.dropped]) if notes.dropped else (),
        dropped_count=len(notes.dropped),
        attempts=notes.attempts,
        ran_again=bool(notes.attempts) and _has_run_again(job),
        output=recorded_output(output.content, hidden) if output and output.size and is_kept else b"",
        output_bytes=output.size if output else 0,
        is_output_kept=is_kept,
        pid=job.launcher.pid,
        **_trace(notes),
    )


def _text(job: Job, hidden: Sequence[str]) -> tuple[str, int]:
    """Return the recorded text of a command, and the length of the whole text.

    The text is made once, when the command is parsed.
    """
    command, argv = job.command, job.request.invocation.argv
    if command is None:
        text = " ".join(argv)
        return recorded_text(text, (*hidden_words(text, argv), *hidden)), len(text)
    text, notes = command.text, job.notes
    if not notes.text:
        notes.text = recorded_text(text, (*hidden_words(text, command.argv), *hidden))
    return notes.text, len(text)


def bare_record_of(job: Job) -> JobRecord:
    """Return what is known for certain of a job whose whole record cannot be made."""
    notes = job.notes
    return JobRecord(
        **_times_and_end(JobNotes(queued_s=notes.queued_s, sent_s=notes.sent_s, home_s=notes.home_s)),
        id=job.id,
        build=notes.build.id if notes.build else 0,
        text=notes.text,
        cwd="",
        where=notes.where,
        worker=notes.worker,
        slot=notes.slot,
    )


def _times_and_end(notes: JobNotes) -> dict[str, Any]:
    """Return the fields that say when a job did what, how it ended, and what it used."""
    exit, usage = notes.exit, notes.usage or NO_USAGE
    return {
        "queued_s": notes.queued_s,
        "sent_s": notes.sent_s,
        "started_s": notes.started_s,
        "ended_s": notes.ended_s,
        "home_s": notes.home_s,
        "exit_code": NOT_KNOWN if exit is None or exit.signal else exit.code,
        "signal": exit.signal if exit else 0,
        "timed_out": notes.timed_out,
        "user_s": usage.user_s,
        "system_s": usage.system_s,
        "peak_memory_bytes": usage.peak_memory_bytes,
        "fuse_requests": usage.requests,
    }


def _trace(notes: JobNotes) -> dict[str, Any]:
    """Return the fields that only traced jobs have, and why no stored result was used."""
    found: dict[str, Any] = {"late_inputs": notes.late_inputs} if notes.late_inputs else {}
    if notes.miss:
        found |= {"miss": notes.miss, "missed": notes.missed}
    if (trace := notes.trace) is not None:
        gaps = TraceGap(trace.gaps).words if trace.gaps else ()
        found |= {"trace_calls": trace.calls, "trace_paths": trace.count, "trace_gaps": gaps}
    return found


def _has_run_again(job: Job) -> bool:
    is_last = job.notes.where in (Where.WORKER, Where.HERE)
    may_have_run = [attempt.reason not in NOT_STARTED for attempt in job.notes.attempts]
    return any(may_have_run if is_last else may_have_run[:-1])


def _cause(job: Job, rule: Rule | None, hidden: Sequence[str]) -> Cause:
    kind, reason, detail = _kind(job, rule)
    if rule is None and reason is None and not detail:
        return _PLAIN_CAUSES[kind]
    regexp, source = (recorded_line(rule.regexp), recorded_line(rule.source)) if rule else ("", "")
    shown = recorded_text(detail, hidden) if detail else ""  # an error may have words of the command
    return Cause(kind, reason.value if reason else "", shown, regexp, source)


def _kind(job: Job, rule: Rule | None) -> tuple[Why, Reason | None, str]:
    notes, verdict = job.notes, job.verdict
    if notes.is_cancelled:
        return Why.CANCELLED, None, "" if job.launcher.gone else MADE_HERE
    if notes.is_forbidden:
        return Why.FORBIDDEN, notes.reason, notes.detail
    if notes.reason is not None:
        return Why.FALL_BACK, notes.reason, notes.detail
    if notes.where is Where.CACHE:
        return Why.CACHED, None, notes.recalled
    if notes.where is Where.ANSWERED:
        return Why.NO_OP, None, ""
    if notes.is_short:
        return Why.SHORT, None, ""
    if verdict is not None and verdict.tie is not None:
        return Why.TIE, verdict.tie, job.place or verdict.program
    if rule is not None:
        return Why.RULE, None, ""
    if verdict is None:
        return Why.UNDECIDED, None, ""
    is_never = is_local_forbidden(job.request.invocation.env)
    return (Why.SWITCHED if is_never else Why.NO_RULE), None, ""


def files_below(tree: bytes, changes: Sequence[Change]) -> tuple[tuple[bytes, ...], int]:
    """Return the first files that were written below the tree, and how many there are."""
    top = tree + b"/" if tree else b""
    written = [
        change.path[len(top) :]
        for change in changes
        if change.attr is not None and not stat.S_ISDIR(change.attr.mode) and change.path.startswith(top)
    ]
    return recorded_names(written), len(written)
