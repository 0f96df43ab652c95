"""The pages say what the records say, and no text of a user becomes markup."""

import html
import json
import re
from html.parser import HTMLParser
from typing import Any, cast

import msgspec
import pytest

from termite.cli.amounts import size_text
from termite.cli.display.build_text import build_lines, build_object, listed_object, markdown
from termite.cli.display.job_text import attempt_text, cause_text, end_text
from termite.cli.web.html_text import Html, escaped, tag
from termite.cli.web.metrics import metrics_text
from termite.cli.web.pages import build_page, front_page, job_page, now_part, timeline_object
from termite.cli.web.worker_pages import report_part, worker_page
from termite.engine.history.logic.job_record import BuildCounts, Cause, JobRecord, Where, Why, as_object
from termite.engine.history.logic.live_events import BuildStarted, JobHome, JobSent, WorkerChanged, WorkerState
from termite.engine.history.logic.live_state import LiveState
from termite.engine.wire.protocol.foreign_text import printable
from tests.build_pages import check_build_page, check_running_steps
from tests.synthetic_builds import HOSTILE_TEXT, events_of, synthetic_build

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>\x1b]0;title\x07\u202e"


class Reader(HTMLParser):
    """Reads a page: its elements, its text, and whether each element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def live_after(events: int) -> LiveState:
    state = LiveState()
    for event in events_of(synthetic_build(100))[:events]:
        state.apply(event)
    return state


def hostile_job() -> JobRecord:
    _, jobs = synthetic_build(40)
    return msgspec.structs.replace(
        jobs[-1], text=HOSTILE, cwd=HOSTILE, worker=HOSTILE, files=(HOSTILE.encode(),), file_count=1, plugin=HOSTILE,
        output=HOSTILE.encode(), output_bytes=100, is_output_kept=True,
    )  # fmt: skip


def test_hostile_text_is_text_on_every_page() -> None:
    build, jobs = synthetic_build(60)
    hostile = msgspec.structs.replace(build, text=HOSTILE, cwd=HOSTILE, tree=HOSTILE)
    live = live_after(50)
    live.apply(JobSent(msgspec.structs.replace(hostile_job(), home_s=0.0)))
    pages = [
        front_page(HOSTILE, [hostile], now_part(live, 1e9)),
        front_page(HOSTILE, [], now_part(None, 1e9, HOSTILE)),
        build_page(hostile, [*jobs, hostile_job()]),
        job_page(hostile_job(), HOSTILE, 1e9, can_kill=True, token="t"),
        worker_page(HOSTILE, live, [hostile_job()], 1e9, report_part(None, HOSTILE)),
    ]
    hostile_cause = msgspec.structs.replace(hostile_job(), cause=Cause(Why.FORBIDDEN, "", HOSTILE))
    drawn = json.dumps(timeline_object(build, [hostile_cause]), ensure_ascii=False)
    assert "\\u001b" not in drawn and "\u202e" not in drawn and "alert" in drawn
    for page in pages:
        read = Reader(page)
        assert read.open == []
        assert "img" not in read.names
        assert page.count("<script") == 1
        assert not {name for name in read.attributes if name.startswith("on")}
        assert html.unescape(re.sub("<[^>]*>", "", page)).count("\x1b") == 0
        assert "\u202e" not in page
        assert "<script>alert('x')</script>" in read.text


def test_free_memory_of_workers_is_shown() -> None:
    live = live_after(50)
    page = now_part(live, 1e9)
    assert all(size_text(worker.free_memory_bytes) in page for worker in live.workers.values())


def test_workers_in_trouble_are_marked_and_their_jobs_named() -> None:
    live, now_s = live_after(50), 1e9
    job = msgspec.structs.replace(hostile_job(), home_s=0.0, ended_s=0.0, worker="alpha")
    live.apply(JobSent(job))
    for state in (
        msgspec.structs.replace(live.workers["alpha"], silent_since_s=now_s - 7, running=1),
        WorkerState(name="gone", gone_since_s=now_s - 30, is_lost=True),
        WorkerState(name="aleph", gone_since_s=now_s - 3),
        WorkerState(name="cut", broken_since_s=now_s - 4),
        WorkerState(name="idle"),
    ):
        live.apply(WorkerChanged(state))
    marks = re.findall(r'<span class="state (\w+)">([^<]*)</span>', now_part(live, now_s))
    assert ("silent", "silent for 7.00 s; 1 job waits for it") in marks
    assert ("broken", "the connection broke 4.00 s ago; no slot is leased") in marks
    assert ("idle", "no slot is leased") in marks and ("well", "answers") in marks
    assert marks[-2:] == [("stopped", "stopped 3.00 s ago"), ("lost", "lost: silent for 30.0 s")]
    page = worker_page("alpha", live, [], now_s, report_part(None, "no answer"))
    assert '<span class="state silent">silent for 7.00 s; 1 job waits for it</span>' in page
    assert "Its jobs now" in page and f"/job/{job.id}" in page.partition("Its jobs in the newest")[0]
    assert "lost: silent for 30.0 s" in worker_page("gone", live, [], now_s, report_part(None, "it is gone"))


def test_a_page_of_a_build_has_every_figure_and_is_small() -> None:
    build, jobs = synthetic_build(1000)
    page = build_page(build, jobs)
    read = Reader(page)
    assert len(page.encode()) < 250_000
    assert len(json.dumps(timeline_object(build, jobs))) < 250_000
    assert f"1000: {sum(job.where.value == 'worker' for job in jobs)} on workers" in read.text
    check_build_page(page, build, jobs)
    known = [msgspec.structs.replace(job, where=Where.CACHE) if job.id % 3 else job for job in jobs]
    for some in (known, jobs[:90], []):
        check_build_page(build_page(build, some), build, some)
    opened = msgspec.structs.replace(build, ended_s=0.0)
    check_build_page(build_page(opened, jobs[:90]), opened, jobs[:90])


def test_a_figure_that_is_wrong_or_missing_on_a_page_of_a_build_is_found() -> None:
    """Each change of the page below is what a mistake in its code would make."""
    build, jobs = synthetic_build(200)
    jobs[3] = msgspec.structs.replace(jobs[3], where=Where.CACHE)
    page = build_page(build, jobs)
    rows = re.findall("<tr>.*?</tr>", page)
    pairs = [row for row in rows if re.match("<tr><th>(average|CPU|from|traffic|took)", row)]
    assert len(pairs) == 5
    reasons = [row for row in rows if ">rule " in row or ">delta<" in row]
    assert len(reasons) == 2
    slowest = next(row for row in rows if "/job/" in row)
    for row in [*pairs, *reasons, slowest]:
        with pytest.raises((AssertionError, KeyError)):
            check_build_page(page.replace(row, "", 1), build, jobs)
    for row in [*pairs, *reasons]:
        last_digit = re.sub("[1-9](?!.*[1-9])", "0", row)
        with pytest.raises(AssertionError):
            check_build_page(page.replace(row, last_digit, 1), build, jobs)


def test_a_build_that_runs_has_no_zeros_for_what_is_not_counted_yet() -> None:
    build, jobs = synthetic_build(60)
    first = msgspec.structs.replace(build, ended_s=0.0, jobs=0, last_job=0, counts=BuildCounts(), expected_jobs=0)
    row = re.findall(r"<td[^>]*>([^<]*)</td>", front_page("/tree", [first], now_part(None, 1e9)))
    assert row[1:6] == ["?"] * 5, row
    assert listed_object(first)["counts"] is None and listed_object(first)["jobs"] is None
    assert listed_object(build) == as_object(build)
    whole = cast(dict[str, Any], build_object(first, jobs))["build"]
    assert (whole["jobs"], whole["counts"]["remote"]) == (60, build.counts.remote)
    failed = f"{build.counts.nonzero} commands failed"
    assert any(failed in line for line in build_lines(build, jobs))
    assert any(failed in line for line in build_lines(first, jobs)) and failed in markdown(first, jobs)

    live = LiveState()
    live.apply(BuildStarted(msgspec.structs.replace(first, jobs=7)))
    live.apply(JobHome(msgspec.structs.replace(jobs[0], build=first.id)))
    assert [one.jobs for one in live.builds_now] == [8]
    ended = msgspec.structs.replace(build, id=build.id - 1, jobs=60)
    text = metrics_text([first, ended], live, 1e9).decode()
    assert f"termite_last_build_number {build.id - 1}.0" in text and "termite_builds_running_jobs 8.0" in text
    assert f'termite_last_build_jobs{{where="worker"}} {build.counts.remote}.0' in text
    assert "last_build" not in metrics_text([first], live, 1e9).decode()


def test_a_timeline_has_each_job_that_ran_once() -> None:
    build, jobs = synthetic_build(200)
    drawn = json.loads(json.dumps(timeline_object(build, jobs)))
    ran = {job.id: job for job in jobs if job.sent_s}
    assert sorted(entry[5] for entry in drawn["jobs"]) == sorted(ran)
    texts = drawn["texts"]
    for track, start, run, ran_until, end, number, kind, _name, why, ended, traffic, *failed in drawn["jobs"]:
        job = ran[number]
        assert texts[ended] == end_text(job) and texts[why] == printable(cause_text(job.cause))
        assert traffic == f"{size_text(job.sent_bytes)} sent, {size_text(job.received_bytes)} received"
        assert [texts[at] for at in failed] == [attempt_text(attempt) for attempt in job.attempts]
        assert 0 <= start <= run <= ran_until <= end
        assert track < len(drawn["tracks"])
        assert (kind == 1) == ran[number].has_failed
    assert drawn["running"][-1][1] == drawn["waiting"][-1][1] == 0
    check_running_steps(drawn, build, jobs)
    for wrong in ([], drawn["running"][:-9], [[at_ms, count + 1] for at_ms, count in drawn["running"]]):
        with pytest.raises(AssertionError):
            check_running_steps({"running": wrong}, build, jobs)


@pytest.mark.parametrize("events", [1, 40, 200, 400])
def test_the_front_page_says_what_runs(events: int) -> None:
    live = live_after(events)
    text = Reader(front_page("/tree", [], now_part(live, 1e10))).text
    running = sum(1 for job in live.jobs.values() if job.sent_s)
    assert f"{running} jobs run, {len(live.jobs) - running} wait" in text
    assert "No master runs" in Reader(front_page("/tree", [], now_part(None, 1e10))).text
    other = Reader(now_part(None, 1e10, "it has another version")).text
    assert "cannot be followed: it has another version" in other and "No master" not in other


def test_only_html_is_put_in_as_it_is() -> None:
    assert escaped("<b>") == "&lt;b&gt;"
    assert escaped(Html("<b>")) == "<b>"
    assert tag("p", "<", Html("<i></i>"), class_='"') == '<p class="&quot;">&lt;<i></i></p>'
    assert "script" in HOSTILE_TEXT
