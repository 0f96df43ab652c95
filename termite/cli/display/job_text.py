"""Say in words what the record of a job says: where it ran, why there, its times and its end."""

import math
import signal
import time
from collections.abc import Iterator

from termite.cli.amounts import duration_text, size_text
from termite.engine.decide.logic.rules import readable_regexp
from termite.engine.errors import words_of
from termite.engine.history.logic.job_record import (
    NOT_KNOWN,
    OUTPUT_BYTES,
    TEXT_CHARACTERS,
    Cause,
    FailedAttempt,
    JobRecord,
    MissDetail,
    Where,
    Why,
)
from termite.engine.history.logic.missing_edges import missing_edge
from termite.engine.model import How
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

_WHERE = {
    Where.HERE: "local",
    Where.CACHE: "cache",
    Where.ANSWERED: "nowhere: it does nothing",
    Where.NOWHERE: "nowhere",
    Where.UNDECIDED: "not decided yet",
}
_HOW = {
    How.DIRECT: "through termite",
    How.SHELL: "through termite-shell",
    How.PRELOAD: "through the preload library",
}
_WHY = {
    Why.UNDECIDED: "not decided yet",
    Why.NO_RULE: "no rule matches, so it goes to a worker",
    Why.SHORT: "it is known to be short, and a core was idle",
    Why.NO_OP: "it does nothing, so it succeeds at once",
    Why.CACHED: "its result was known",
    Why.CANCELLED: "its launcher ended before the job did",
    Why.SWITCHED: "the variable TERMITE_LOCAL decides",
}


def ran_on(job: JobRecord) -> str:
    """Return the worker on which a job ran last, or "" if it did not.

    One that was stopped there has no result, and counts as a job that ran nowhere.
    """
    was_there = job.where is Where.WORKER or (job.where is Where.NOWHERE and job.sent_s > 0)
    return job.worker if was_there else ""


def place_text(job: JobRecord) -> str:
    """Return where a job ran, such as `alpha:3` (the slot 3 of alpha) or `local`."""
    if worker := ran_on(job):
        return f"{worker}:{job.slot}" if job.slot != NOT_KNOWN else worker
    return _WHERE[job.where]


def place_word(job: JobRecord) -> str:
    """Return where a job ran, in one word or a worker with its slot: a cell of a table."""
    return place_text(job) if ran_on(job) else place_text(job).partition(":")[0]


def cause_text(cause: Cause) -> str:
    """Return why a job ran where it did, in one line."""
    match cause.kind:
        case Why.RULE:
            return f"rule {readable_regexp(cause.regexp)} ({cause.source})"
        case Why.TIE:
            return _with_detail(f"the command {words_of(cause.reason)}", cause.detail)
        case Why.FALL_BACK:
            return _with_detail(f"no worker's result was used: {words_of(cause.reason)}", cause.detail)
        case Why.CACHED:
            return _with_detail(_WHY[cause.kind], cause.detail)
        case Why.FORBIDDEN:
            return _with_detail(f"it could not be run: {words_of(cause.reason)}", cause.detail)
    return _WHY[cause.kind]


def attempt_text(attempt: FailedAttempt) -> str:
    """Return after which failed attempt a job ran again, in one line."""
    return _with_detail(f"after {attempt.worker or 'no worker'}: {words_of(attempt.reason)}", attempt.detail)


def cause_word(cause: Cause) -> str:
    """Return why a job ran where it did, in a few words that are equal for equal causes."""
    if cause.kind is Why.RULE:
        return f"rule {readable_regexp(cause.regexp)}"
    return cause.reason or cause.kind.value


def end_text(job: JobRecord) -> str:
    """Return how the command ended, such as `exit code 1` or `killed by SIGKILL`."""
    if job.timed_out:
        return "killed, because the time limit of its rule was over"
    if job.signal:
        return f"killed by {signal_name(job.signal)}"
    if job.exit_code == NOT_KNOWN:
        if job.home_s and job.where is Where.HERE:
            return "not known: the launcher became the command"
        return "not known" if job.home_s else "it has not ended"
    return f"exit code {job.exit_code}"


