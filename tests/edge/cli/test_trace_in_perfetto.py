"""The traces of `termite-ctl trace` go through Perfetto's published classes, and say the same.

`sh tools/setup.sh tests` installs these classes. The expected slices and counters are computed from
the records alone, so that nothing here asks the code that makes the trace.
"""

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from termite.cli.places import records_directory
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where
from tests.synthetic_builds import SyntheticBuild, synthetic_build, write_history

pytest.importorskip("perfetto", reason="Perfetto's classes are not installed: sh tools/setup.sh tests")
from tests.perfetto_traces import Refused, Slice, read_trace, write_trace

ROUNDED_NS = 1001  # the trace has microseconds


def traced(where: Path, monkeypatch: pytest.MonkeyPatch, made: SyntheticBuild) -> list[dict[str, Any]]:
    """Record a build, and return the events that `termite-ctl trace` writes of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(where / "state"))
    monkeypatch.delenv("TERMITE_SOCKET", raising=False)
    tree = where / "tree"
    tree.mkdir()
    write_history(records_directory(tree), [made])
    command = [sys.executable, "-m", "termite.cli.ctl", "trace", "-o", "build.json"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    events: list[dict[str, Any]] = json.loads((tree / "build.json").read_text())["traceEvents"]
    return events


def expected_slices(build: BuildRecord, job: JobRecord) -> list[tuple[str, float, float]]:
    """Return the phases of a job in nanoseconds since the start of the build."""
    times = [("send", job.sent_s, job.started_s), ("run", job.started_s, job.ended_s)]
    times.append(("bring home", job.ended_s, job.home_s))
    return [(name, (begin - build.started_s) * 1e9, (end - build.started_s) * 1e9) for name, begin, end in times]


def is_at(found: Slice, begin_ns: float, end_ns: float) -> bool:
    return abs(found.start_ns - begin_ns) <= ROUNDED_NS and abs(found.end_ns - end_ns) <= ROUNDED_NS


def test_the_slices_are_those_of_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, jobs = made = synthetic_build(400)
    read = read_trace(write_trace(traced(tmp_path, monkeypatch, made)))
    own = {found.arguments["job"]: found for found in read.slices if "command" in found.arguments}
    assert set(own) == {job.id for job in jobs if job.sent_s} and len(own) > 300
    phases = [found for found in read.slices if found.depth == 1]
    assert len(own) + len(phases) + 1 == len(read.slices)
    for job in (job for job in jobs if job.sent_s):
        whole = own[job.id]
        assert is_at(whole, (job.sent_s - build.started_s) * 1e9, (job.home_s - build.started_s) * 1e9)
        assert whole.process == (job.worker if job.where is Where.WORKER else "this machine")
        assert whole.thread == f"{job.worker or 'local'} {job.slot}"
        figures = (whole.arguments["bytes sent"], whole.arguments["memory (bytes)"], whole.arguments["retried"])
        assert figures == (job.sent_bytes, job.peak_memory_bytes, len(job.attempts))
        inside = [found for found in phases if found.arguments["job"] == job.id]
        assert {(found.process, found.thread) for found in inside} <= {(whole.process, whole.thread)}
        wanted = expected_slices(build, job) if job.where is Where.WORKER else []
        assert [found.name for found in inside] == [name for name, _, _ in wanted]
        for found, (_, begin_ns, end_ns) in zip(inside, wanted, strict=True):
            assert is_at(found, begin_ns, end_ns), found
    (tool,) = (found for found in read.slices if found.process == "build")
    assert (tool.thread, tool.arguments["jobs"], tool.start_ns) == ("build tool", 400, 0)
    assert is_at(tool, 0, (build.ended_s - build.started_s) * 1e9)


def test_the_counters_are_those_of_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, jobs = made = synthetic_build(200)
    counters = read_trace(write_trace(traced(tmp_path, monkeypatch, made))).counters
    assert set(counters) == {
        "jobs waiting jobs",
        "jobs on workers jobs",
        "cores in use cores",
        "bytes sent",
        "bytes received",
    }
    for at_ns, count in counters["jobs on workers jobs"]:
        now_s = build.started_s + at_ns / 1e9 + 2e-6  # just after the change
        holding = [job for job in jobs if job.where is Where.WORKER and job.sent_s <= now_s < job.home_s]
        assert count == len(holding)
    for at_ns, count in counters["jobs waiting jobs"]:
        now_s = build.started_s + at_ns / 1e9 + 2e-6
        assert count == sum(1 for job in jobs if job.queued_s <= now_s < (job.sent_s or job.home_s))
    far = [job for job in jobs if job.where is Where.WORKER]
    cores = counters["cores in use cores"]
    used_s = sum(value * (after - at) / 1e9 for (at, value), (after, _) in pairwise(cores))
    assert used_s == pytest.approx(sum(job.user_s + job.system_s for job in far), rel=0.01)
    assert cores[-1][1] == 0
    assert counters["bytes sent"][-1][1] == sum(job.sent_bytes for job in far)
    assert counters["bytes received"][-1][1] == sum(job.received_bytes for job in far)


def test_a_worker_whose_clock_is_wrong_breaks_no_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, jobs = synthetic_build(40)
    wrong = {0: (-3.0, -2.5), 1: (0.5, 9.0), 2: (9.0, 9.5), 3: (-3.0, 9.0)}
    skewed = [
        msgspec.structs.replace(
            job, started_s=job.sent_s + wrong[job.id % 4][0], ended_s=job.sent_s + wrong[job.id % 4][1]
        )
        if job.where is Where.WORKER
        else job
        for job in jobs
    ]
    read = read_trace(write_trace(traced(tmp_path, monkeypatch, SyntheticBuild(build, skewed))))
    depths = Counter(found.depth for found in read.slices)
    assert depths[0] == 1 + sum(1 for job in jobs if job.sent_s)
    assert set(depths) == {0, 1} and depths[1] > 20
    with pytest.raises(Refused):
        read_trace(write_trace(longer_runs(build, jobs)))


def longer_runs(build: BuildRecord, jobs: list[JobRecord]) -> list[dict[str, Any]]:
    """Return the events of a build of which each command runs on after its job."""
    from termite.cli.display.trace_events import trace_object

    events: list[dict[str, Any]] = trace_object(build, jobs)["traceEvents"]
    return [{**event, "dur": event["dur"] + 10_000_000} if event["name"] == "run" else event for event in events]
