"""The trace of a build: a validator of its own reads it, and finds in it what the records say."""

import json
from collections import defaultdict
from typing import Any

import msgspec
import pytest

from termite.cli.display.build_figures import running_steps, slot_tracks, waiting_steps
from termite.cli.display.trace_events import trace_object
from termite.engine.history.logic.job_record import Where
from tests.synthetic_builds import synthetic_build

TOLERANCE_US = 2  # times are rounded to microseconds, each by itself


class Invalid(Exception):
    """The trace breaks a rule of the format, or says something impossible."""


def validate(trace: dict[str, Any]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Check a trace's events and their nesting; return the complete events by track."""
    if set(trace) < {"traceEvents", "displayTimeUnit"}:
        raise Invalid("keys")
    tracks, named, counters = defaultdict(list), set(), defaultdict(list)
    for event in trace["traceEvents"]:
        if not {"name", "ph", "pid", "tid"} <= set(event) or not isinstance(event["pid"], int):
            raise Invalid(f"fields of {event}")
        match event["ph"]:
            case "M":
                named.add((event["name"], event["pid"], event["tid"]))
            case "C":
                counters[event["name"]].append(event)
            case "X":
                if event["ts"] < 0 or event["dur"] < 0:
                    raise Invalid(f"times of {event}")
                tracks[event["pid"], event["tid"]].append(event)
            case phase:
                raise Invalid(f"phase {phase}")
    for (process, thread), events in tracks.items():
        if ("process_name", process, 0) not in named or ("thread_name", process, thread) not in named:
            raise Invalid(f"track {process}/{thread} has no name")
        check_nesting(events)
    for name, events in counters.items():
        times = [event["ts"] for event in events]
        if times != sorted(times):
            raise Invalid(f"counter {name} goes back in time")
        if any(count < 0 for event in events for count in event["args"].values()):
            raise Invalid(f"counter {name} is negative")
    return tracks


def check_nesting(events: list[dict[str, Any]]) -> None:
    """Raise Invalid unless each event is inside of the one around it, or behind the one before."""
    open_until: list[int] = []
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while open_until and open_until[-1] <= event["ts"] + TOLERANCE_US:
            open_until.pop()
        if open_until and event["ts"] + event["dur"] > open_until[-1] + TOLERANCE_US:
            raise Invalid(f"{event['name']} ends after the event around it")
        open_until.append(event["ts"] + event["dur"])


def test_a_trace_is_valid_and_has_every_job_with_its_phases() -> None:
    build, jobs = synthetic_build(400)
    trace = json.loads(json.dumps(trace_object(build, jobs)))
    tracks = validate(trace)
    shown = {
        event["args"]["job"]: event for events in tracks.values() for event in events if "command" in event["args"]
    }
    assert set(shown) == {job.id for job in jobs if job.sent_s}
    start_s = build.started_s
    for job in jobs:
        if not job.sent_s:
            continue
        event = shown[job.id]
        assert event["ts"] == pytest.approx((job.sent_s - start_s) * 1e6, abs=1)
        assert event["dur"] == pytest.approx((job.home_s - job.sent_s) * 1e6, abs=2)
        inside = [
            phase
            for phase in tracks[event["pid"], event["tid"]]
            if phase["args"].get("job") == job.id and phase is not event
        ]
        if job.where is Where.WORKER:
            assert [phase["name"] for phase in inside] == ["send", "run", "bring home"]
            assert inside[1]["dur"] == pytest.approx((job.ended_s - job.started_s) * 1e6, abs=2)
        else:
            assert inside == []
    assert "\x1b" not in json.dumps(trace, ensure_ascii=False)


def test_counters_end_at_zero_and_never_show_more_than_there_was() -> None:
    build, jobs = synthetic_build(300)
    for name, steps in (("jobs on workers", running_steps(jobs)), ("jobs waiting", waiting_steps(jobs))):
        assert steps[-1][1] == 0
        events = [event for event in trace_object(build, jobs)["traceEvents"] if event["name"] == name]
        assert [event["args"]["jobs"] for event in events] == [count for _, count in steps]
    assert max(count for _, count in running_steps(jobs)) <= 3 * 8
    cores = [event for event in trace_object(build, jobs)["traceEvents"] if event["name"] == "cores in use"]
    assert cores[-1]["args"]["cores"] == 0
    sent = [event["args"]["sent"] for event in trace_object(build, jobs)["traceEvents"] if event["name"] == "bytes"]
    assert sent[-1] == sum(job.sent_bytes for job in jobs)


def test_jobs_that_overlap_in_one_slot_get_a_track_each() -> None:
    _, jobs = synthetic_build(40)
    job = next(job for job in jobs if job.where is Where.WORKER)
    inside = msgspec.structs.replace(job, id=9999, sent_s=job.ended_s - 0.01, home_s=job.home_s + 1)
    names = [name for name, track in slot_tracks([job, inside])]
    assert names == [f"{job.worker} {job.slot}", f"{job.worker} {job.slot} (2)"]
    build, _ = synthetic_build(1)
    validate(trace_object(build, [job, inside]))


def test_the_validator_finds_what_is_wrong() -> None:
    build, jobs = synthetic_build(40)
    trace = trace_object(build, jobs)
    events = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["name"] == "run"]
    events[0]["dur"] += 10_000_000
    with pytest.raises(Invalid, match="ends after"):
        validate(trace)
    trace = trace_object(build, jobs)
    trace["traceEvents"] = [event for event in trace["traceEvents"] if event["name"] != "thread_name"]
    with pytest.raises(Invalid, match="has no name"):
        validate(trace)


def test_a_known_result_is_an_event_as_long_as_its_launcher_waited() -> None:
    build, jobs = synthetic_build(60)
    known = [
        msgspec.structs.replace(job, where=Where.CACHE, worker="", slot=-1, sent_s=0.0, started_s=0.0, ended_s=0.0)
        for job in jobs
    ]
    tracks = validate(trace_object(build, known))
    lengths = {
        event["args"]["job"]: event["dur"] for events in tracks.values() for event in events if "job" in event["args"]
    }
    assert set(lengths) == {job.id for job in jobs}
    for job in known:
        assert abs(lengths[job.id] - 1e6 * (job.home_s - job.queued_s)) <= TOLERANCE_US