def end_word(job: JobRecord) -> str:
    """Return the exit code, the signal, or `-` if it is not known: a cell of a table."""
    if job.signal:
        return signal_name(job.signal)
    return "-" if job.exit_code == NOT_KNOWN else str(job.exit_code)


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL, or `signal 77` if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def whole_time_s(job: JobRecord, now_s: float = 0.0) -> float:
    """Return the seconds from the job's arrival to its end, or to `now_s` if it has not ended."""
    return max((job.home_s or now_s or job.queued_s) - job.queued_s, 0.0)


def slot_time_s(job: JobRecord, now_s: float = 0.0) -> float:
    """Return the seconds for which a job held a slot, or 0.0 if it never got one.

    The wait for the slot is no part of it: it says how busy the farm was, not how long the job is.
    A job whose result was known needs no slot, and its whole time counts.
    """
    if job.where is Where.CACHE:
        return whole_time_s(job, now_s)
    return max((job.home_s or now_s or job.sent_s) - job.sent_s, 0.0) if job.sent_s else 0.0


def begin_s(job: JobRecord) -> float:
    """Return when a job got its slot, or when it came if its result was known; else 0.0."""
    return job.sent_s or (job.queued_s if job.where is Where.CACHE else 0.0)


def run_time_s(job: JobRecord) -> float:
    """Return the seconds that the command ran on a worker, or 0.0 if they are not known."""
    return max(job.ended_s - job.started_s, 0.0) if job.started_s and job.ended_s else 0.0


def phases(job: JobRecord) -> list[tuple[str, float, float]]:
    """Return the phases of a job that are known: name, start and end in seconds since the epoch.

    They are `queued`, `sent`, `run` and `home`. Each begins where the one before ends. None ends
    after the job: the clock of a worker may be wrong in spite of its correction.
    """
    last_s = job.home_s or math.inf
    times = [("queued", job.queued_s), ("sent", job.sent_s), ("run", job.started_s), ("home", job.ended_s)]
    known = [(name, at_s) for name, at_s in times if at_s]
    ends = [at_s for _, at_s in known[1:]] + ([job.home_s] if job.home_s else [])
    latest = 0.0
    found = []
    for (name, start_s), end_s in zip(known, ends, strict=False):
        latest = min(max(latest, start_s), last_s)
        found.append((name, latest, min(max(end_s, latest), last_s)))
        latest = found[-1][2]
    return found


def job_lines(job: JobRecord, tree: str, now_s: float = 0.0) -> Iterator[str]:
    """Yield the lines that say everything about a job. All of them are printable.

    The times of a job that is not home end at `now_s`.
    """
    for name, text in _rows(job, tree, now_s):
        for at, line in enumerate(text.split("\n") if name == "command" else [text]):
            yield f"{name if not at else '':<10}{printable(line, LONGEST_LINE)}"


def _rows(job: JobRecord, tree: str, now_s: float) -> Iterator[tuple[str, str]]:
    yield "job", f"{job.id} of build {job.build}"
    yield "command", job.text
    if len(job.text) > TEXT_CHARACTERS:
        yield "", f"these are the first {TEXT_CHARACTERS} of {job.text_length} characters"
    yield "directory", job.cwd
    yield "came", f"{_HOW[job.how]}{f' of {job.tool}' if job.tool else ''}; its launcher was process {job.pid}"
    if job.plugin:
        yield "plugin", job.plugin
    is_in_slot = job.where is Where.HERE and job.slot != NOT_KNOWN
    yield "place", place_text(job) + (f", slot {job.slot}" if is_in_slot else "")
    yield "because", cause_text(job.cause)
    if job.cause.regexp and job.cause.kind is not Why.RULE:
        yield "rule", f"{readable_regexp(job.cause.regexp)} ({job.cause.source})"
    if job.miss:
        from termite.cli.display.miss_text import miss_text  # few jobs have one, and it imports much

        yield "no result", miss_text(job.miss, job.missed or MissDetail())
    yield "end", end_text(job)
    yield "when", _clock_times(job)
    if times := _times_text(job, now_s):
        yield "time", times
    yield from _use_rows(job)
    yield from _attempt_rows(job)
    yield from _names("wrote", job.files, job.file_count, tree)
    yield from _names("dropped", job.dropped, job.dropped_count, "")
    yield from _output(job)


