"""A job is shown with its place, cause, end and times, and nothing that a terminal obeys."""

import time

import msgspec

from termite.cli.amounts import duration_text
from termite.cli.display.build_figures import running_steps, slot_tracks
from termite.cli.display.job_text import cause_text, end_text, job_lines, phases, place_word, slot_time_s, whole_time_s
from termite.cli.display.trace_events import trace_object
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import (
    TEXT_CHARACTERS,
    Cause,
    FailedAttempt,
    JobRecord,
    LateInput,
    MissDetail,
    Where,
    Why,
)
from termite.engine.model import How
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


WHOLE = JobRecord(
    id=7, build=3, text="x" * TEXT_CHARACTERS + "...", cwd="/d", text_length=9000, how=How.SHELL, tool="gmake",
    plugin="cmake", where=Where.WORKER, cause=Cause(Why.FALL_BACK, "no-worker", "beta", "^ar ", "file: entry 1"),
    worker="alpha", slot=2, queued_s=1e9, sent_s=1e9 + 1, started_s=1e9 + 2, ended_s=1e9 + 3, home_s=1e9 + 4,
    exit_code=1, user_s=1.0, system_s=2.0, peak_memory_bytes=3, sent_bytes=4, received_bytes=5, fuse_requests=6,
    wire_requests=7, files=(b"a.o",), file_count=2, dropped=(b"/c",), dropped_count=3,
    attempts=(FailedAttempt("beta", "connection-lost", "gone", 1e9),), output=b"said", output_bytes=5000, pid=4711,
    trace_calls=8, trace_paths=9, trace_gaps=("mount",), late_inputs=(LateInput("gen.h", job=5),), miss="argument",
    missed=MissDetail("word", "new", "old", "new"),
)  # fmt: skip
OTHER_VALUES: dict[str, object] = {
    "text": "other",
    "how": How.PRELOAD,
    "where": Where.CACHE,
    "exit_code": 0,
    "signal": 9,
    "timed_out": True,
    "files": (b"b.o",),
    "dropped": (b"/b",),
    "output": b"wrote",
    "output_bytes": 9000,
    "ran_again": True,
    "is_output_kept": False,
    "trace_gaps": (),
    "miss": "never",
}
PARTS = {"cause": "cause", "attempts": "attempts", "late_inputs": "late_inputs", "missed": "missed"}


def changed(name: str, value: object) -> object:
    """Return another value for a field."""
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, str):
        return "other"
    assert isinstance(value, int | float), f"say in OTHER_VALUES what else {name} may be"
    return type(value)(value + 1)


def test_everything_that_a_record_has_is_in_a_row() -> None:
    def shown(record: JobRecord) -> list[str]:
        return list(job_lines(record, "/tree"))

    for name in JobRecord.__struct_fields__:
        value = getattr(WHOLE, name)
        if name not in PARTS:
            other = msgspec.structs.replace(WHOLE, **{name: changed(name, value)})
            assert shown(other) != shown(WHOLE), f"no row shows {name}"
            continue
        part = value[0] if isinstance(value, tuple) else value
        for inner in part.__struct_fields__:
            values = {"reason": "worker-lost", "kind": Why.TIE if name == "cause" else "came", "is_there": False}
            new = values[inner] if inner in values else changed(inner, getattr(part, inner))
            if (name, inner) == ("missed", "name"):
                continue  # for the kind `word` it is `new` again
            now = msgspec.structs.replace(part, **{inner: new})
            other = msgspec.structs.replace(WHOLE, **{name: (now,) if isinstance(value, tuple) else now})
            assert shown(other) != shown(WHOLE), f"no row shows {inner} of {name}"


def test_a_job_says_at_which_time_of_day_it_came_and_was_home() -> None:
    (line,) = [line for line in job_lines(WHOLE, "/tree") if line.startswith("when ")]
    came, home = (time.strftime("%H:%M:%S.000", time.localtime(1e9 + at_s)) for at_s in (0, 4))
    date = time.strftime("%Y-%m-%d", time.localtime(1e9))
    assert f"came {date} {came}, sent" in line and line.endswith(f"home {home}")
    late = msgspec.structs.replace(WHOLE, home_s=1e9 + 86400)
    (line,) = [line for line in job_lines(late, "/tree") if line.startswith("when ")]
    assert line.endswith(time.strftime("home %Y-%m-%d %H:%M:%S.000", time.localtime(1e9 + 86400)))
    queued = JobRecord(id=1, build=1, text="x", cwd="/", queued_s=1e9)
    assert any(line == f"{'when':<10}came {date} {came}" for line in job_lines(queued, "/tree"))


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
