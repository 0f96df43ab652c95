"""A job is shown with its place, cause, end and times, and nothing that a terminal obeys."""

import msgspec

from termite.cli.amounts import duration_text
from termite.cli.display.build_figures import running_steps, slot_tracks
from termite.cli.display.job_text import cause_text, end_text, job_lines, phases, place_word, slot_time_s, whole_time_s
from termite.cli.display.trace_events import trace_object
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import Cause, FailedAttempt, JobRecord, LateInput, Where, Why
from tests.synthetic_builds import synthetic_build
from tests.unit.tables import each_row


def test_every_kind_of_record_is_shown_in_printable_lines() -> None:
    _, jobs = synthetic_build(40)
    for job in jobs:
        lines = list(job_lines(job, "/tree"))
        assert all(line.isprintable() for line in lines), lines
        assert lines[0] == f"{'job':<10}{job.id} of build {job.build}"
        whole = "\n".join(lines)
        assert cause_text(job.cause) in whole
        assert end_text(job) in whole
        assert ("retried" in whole) == bool(job.attempts)
        assert ("not kept" in whole) == (not job.is_output_kept)


@each_row("kind", Why)
def test_every_cause_has_words(kind: Why) -> None:
    cause = Cause(kind, Reason.NO_WORKER.value, "beta", "^ar ", ".termite-localrc: entry 1")
    assert len(cause_text(cause).split()) > 2


@each_row("where", Where)
def test_every_place_has_a_word(where: Where) -> None:
    assert place_word(JobRecord(id=1, build=1, text="x", cwd="/", where=where, worker="alpha", slot=3))


def test_a_job_that_was_stopped_on_a_worker_names_it_in_every_view() -> None:
    build, jobs = synthetic_build(20)
    job = next(job for job in jobs if job.where is Where.WORKER)
    changed = {"where": Where.NOWHERE, "cause": Cause(Why.CANCELLED), "started_s": 0.0, "ended_s": 0.0, "signal": 2}
    stopped = msgspec.structs.replace(job, **changed)
    assert place_word(stopped) == place_word(job) == f"{job.worker}:{job.slot}"
    text = "\n".join(job_lines(stopped, "/tree"))
    assert f"place     {job.worker}:{job.slot}\n" in text and "sent and running" in text and "SIGINT" in text
    assert slot_tracks([stopped])[0][0] == f"{job.worker} {job.slot}"
    assert [count for _, count in running_steps([stopped])] == [1, 0]
    events = trace_object(build, [stopped])["traceEvents"]
    assert job.worker in {event["args"].get("name") for event in events if event["name"] == "process_name"}
    assert "send and run" in {event["name"] for event in events}
    queued = msgspec.structs.replace(stopped, sent_s=0.0)
    assert place_word(queued) == "nowhere" and slot_tracks([queued]) == []


def test_a_name_with_a_newline_is_one_name() -> None:
    job = JobRecord(id=1, build=1, text="a\nb", cwd="/x\ny", files=(b"n\xff\nx",), file_count=1, dropped=(b"/d\nd",))
    lines = list(job_lines(job, "/t\nt"))
    assert lines[1:3] == ["command   a", "          b"] and "directory /x\\x0ay" in lines
    assert "wrote     /t\\x0at/n\\xff\\x0ax" in lines and "dropped   /d\\x0ad" in lines


def test_phases_follow_each_other_even_if_clocks_do_not() -> None:
    job = JobRecord(
        id=1, build=1, text="x", cwd="/", queued_s=10.0, sent_s=12.0, started_s=11.5, ended_s=14.0, home_s=15.0
    )
    assert phases(job) == [("queued", 10.0, 12.0), ("sent", 12.0, 12.0), ("run", 12.0, 14.0), ("home", 14.0, 15.0)]
    assert whole_time_s(job) == 5.0
    assert slot_time_s(job) == 3.0
    running = msgspec.structs.replace(job, ended_s=0.0, home_s=0.0, started_s=0.0)
    assert phases(running) == [("queued", 10.0, 12.0)]
    assert slot_time_s(running, now_s=20.0) == 8.0


def test_a_job_that_is_not_home_says_how_long_it_has_been_where() -> None:
    job = JobRecord(id=1, build=1, text="x", cwd="/", queued_s=10.0, where=Where.WORKER, worker="w", slot=0)

    def time_of(job: JobRecord) -> str:
        (line,) = [line for line in job_lines(job, "/tree", 20.0) if line.startswith("time")]
        return line.removeprefix("time").strip()

    sent = msgspec.structs.replace(job, sent_s=12.0)
    assert time_of(job) == "10.0 s so far: queued for 10.0 s"
    assert time_of(sent) == "10.0 s so far: queued 2.00 s, sent and running for 8.00 s"
    ended = msgspec.structs.replace(sent, started_s=13.0, ended_s=19.0)
    assert time_of(ended) == ("10.0 s so far: queued 2.00 s, sending 1.00 s, running 6.00 s, bringing home for 1.00 s")
    home = msgspec.structs.replace(ended, home_s=19.5)
    assert time_of(home) == "9.50 s: queued 2.00 s, sending 1.00 s, running 6.00 s, bringing home 0.50 s"


@each_row(
    ("seconds", "text"),
    [
        (0.0, "0.0 ms"),
        (0.0034, "3.4 ms"),
        (0.0342, "34 ms"),
        (0.342, "0.34 s"),
        (9.99, "9.99 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7380, "2 h 3 min"),
    ],
)
def test_durations_have_a_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_job_that_passed_when_an_input_had_changed_says_which_dependency_is_missing() -> None:
    attempt = FailedAttempt("alpha", Reason.INPUT_CHANGED.value, "gen.h (made by job 3)")
    job = JobRecord(
        id=4, build=1, text="gcc -c x.c -o x.o", cwd="/", where=Where.WORKER, worker="alpha", exit_code=0,
        files=(b"x.o",), attempts=(attempt,), late_inputs=(LateInput("gen.h", job=3),),
    )  # fmt: skip
    lines = list(job_lines(job, "/tree"))
    assert f"{'retried':<10}after alpha: {Reason.INPUT_CHANGED.words} (gen.h (made by job 3))" in lines
    line = "x.o failed, then passed when gen.h (made by job 3) was there: a dependency is missing"
    assert f"{'missing':<10}{line}" in lines
    assert not any("missing" in line for line in job_lines(msgspec.structs.replace(job, exit_code=1), "/tree"))
