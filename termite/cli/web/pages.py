"""The pages: builds of a tree, one build, one job. Functions of records alone."""

from collections.abc import Iterable, Sequence

from termite.cli.amounts import duration_text, size_text
from termite.cli.display.build_figures import BuildFigures, build_figures, running_steps, slot_tracks, waiting_steps
from termite.cli.display.build_text import (
    build_end_text,
    build_end_word,
    build_time_text,
    build_title,
    places_text,
    progress_text,
    unrecorded_text,
)
from termite.cli.display.job_text import (
    attempt_text,
    begin_s,
    cause_text,
    clock_text,
    end_text,
    end_word,
    job_lines,
    place_word,
    slot_time_s,
)
from termite.cli.display.trace_events import job_name
from termite.cli.display.worker_words import standing_of, worker_word
from termite.cli.web.html_text import Html, button, link, page, rows_of, state_mark, table, tag
from termite.engine.errors import words_of
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where
from termite.engine.history.logic.live_events import WorkerState
from termite.engine.history.logic.live_state import LiveState
from termite.engine.wire.protocol.foreign_text import printable

MOST_ROWS = 200  # of a table of running jobs
JOBS_NAMED = 1000  # of a build, in its list of jobs
_LONGEST_TEXT = 300  # characters of what a timeline says of a job at once


def front_page(tree: str, builds: Sequence[BuildRecord], now: Html) -> Html:
    """Return the page of a tree: `now`, which is of `now_part`, and the last builds."""
    return page(
        tree,
        tag("section", now, id="now", data_refresh="/now"),
        tag("section", tag("h2", "Builds"), _builds_table(builds)),
    )


def now_part(live: LiveState | None, now_s: float, trouble: str = "") -> Html:
    """Return what the master does now, as a part of a page. `live` is None if no master runs.

    `live` is also None if one runs that cannot be followed. Then `trouble` says why.
    """
    if live is None:
        said = f"The master of this tree cannot be followed: {trouble}." if trouble else "No master runs in this tree."
        return Html(tag("h2", "Now") + tag("p", said))
    running = live.running(now_s)
    sums = f"{len(running)} jobs run, {len(live.waiting)} wait"
    if live.waits_for:
        sums += f"; the queue waits for {live.waits_for}"
    builds = [
        tag(
            "p",
            link(["build", one.id], build_title(one)),
            f": {progress_text(one, live.home_counts.get(one.id, 0), now_s)}",
        )
        for one in live.builds.values()
    ]
    running.sort(key=lambda job: (job.sent_s, job.id))
    return Html(
        "".join(
            [
                tag("h2", "Now"),
                tag("p", f"Master {live.master.pid}, termite {live.master.version}: {sums}."),
                *builds,
                _workers_table(live, now_s),
                running_table(running[:MOST_ROWS], now_s) if running else "",
                tag("p", f"and {len(running) - MOST_ROWS} more") if len(running) > MOST_ROWS else "",
            ]
        )
    )


def _workers_table(live: LiveState, now_s: float) -> Html:
    head = ["worker", "state", "busy", "jobs", "load", "free memory", "termite"]
    rows = [
        [
            link(["worker", worker.name], worker.name),
            worker_state_mark(worker, now_s),
            f"{worker.running} of {worker.slots}",
            worker.jobs,
            f"{worker.load:.1f}" if worker.load >= 0 else "?",
            size_text(worker.free_memory_bytes) if worker.free_memory_bytes else "?",
            worker.version or "?",
        ]
        for worker in sorted(live.workers.values(), key=lambda worker: (worker.is_gone, worker.name))
    ]
    return table(head, rows, numbers=(2, 3, 4, 5)) if rows else tag("p", "No worker is known.")


def worker_state_mark(worker: WorkerState, now_s: float) -> Html:
    """Return the state of a worker as its master sees it, in words with a mark."""
    return state_mark(standing_of(worker), worker_word(worker, now_s) or "answers")


