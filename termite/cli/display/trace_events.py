"""Write a build as a trace for Perfetto (ui.perfetto.dev) and Chrome (about:tracing).

The format is the JSON of Chrome's trace events: complete events (`X`), counters (`C`) and names
(`M`). Times are microseconds since the start of the build.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from termite.cli.display.build_figures import CountStep, running_steps, slot_tracks, waiting_steps
from termite.cli.display.build_text import build_end_text
from termite.cli.display.job_text import begin_s, cause_text, end_text, phases, ran_on
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where
from termite.engine.wire.protocol.foreign_text import printable

TraceEvent = dict[str, Any]

_BUILD = 1  # the process number of what concerns the whole build; places follow
_TOOL = 1  # the thread number of the build tool; slots follow, because 0 is the idle thread
_LONGEST_NAME = 80
_PHASE_NAMES = {"sent": "send", "run": "run", "home": "bring home"}


def trace_object(build: BuildRecord, jobs: Sequence[JobRecord]) -> dict[str, Any]:
    """Return a build as an object that json can write.

    Each worker is a process, each slot a thread of it. A job is one event with its phases inside.
    Counters show the jobs that wait and run, the cores in use, and the bytes so far.
    """
    start_s = min([build.started_s, *(job.queued_s for job in jobs if job.queued_s)])
    events = [*_name("process", _BUILD, 0, "build"), *_build_events(build, jobs, start_s)]
    events += _counters(jobs, start_s)
    events += _tracks(jobs, start_s)
    other = {"tree": printable(build.tree), "command": printable(build.text), "termite": build.version}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def _build_events(build: BuildRecord, jobs: Sequence[JobRecord], start_s: float) -> Iterator[TraceEvent]:
    yield from _name("thread", _BUILD, _TOOL, "build tool")
    end_s = max([build.ended_s, *(job.home_s for job in jobs), build.started_s])
    arguments: dict[str, object] = {"build": build.id, "end": build_end_text(build), "jobs": len(jobs)}
    yield _event(printable(build.text) or "commands", _BUILD, _TOOL, (build.started_s, end_s), start_s, arguments)


_PLACES = {Where.CACHE: "known results"}


def _tracks(jobs: Sequence[JobRecord], start_s: float) -> Iterator[TraceEvent]:
    processes: dict[str, int] = {}
    for thread, (name, track) in enumerate(slot_tracks(jobs), _TOOL + 1):
        first = track[0]
        place = ran_on(first) or _PLACES.get(first.where, "this machine")
        if place not in processes:
            processes[place] = _BUILD + 1 + len(processes)
            yield from _name("process", processes[place], 0, place)
        yield from _name("thread", processes[place], thread, name)
        for job in track:
            yield from _job_events(job, processes[place], thread, start_s)


def _job_events(job: JobRecord, process: int, thread: int, start_s: float) -> Iterator[TraceEvent]:
    arguments: dict[str, object] = {
        "job": job.id,
        "command": printable(job.text),
        "directory": printable(job.cwd),
        "because": printable(cause_text(job.cause)),
        "end": end_text(job),
        "queued (s)": round(max(job.sent_s - job.queued_s, 0.0), 6),
        "CPU (s)": round(job.user_s + job.system_s, 6),
        "memory (bytes)": job.peak_memory_bytes,
        "bytes sent": job.sent_bytes,
        "bytes received": job.received_bytes,
        "retried": len(job.attempts),
    }
    yield _event(job_name(job), process, thread, (begin_s(job), job.home_s or begin_s(job)), start_s, arguments)
    names = _PHASE_NAMES if job.started_s else {"sent": "send and run"}  # it was stopped there
    for name, from_s, end_s in phases(job) if ran_on(job) else ():
        phase = _event(names.get(name, ""), process, thread, (from_s, end_s), start_s, {"job": job.id})
        if phase["name"] and phase["dur"]:  # one without a length may be drawn outside of its job
            yield phase


def job_name(job: JobRecord) -> str:
    """Return a short name: the first file that the job wrote, or else the command's beginning."""
    if job.files:
        return printable(job.files[0].decode("utf-8", "surrogateescape"), _LONGEST_NAME)
    return printable(job.text, _LONGEST_NAME)


def _counters(jobs: Sequence[JobRecord], start_s: float) -> Iterator[TraceEvent]:
    yield from _steps("jobs waiting", waiting_steps(jobs), start_s)
    yield from _steps("jobs on workers", running_steps(jobs), start_s)
    yield from _rates(jobs, start_s)
    sent = received = 0
    for job in sorted(jobs, key=lambda job: job.home_s):
        sent, received = sent + job.sent_bytes, received + job.received_bytes
        if job.home_s and (job.sent_bytes or job.received_bytes):
            yield _counter("bytes", job.home_s, start_s, {"sent": sent, "received": received})


def _steps(name: str, steps: Iterable[CountStep], start_s: float) -> Iterator[TraceEvent]:
    for at_s, count in steps:
        yield _counter(name, at_s, start_s, {"jobs": count})


def _rates(jobs: Iterable[JobRecord], start_s: float) -> Iterator[TraceEvent]:
    """Yield the cores in use on workers: each job's CPU is spread evenly over its run."""
    changes: dict[float, float] = {}
    for job in jobs:
        begin_s, end_s = next(((begin, end) for name, begin, end in phases(job) if name == "run"), (0.0, 0.0))
        if end_s > begin_s:
            rate = (job.user_s + job.system_s) / (end_s - begin_s)
            changes[begin_s] = changes.get(begin_s, 0.0) + rate
            changes[end_s] = changes.get(end_s, 0.0) - rate
    cores = 0.0
    for at_s in sorted(changes):
        cores += changes[at_s]
        yield _counter("cores in use", at_s, start_s, {"cores": round(max(cores, 0.0), 3)})


def _event(
    name: str, process: int, thread: int, times: tuple[float, float], start_s: float, arguments: dict[str, object]
) -> TraceEvent:
    begin = _microseconds(times[0], start_s)
    duration = max(_microseconds(times[1], start_s) - begin, 0)
    return {"name": name, "ph": "X", "pid": process, "tid": thread, "ts": begin, "dur": duration, "args": arguments}


def _counter(name: str, at_s: float, start_s: float, counts: dict[str, object]) -> TraceEvent:
    return {"name": name, "ph": "C", "pid": _BUILD, "tid": 0, "ts": _microseconds(at_s, start_s), "args": counts}


def _name(kind: str, process: int, thread: int, name: str) -> Iterator[TraceEvent]:
    yield {"name": f"{kind}_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": printable(name)}}
    order = {"sort_index": thread if kind == "thread" else process}
    yield {"name": f"{kind}_sort_index", "ph": "M", "pid": process, "tid": thread, "args": order}


def _microseconds(at_s: float, start_s: float) -> int:
    return round((at_s - start_s) * 1_000_000)
