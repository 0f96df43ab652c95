"""Show builds as lines, as markdown for a step summary, and as JSON."""

from collections.abc import Iterator, Sequence

from termite.cli.amounts import counted, duration_text, size_text
from termite.cli.display.build_figures import BuildFigures, build_figures
from termite.cli.display.job_text import clock_text, end_word, place_word, signal_name, slot_time_s
from termite.engine.errors import words_of
from termite.engine.history.logic.build_tally import tallied
from termite.engine.history.logic.job_record import NOT_KNOWN, BuildCounts, BuildRecord, JobRecord, Why, as_object
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

JOB_HEAD = f"{'job':>7}  {'place':<16}{'time':>10}  {'end':<8} command"
_COUNTS = "{:>6} {:>7} {:>6} {:>6} {:>7}"  # of jobs
_HEADS = _COUNTS.format("jobs", "workers", "local", "cache", "nowhere")
BUILD_HEAD = f"{'build':>5}  {'started':<20}{'took':>11}  {_HEADS}  {'end':<8} command"


def job_line(job: JobRecord, now_s: float = 0.0) -> str:
    """Return one printable line of a list of jobs, below `JOB_HEAD`."""
    took = duration_text(slot_time_s(job, now_s))
    line = f"{job.id:>7}  {place_word(job):<16}{took:>10}  {end_word(job):<8} {_first_line(job.text)}"
    return printable(line, LONGEST_LINE)


def build_line(build: BuildRecord) -> str:
    """Return one printable line of a list of builds, below `BUILD_HEAD`."""
    took = duration_text(build.ended_s - build.started_s) if build.ended_s else "?"
    remote, local = build.counts.remote, build.counts.local + build.counts.short
    cached = build.counts.cached
    nowhere = build.jobs - remote - local - cached
    shown = (build.jobs, remote, local, cached, nowhere) if build.ended_s else "?????"
    counts = _COUNTS.format(*shown)
    line = (
        f"{build.id:>5}  {clock_text(build.started_s):<20}{took:>11}  {counts}  {build_end_word(build):<8} "
        f"{build_title(build)}"
    )
    return printable(line, LONGEST_LINE)


def build_end_word(build: BuildRecord) -> str:
    """Return how a build ended, for a cell of a table.

    It is an exit code, a signal, `-`, `cut off` or `open`.
    """
    if not build.ended_s:
        return "open"
    if build.is_cut_off:
        return "cut off"
    if build.signal:
        return signal_name(build.signal)
    return "-" if build.exit_code == NOT_KNOWN else str(build.exit_code)


def build_end_text(build: BuildRecord) -> str:
    """Return how a build ended, in one line."""
    if build.is_cut_off:
        return "cut off: its master was killed, or could not write how it ended"
    word = build_end_word(build)
    return f"exit code {word}" if word.isdecimal() else word


def progress_text(build: BuildRecord, home: int, now_s: float) -> str:
    """Return how far a build is. `home` jobs of it came home since the reader follows it.

    The number of its jobs is not known. The last such build's is shown instead, until this build
    has more jobs.
    """
    done = f"{counted(build.jobs + home, 'job')} done"
    if build.expected_jobs >= build.jobs + home:
        done += f" of about {build.expected_jobs} (as last time)"
    return f"{done}, {duration_text(max(now_s - build.started_s, 0.0))}"


def build_lines(build: BuildRecord, jobs: Sequence[JobRecord]) -> Iterator[str]:
    """Yield the lines that say everything about a build but its jobs. All are printable."""
    build, figures = _up_to_now(build, jobs), build_figures(build, jobs, slowest=5)
    for name, text in _rows(build, figures, jobs):
        yield f"{name:<10}{printable(text, LONGEST_LINE)}"
    if figures.slowest:
        yield "slowest"
        yield JOB_HEAD
        yield from map(job_line, figures.slowest)


def _rows(build: BuildRecord, figures: BuildFigures, jobs: Sequence[JobRecord]) -> Iterator[tuple[str, str]]:
    yield "build", f"{build.id}: {build_title(build)}"
    yield "directory", build.cwd or build.tree
    yield "time", f"{clock_text(build.started_s)}, {build_time_text(build, figures)}"
    if build.ended_s:
        yield "end", build_end_text(build)
    yield "jobs", places_text(figures)
    if lost := unrecorded_text(build, len(jobs)):
        yield "records", lost
    yield "CPU", f"{duration_text(figures.cpu_s)} on workers, {figures.parallelism:.1f} commands at once on average"
    yield "traffic", f"{size_text(figures.sent_bytes)} sent, {size_text(figures.received_bytes)} received"
    for name, worker in figures.by_worker.items():
        failed = f", {counted(worker.failed_attempts, 'attempt')} failed" if worker.failed_attempts else ""
        yield "worker", f"{name or 'none'}: {counted(worker.jobs, 'job')}, {duration_text(worker.cpu_s)} of CPU{failed}"
    if cancelled := sum(job.cause.kind is Why.CANCELLED for job in jobs):
        yield "cancelled", f"{counted(cancelled, 'job')}: the launcher ended before the command did (Ctrl-C, a signal)"
    for cause, count in figures.here:
        yield "local", f"{counted(count, 'job')}: {words_of(cause)}"
    yield from _troubles(build.counts)