def running_table(jobs: Iterable[JobRecord], now_s: float) -> Html:
    """Return a table of jobs that run, with links to their pages."""
    rows = ([_job_link(job), place_word(job), duration_text(slot_time_s(job, now_s)), _text(job)] for job in jobs)
    return table(["job", "place", "since", "command"], rows, numbers=(0, 2))


def _builds_table(builds: Iterable[BuildRecord]) -> Html:
    rows = [
        [
            link(["build", build.id], build.id),
            clock_text(build.started_s),
            duration_text(build.ended_s - build.started_s) if build.ended_s else "?",
            *(_counts(build) if build.ended_s else "????"),
            build_end_word(build),
            tag("code", build_title(build)),
        ]
        for build in builds
    ]
    head = ["build", "started", "took", "jobs", "on workers", "local", "known", "end", "command"]
    return table(head, rows, numbers=(0, 2, 3, 4, 5, 6)) if rows else tag("p", "No build is recorded.")


def _counts(build: BuildRecord) -> tuple[int, int, int, int]:
    counts = build.counts
    return build.jobs, counts.remote, counts.local + counts.short, counts.cached


def build_page(build: BuildRecord, jobs: Sequence[JobRecord]) -> Html:
    """Return the page of a build. Its timeline is drawn by the script, from `timeline`."""
    figures = build_figures(build, jobs, slowest=15)
    return page(
        f"build {build.id}",
        tag("h1", tag("code", build_title(build))),
        rows_of(_build_rows(build, figures, jobs)),
        tag("h2", "Timeline"),
        tag("p", "One row for each slot. Drag to move, turn the wheel or pinch to zoom, click a job to open it."),
        _legend(),
        tag("canvas", id="timeline", data_source=f"/build/{build.id}/timeline.json", tabindex="0"),
        tag("p", id="hover", class_="hover"),
        tag("h2", "Jobs at the same time"),
        tag("canvas", id="parallel", class_="low"),
        tag("h2", "Slowest jobs"),
        jobs_table(figures.slowest),
        tag("h2", "Commands on this machine"),
        _here_table(figures),
        tag("h2", "Workers"),
        table(
            ["worker", "jobs", "CPU", "failed attempts"],
            [
                [
                    link(["worker", name], name) if name else "none",
                    one.jobs,
                    duration_text(one.cpu_s),
                    one.failed_attempts,
                ]
                for name, one in figures.by_worker.items()
            ],
            numbers=(1, 2, 3),
        ),
        tag("h2", "Failed and retried"),
        jobs_table([job for job in jobs if job.has_failed or job.attempts][:JOBS_NAMED]),
        tag("p", tag("a", "This build as a trace for Perfetto or Chrome", href=f"/trace.json?build={build.id}")),
    )


def _legend() -> Html:
    kinds = {
        "well": "on a worker",
        "here": "on this machine",
        "known": "its result was known",
        "retried": "after a failed attempt",
        "failed": "failed",
        "send": "on its way",
    }
    return tag("p", *(tag("span", words, class_=f"key {kind}") for kind, words in kinds.items()), class_="legend")


def _here_table(figures: BuildFigures) -> Html:
    rows = [[count, words_of(cause)] for cause, count in figures.here]
    return table(["jobs", "because"], rows, numbers=(0,)) if rows else tag("p", "None.")


def _build_rows(build: BuildRecord, figures: BuildFigures, jobs: Sequence[JobRecord]) -> Iterable[tuple[str, object]]:
    yield "directory", tag("code", build.cwd or build.tree)
    yield "started", clock_text(build.started_s)
    yield "took", build_time_text(build, figures)
    yield "end", build_end_text(build)
    yield "jobs", places_text(figures)
    if lost := unrecorded_text(build, len(jobs)):
        yield "records", lost
    yield "CPU on workers", duration_text(figures.cpu_s)
    yield "average parallelism", f"{figures.parallelism:.1f}"
    yield "traffic", f"{size_text(figures.sent_bytes)} sent, {size_text(figures.received_bytes)} received"
    hits = figures.jobs_in_places.get(Where.CACHE.value, 0)
    if hits:
        yield "from the cache", f"{hits} of {len(jobs)}"


