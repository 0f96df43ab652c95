"""Read tables of pages, and compare the page of a build with the records of its jobs.

The figures that a page must show are computed here once more from the records.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from termite.cli.amounts import duration_text, size_text
from termite.cli.display.job_text import cause_word, end_word, place_word
from termite.engine.decide.logic.rules import readable_regexp
from termite.engine.errors import words_of
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where, Why

SLOWEST = 15  # jobs that a page lists as the slowest ones
WAS_THERE = (Where.WORKER, Where.NOWHERE)  # one that was stopped on its worker has no result


def rows_of_page(page: str) -> list[list[str]]:
    """Return the texts of the cells of all tables of a page."""
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
        for row in rows
    ]


def pairs_of_page(page: str) -> dict[str, str]:
    """Return the names and contents of the tables of a page that have two columns."""
    return {row[0]: row[1] for row in rows_of_page(page) if len(row) == 2}


def rows_below(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, without its own head."""
    (part,) = [part for part in page.split("<h2>")[1:] if part.startswith(f"{heading}</h2>")]
    return rows_of_page(part)[1:]


def check_build_page(page: str, build: BuildRecord, jobs: Sequence[JobRecord]) -> None:
    """Compare the figures and the tables of a build's page with the records of its jobs."""
    check_figures(pairs_of_page(page.partition("<h2>")[0]), build, jobs)
    assert '<canvas id="timeline"' in page and '<canvas id="parallel"' in page
    slowest = rows_below(page, "Slowest jobs")
    longest = sorted((time_in_slot_s(job) for job in jobs), reverse=True)[:SLOWEST]
    assert [row[2] for row in slowest] == [duration_text(held_s) for held_s in longest]
    check_jobs(slowest, jobs)
    check_reasons(rows_below(page, "Commands on this machine"), jobs)
    assert {row[0]: row[1:] for row in rows_below(page, "Workers")} == workers_of(jobs)
    troubled = rows_below(page, "Failed and retried")
    assert [int(row[0]) for row in troubled] == [
        job.id for job in jobs if job.exit_code > 0 or job.signal or job.attempts
    ]
    check_jobs(troubled, jobs)


def check_figures(pairs: dict[str, str], build: BuildRecord, jobs: Sequence[JobRecord]) -> None:
    """Compare the figures at the head of a build's page with the records."""
    ended_s = build.ended_s or max((job.home_s for job in jobs), default=build.started_s)
    took_s = ended_s - build.started_s
    on_workers = [job for job in jobs if job.where is Where.WORKER and job.started_s and job.ended_s]
    ran_s = sum(max(job.ended_s - job.started_s, 0) for job in on_workers)
    assert pairs["took"].split(",")[0] == duration_text(took_s)
    assert pairs["average parallelism"] == (f"{ran_s / took_s:.1f}" if took_s else "0.0")
    assert pairs["CPU on workers"] == duration_text(sum(job.user_s + job.system_s for job in jobs))
    sent, received = (sum(getattr(job, name) for job in jobs) for name in ("sent_bytes", "received_bytes"))
    assert pairs["traffic"] == f"{size_text(sent)} sent, {size_text(received)} received"
    hits = sum(job.where is Where.CACHE for job in jobs)
    assert pairs.get("from the cache") == (f"{hits} of {len(jobs)}" if hits else None)
    assert pairs["jobs"].split(":")[0] == str(len(jobs) or "none")


def time_in_slot_s(job: JobRecord) -> float:
    """Return how long a job held a slot, or how long the look-up of a known result took."""
    begun_s = job.queued_s if job.where is Where.CACHE else job.sent_s
    return job.home_s - begun_s if begun_s and job.home_s else 0.0


def check_jobs(rows: Iterable[Sequence[str]], jobs: Iterable[JobRecord]) -> None:
    """Compare each row of a table of jobs with the record of its job."""
    known = {job.id: job for job in jobs}
    for number, place, time, end, retried, _ in rows:
        job = known[int(number)]
        shown = (place_word(job), duration_text(time_in_slot_s(job)), end_word(job), str(len(job.attempts)))
        assert (place, time, end, retried) == shown, job


def check_reasons(rows: Sequence[Sequence[str]], jobs: Iterable[JobRecord]) -> None:
    """Compare the reasons of the jobs that ran on the master's machine, and see the most first."""
    expected: Counter[str] = Counter()
    for job in jobs:
        if job.where is Where.HERE and job.cause.kind is Why.RULE:
            expected[f"rule {readable_regexp(job.cause.regexp)}"] += 1
        elif job.where is Where.HERE:
            expected[words_of("short" if job.cause.kind is Why.SHORT else cause_word(job.cause))] += 1
    counts = [int(count) for count, _ in rows]
    assert {words: int(count) for count, words in rows} == expected
    assert counts == sorted(counts, reverse=True)


def workers_of(jobs: Iterable[JobRecord]) -> dict[str, list[str]]:
    """Return for each worker the number of its jobs, their CPU time and its failed attempts."""
    counts: Counter[str] = Counter()
    cpu_s: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for job in jobs:
        if job.where is Where.WORKER:
            counts[job.worker] += 1
            cpu_s[job.worker] += job.user_s + job.system_s  # type: ignore[assignment]
        failed.update(attempt.worker for attempt in job.attempts)
    names = counts.keys() | failed.keys()
    return {name or "none": [str(counts[name]), duration_text(cpu_s[name]), str(failed[name])] for name in names}


def check_running_steps(drawn: dict[str, object], build: BuildRecord, jobs: Sequence[JobRecord]) -> None:
    """Compare how many jobs a timeline says were on workers at each time with the records.

    `drawn` is what the page's script draws: milliseconds since the build's start.
    """
    zero_s = min([build.started_s, *(job.queued_s for job in jobs if job.queued_s)])
    there = [
        (round(1000 * (job.sent_s - zero_s)), round(1000 * (job.home_s - zero_s)))
        for job in jobs
        if job.where in WAS_THERE and job.worker and job.sent_s
    ]
    steps: list[tuple[int, int]] = drawn["running"]  # type: ignore[assignment]
    for at_ms in sorted({at_ms for times in there for at_ms in times}):
        shown = next((count for step_ms, count in reversed(steps) if step_ms <= at_ms), 0)
        assert shown == sum(begun <= at_ms < home for begun, home in there), at_ms
    assert bool(steps) == any(begun < home for begun, home in there)