def build_time_text(build: BuildRecord, figures: BuildFigures) -> str:
    """Return how long a build took, as far as that is known."""
    so_far = ", up to its last record" if build.is_cut_off else "" if build.ended_s else ", and has not ended"
    return f"{duration_text(figures.wall_s)}{so_far}"


_PLACES = {
    "worker": "on workers",
    "here": "on this machine",
    "cache": "from the cache",
    "answered": "had nothing to do",
    "nowhere": "without a result",
    "undecided": "not decided",
}


def places_text(figures: BuildFigures) -> str:
    """Return how many jobs a build has, and where they ran."""
    places = ", ".join(f"{count} {_PLACES[place]}" for place, count in figures.jobs_in_places.items())
    return f"{sum(figures.jobs_in_places.values())}: {places}" if places else "none"


def unrecorded_text(build: BuildRecord, recorded: int) -> str:
    """Return how many jobs of a build have no record, or "" if all have. `recorded` have one."""
    if not build.ended_s or build.jobs <= recorded:
        return ""
    lost = build.jobs - recorded
    return f"{lost} of {counted(build.jobs, 'job')} have none: the disk was full, or they were removed to make room"


def _troubles(counts: BuildCounts) -> Iterator[tuple[str, str]]:
    for name, count, noun, words in (
        ("failed", counts.nonzero, "command", " failed"),
        ("", counts.failed, "job", " could not be run"),
        ("retried", counts.retried, "failed attempt", ": each time the command ran again"),
        ("conflicts", counts.conflicts, "time", ": two jobs wrote the same file"),
        ("dropped", counts.dropped_writes, "dropped write", ": to caches outside the tree"),
    ):
        if count:
            yield name, f"{counted(count, noun)}{words}"


def markdown(build: BuildRecord, jobs: Sequence[JobRecord]) -> str:
    """Return a build as markdown: a heading, a table of its figures, and its slowest jobs."""
    build, figures = _up_to_now(build, jobs), build_figures(build, jobs, slowest=5)
    lines = [f"### termite: {_cell(build_title(build))}", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(text)} |" for name, text in list(_rows(build, figures, jobs))[1:]]
    if figures.slowest:
        lines += ["", "| slowest job | place | time | end | command |", "|---|---|---|---|---|"]
    for job in figures.slowest:
        cells = [str(job.id), place_word(job), duration_text(slot_time_s(job)), end_word(job), _first_line(job.text)]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


# A character reference of one sign must not be escaped itself, so that all are replaced at once.
_ESCAPES = {ord(character): f"&#{ord(character)};" for character in "\\`*_{}[]<>()#+!|~$@&"}


def _cell(text: str) -> str:
    """Return text that markdown shows as it is, in a cell of a table."""
    return printable(text, 200).translate(_ESCAPES)


def build_object(build: BuildRecord, jobs: Sequence[JobRecord]) -> dict[str, object]:
    """Return a build with its figures and its jobs as an object that json can write."""
    figures = build_figures(build, jobs)
    return {
        "build": as_object(_up_to_now(build, jobs)),
        "figures": {
            "wall_s": figures.wall_s,
            "cpu_s": figures.cpu_s,
            "run_s": figures.run_s,
            "parallelism": figures.parallelism,
            "sent_bytes": figures.sent_bytes,
            "received_bytes": figures.received_bytes,
            "places": figures.jobs_in_places,
            "workers": {
                name: {"jobs": worker.jobs, "cpu_s": worker.cpu_s, "failed_attempts": worker.failed_attempts}
                for name, worker in figures.by_worker.items()
            },
            "here": [{"cause": cause, "jobs": count} for cause, count in figures.here],
            "slowest": [job.id for job in figures.slowest],
        },
        "jobs": [as_object(job) for job in jobs],
    }


def listed_object(build: BuildRecord) -> dict[str, object]:
    """Return a build as an object of a list. If it runs, its counts are None, not known."""
    unknown = {"jobs": None, "last_job": None, "counts": None} if not build.ended_s else {}
    return {**as_object(build), **unknown}


def _up_to_now(build: BuildRecord, jobs: Sequence[JobRecord]) -> BuildRecord:
    return build if build.ended_s else tallied(build, jobs)


def build_title(build: BuildRecord) -> str:
    """Return the first line of a build's command, or words for a build without a build tool."""
    return _first_line(build.text) or "commands without a build tool"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
