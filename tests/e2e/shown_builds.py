"""Compare what every view shows of a build with its records, whose truth the tests have checked."""

import html
import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from termite.engine.errors import words_of
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where
from tests.build_pages import check_build_page, check_running_steps
from tests.e2e.cluster import Tree
from tests.e2e.page_reader import pages_of_tree

Page = Callable[[str], str]


@contextmanager
def pages(tree: Tree) -> Iterator[Page]:
    """Serve the pages of a tree; yield a function that returns the content of a path."""
    with pages_of_tree(tree) as reader:
        yield reader.page


def check_views(tree: Tree, build: BuildRecord, jobs: list[JobRecord]) -> None:
    """Compare `last`, `jobs`, `log`, the trace and the pages of a build with its records."""
    whole = json.loads(tree.ctl("last", str(build.id), "-json").stdout)
    assert [job["id"] for job in whole["jobs"]] == [job.id for job in jobs]
    assert whole["figures"]["places"] == dict(Counter(job.where.value for job in jobs))
    failed = Counter(attempt.worker for job in jobs for attempt in job.attempts)
    shown = {name: one["failed_attempts"] for name, one in whole["figures"]["workers"].items()}
    assert {name: count for name, count in shown.items() if count} == dict(failed)
    listed = [json.loads(line) for line in tree.ctl("jobs", "-build", str(build.id), "-json").stdout.splitlines()]
    assert [(job["id"], job["where"], job["worker"], job["exit_code"], job["signal"]) for job in listed] == [
        (job.id, job.where.value, job.worker, job.exit_code, job.signal) for job in jobs
    ]
    check_trace(json.loads(tree.ctl("trace", str(build.id), "-o", "-").stdout)["traceEvents"], build, jobs)
    with pages(tree) as page:
        check_pages(page, build, jobs)


def check_trace(events: list[dict[str, object]], build: BuildRecord, jobs: list[JobRecord]) -> None:
    """Compare the trace with the records, after it went through Perfetto's classes."""
    pytest.importorskip("perfetto", reason="Perfetto's classes are not installed: sh tools/setup.sh tests")
    from tests.perfetto_traces import read_trace, write_trace

    own = {one.arguments["job"]: one for one in read_trace(write_trace(events)).slices if "command" in one.arguments}
    assert set(own) == {job.id for job in jobs if job.sent_s}
    for job in (job for job in jobs if job.sent_s):
        assert own[job.id].process == (job.worker or "this machine")
        assert own[job.id].arguments["retried"] == len(job.attempts)
        times = (own[job.id].start_ns, own[job.id].end_ns)
        assert times == pytest.approx([(at - build.started_s) * 1e9 for at in (job.sent_s, job.home_s)], abs=2000)


def check_pages(page: Page, build: BuildRecord, jobs: list[JobRecord]) -> None:
    """Compare the pages of a build and of its jobs with the records."""
    drawn = json.loads(page(f"/build/{build.id}/timeline.json"))
    tracks = {job[5]: drawn["tracks"][job[0]] for job in drawn["jobs"]}
    ran = {job.id: job for job in jobs if job.sent_s}
    assert set(tracks) == set(ran)
    for number, track in tracks.items():
        place = ran[number].worker or "local"
        assert track.startswith(place), (track, ran[number])
    check_running_steps(drawn, build, jobs)
    check_build_page(page(f"/build/{build.id}"), build, jobs)
    front = re.search(rf">{build.id}</a>.*?</tr>", page("/"))
    assert front and (">open<" in front[0]) == (not build.ended_s)
    assert (">cut off<" in front[0]) == build.is_cut_off == ("its master was killed" in page(f"/build/{build.id}"))
    for job in jobs:
        text = html.unescape(re.sub("<[^>]*>", "", page(f"/job/{job.id}")))
        places = {Where.HERE: "local", Where.WORKER: f"{job.worker}:{job.slot}"}
        place = places.get(job.where, f"{job.worker}:{job.slot}" if job.sent_s else "nowhere")
        assert f"place     {place}" in text
        if job.exit_code >= 0:
            assert f"exit code {job.exit_code}" in text
        if job.signal:
            assert ("time limit" if job.timed_out else signal.Signals(job.signal).name) in text
        for attempt in job.attempts:
            assert f"after {attempt.worker}: {words_of(attempt.reason)}" in text
        for line in job.output.decode(errors="replace").splitlines():
            assert f"| {line}" in text