def _use_rows(job: JobRecord) -> Iterator[tuple[str, str]]:
    """Yield what the job used. A failed attempt has traffic, wherever the command ran then."""
    has_ended = job.where is Where.WORKER and job.ended_s > 0
    if has_ended or job.user_s or job.system_s or job.peak_memory_bytes:
        yield (
            "used",
            f"{duration_text(job.user_s)} of user CPU, {duration_text(job.system_s)} of system CPU, "
            f"at most {size_text(job.peak_memory_bytes)} of memory",
        )
    if has_ended or job.sent_bytes or job.received_bytes or job.wire_requests or job.fuse_requests:
        yield (
            "traffic",
            f"{size_text(job.sent_bytes)} sent, {size_text(job.received_bytes)} received, "
            f"{job.wire_requests} requests on the wire, {job.fuse_requests} to the file system",
        )
    if job.trace_calls or job.trace_paths or job.trace_gaps:
        gaps = f"; it may lack paths: {', '.join(job.trace_gaps)}" if job.trace_gaps else ""
        yield "trace", f"{job.trace_calls} system calls, {job.trace_paths} paths{gaps}"


def _attempt_rows(job: JobRecord) -> Iterator[tuple[str, str]]:
    for attempt in job.attempts:
        at = f"{_time_of_day(attempt.at_s)}, " if attempt.at_s else ""
        yield "retried", f"{at}{attempt_text(attempt)}"
    if job.ran_again:
        yield "", "the command may have run more than once"
    for found in job.late_inputs:
        by = f" by job {found.job}" if found.job else ""
        yield "changed", f"{found.path} was {'written' if found.is_there else 'removed'}{by} while the command ran"
    if line := missing_edge(job):
        yield "missing", line


def _clock_times(job: JobRecord) -> str:
    """Return the clock times of everything that is known of a job, in this process's time zone.

    The date stands before the first time, and before each one of another day.
    """
    day, texts = "", []
    for word, at_s in (
        ("came", job.queued_s),
        ("sent", job.sent_s),
        ("started", job.started_s),
        ("ended", job.ended_s),
        ("home", job.home_s),
    ):
        if at_s:
            date = time.strftime("%Y-%m-%d ", time.localtime(at_s))
            texts.append(f"{word} {date if date != day else ''}{_time_of_day(at_s)}")
            day = date
    return ", ".join(texts) or "not known"


def clock_text(at_s: float) -> str:
    """Return a time as date and time of day, in the time zone of this process."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def _time_of_day(at_s: float) -> str:
    whole_s, ms = divmod(round(1000 * at_s), 1000)
    return f"{time.strftime('%H:%M:%S', time.localtime(whole_s))}.{ms:03d}"


def _times_text(job: JobRecord, now_s: float) -> str:
    names = _PHASES if job.started_s else {**_PHASES, "sent": "sent and running"}
    times = [f"{names[name]} {duration_text(end - start)}" for name, start, end in phases(job)]
    if job.home_s or not now_s:
        return f"{duration_text(whole_time_s(job))}: {', '.join(times)}" if times else ""
    # A master learns only at the end of a command when it has started on its worker.
    name, since_s = next(
        (name, at_s)
        for name, at_s in (("bringing home", job.ended_s), ("sent and running", job.sent_s), ("queued", job.queued_s))
        if at_s or name == "queued"
    )
    times.append(f"{name} for {duration_text(max(now_s - since_s, 0.0))}")
    return f"{duration_text(whole_time_s(job, now_s))} so far: {', '.join(times)}"


_PHASES = {"queued": "queued", "sent": "sending", "run": "running", "home": "bringing home"}


def _names(row: str, names: tuple[bytes, ...], count: int, tree: str) -> Iterator[tuple[str, str]]:
    for at, name in enumerate(names):
        shown = name.decode("utf-8", "surrogateescape")
        yield "" if at else row, f"{tree}/{shown}" if tree else shown
    if count > len(names):
        yield "" if names else row, f"and {count - len(names)} more"


def _output(job: JobRecord) -> Iterator[tuple[str, str]]:
    if not job.is_output_kept:
        yield "output", f"{size_text(job.output_bytes)}, not kept"
    elif job.output:
        # Masked credentials make a whole output shorter, too.
        is_cut = job.output_bytes > OUTPUT_BYTES
        whole = size_text(job.output_bytes)
        yield "output", f"the last {size_text(len(job.output))} of {whole}:" if is_cut else f"{whole}:"
        for line in job.output.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"):
            yield "", f"| {line}"


def _with_detail(words: str, detail: str) -> str:
    return f"{words} ({detail})" if detail else words