def jobs_table(jobs: Iterable[JobRecord]) -> Html:
    """Return a table of jobs, with links to their pages."""
    rows = [
        [_job_link(job), place_word(job), duration_text(slot_time_s(job)), end_word(job), len(job.attempts), _text(job)]
        for job in jobs
    ]
    if not rows:
        return tag("p", "None.")
    return table(["job", "place", "time", "end", "retried", "command"], rows, numbers=(0, 2, 4))


def job_page(job: JobRecord, tree: str, now_s: float, can_kill: bool = False, token: str = "") -> Html:
    """Return the page of a job: everything that its record says.

    `can_kill` offers to end it, with the token that the form sends.
    """
    kill = button("End this job", ["job", job.id, "kill"], token)
    return page(
        f"job {job.id}",
        tag("h1", tag("code", _text(job))),
        tag("p", link(["build", job.build], f"build {job.build}"), f": {cause_text(job.cause)}; {end_text(job)}"),
        tag("pre", Html("\n".join(str(tag("span", line)) for line in job_lines(job, tree, now_s)))),
        kill if can_kill else "",
    )


def timeline_object(build: BuildRecord, jobs: Sequence[JobRecord]) -> dict[str, object]:
    """Return what the script draws of a build. Times are milliseconds since its start.

    * `tracks` are names of slots.
    * `jobs` are arrays: track, start, run's start, run's end, end, id, kind (see `_kind`), name,
      reason, end, traffic, and then each failed attempt.
    * `texts` are those whose indices the jobs have as their reasons, ends and attempts.
    * `running` and `waiting` are steps: a time and a count.
    """
    start_s = min([build.started_s, *(job.queued_s for job in jobs if job.queued_s)])

    def after_ms(at_s: float) -> int:
        return round(1000 * (at_s - start_s))

    tracks, texts = slot_tracks(jobs), _Texts()
    return {
        "tracks": [printable(name) for name, _ in tracks],
        "jobs": [
            [
                at,
                after_ms(begin_s(job)),
                after_ms(job.started_s or begin_s(job)),
                after_ms(job.ended_s or job.home_s),
                after_ms(job.home_s),
                job.id,
                _kind(job),
                job_name(job)[:60],
                texts.at(cause_text(job.cause)),
                texts.at(end_text(job)),
                f"{size_text(job.sent_bytes)} sent, {size_text(job.received_bytes)} received",
                *(texts.at(attempt_text(attempt)) for attempt in job.attempts),
            ]
            for at, (_, track) in enumerate(tracks)
            for job in track
        ],
        "texts": list(texts),
        "running": [[after_ms(at_s), count] for at_s, count in running_steps(jobs)],
        "waiting": [[after_ms(at_s), count] for at_s, count in waiting_steps(jobs)],
    }


class _Texts(dict[str, int]):
    """Texts of which many jobs have the same. Each stands once, in the order of its number."""

    def at(self, text: str) -> int:
        """Return the number of a text."""
        return self.setdefault(printable(text, _LONGEST_TEXT), len(self))


def _kind(job: JobRecord) -> int:
    """Return 0 for a job that went well, 1: failed, 2: local, 3: retried, 4: known result."""
    if job.has_failed:
        return 1
    if job.where is Where.HERE:
        return 2
    if job.where is Where.CACHE:
        return 4
    return 3 if job.attempts else 0


def _text(job: JobRecord) -> Html:
    return tag("code", job.text.partition("\n")[0][:300])


def _job_link(job: JobRecord) -> Html:
    return link(["job", job.id], job.id)
