"""A build is shown as its records say, in lines, in markdown and in JSON."""

import html
import json
import re

import msgspec

from termite.cli.display.build_figures import build_figures
from termite.cli.display.build_text import build_line, build_lines, build_object, job_line, markdown, progress_text
from termite.cli.display.trace_events import trace_object
from termite.engine.history.logic.job_record import BuildCounts, Where, Why
from tests.synthetic_builds import synthetic_build


def test_figures_are_those_of_the_records() -> None:
    build, jobs = synthetic_build(200)
    figures = build_figures(build, jobs)
    on_workers = [job for job in jobs if job.where is Where.WORKER]
    assert figures.jobs_in_places["worker"] == len(on_workers) == sum(one.jobs for one in figures.by_worker.values())
    assert sum(count for _, count in figures.here) == figures.jobs_in_places["here"]
    assert figures.by_worker["delta"].failed_attempts == sum(len(job.attempts) for job in jobs)
    held = [job.home_s - job.sent_s for job in figures.slowest]
    assert held == sorted(held, reverse=True)
    assert held[0] == max(job.home_s - job.sent_s for job in jobs if job.sent_s)
    assert figures.wall_s == build.ended_s - build.started_s


def test_figures_of_workers_count_no_local_commands() -> None:
    build, jobs = synthetic_build(200)
    here = [msgspec.structs.replace(job, where=Where.HERE) for job in jobs]
    assert build_figures(build, here).parallelism == 0


def test_the_number_of_the_last_build_is_left_out_when_it_is_passed() -> None:
    build = msgspec.structs.replace(synthetic_build(0)[0], jobs=2, expected_jobs=3)
    assert progress_text(build, 1, build.started_s + 1).startswith("3 jobs done of about 3 (")
    assert progress_text(build, 2, build.started_s + 1).startswith("4 jobs done, ")


def test_lines_are_printable_and_name_every_worker() -> None:
    build, jobs = synthetic_build(60)
    lines = [build_line(build), *build_lines(build, jobs), *map(job_line, jobs)]
    assert all(line.isprintable() for line in lines)
    assert {"alpha", "beta", "gamma"} <= set(re.findall(r"^worker +(\w+)", "\n".join(lines), re.MULTILINE))


def test_every_job_of_a_build_is_in_a_column_and_cancelled_ones_are_said() -> None:
    build, jobs = synthetic_build(60)
    total, workers, here, cache, nowhere = map(int, re.findall(r"\d+", build_line(build)[40:77]))
    assert total == 60 == workers + here + cache + nowhere and nowhere > 0
    cancelled = sum(job.cause.kind is Why.CANCELLED for job in jobs)
    assert any(line.startswith(f"cancelled {cancelled} job") for line in build_lines(build, jobs))


def test_a_build_without_an_end_or_without_jobs_is_shown() -> None:
    build, jobs = synthetic_build(20)
    open_build = msgspec.structs.replace(build, ended_s=0.0, text="")
    assert " open " in build_line(open_build)
    assert any("has not ended" in line for line in build_lines(open_build, jobs))
    assert any("none" in line for line in build_lines(build, []))


def test_jobs_without_a_record_are_said() -> None:
    build, jobs = synthetic_build(20)
    assert "have none" not in "\n".join(build_lines(build, jobs))
    assert any(line.startswith("records   5 of 20 jobs have none: ") for line in build_lines(build, jobs[:15]))
    open_build = msgspec.structs.replace(build, ended_s=0.0)
    assert not any(line.startswith("records") for line in build_lines(open_build, jobs[:15]))


def test_a_build_whose_master_was_killed_is_cut_off_everywhere() -> None:
    build, jobs = synthetic_build(20)
    build = msgspec.structs.replace(build, is_cut_off=True, exit_code=-1)
    assert " cut off " in build_line(build)
    shown = "\n".join(build_lines(build, jobs))
    assert "up to its last record" in shown and "end       cut off: its master was killed" in shown
    assert "cut off" in markdown(build, jobs)
    assert '"is_cut_off": true' in json.dumps(build_object(build, jobs))
    (tool,) = [event for event in trace_object(build, jobs)["traceEvents"] if "build" in event.get("args", {})]
    assert tool["args"]["end"].startswith("cut off")
    assert "|" in markdown(build, [])


def test_markdown_shows_hostile_text_as_text() -> None:
    build, jobs = synthetic_build(20)
    hostile = msgspec.structs.replace(build, text="make '|' <script> `x` [a](b)\n| evil |")
    slow = msgspec.structs.replace(jobs[0], text="a | b <img src=x>", sent_s=1.0, home_s=10_000.0)
    text = markdown(hostile, [slow])
    assert "<script>" not in text
    assert "<img" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {3, 6}
    assert "evil" not in text


def test_markdown_shows_each_command_as_it_is() -> None:
    build, jobs = synthetic_build(20)
    text = "echo err >&2; a && b || c # &amp; `d` [e](f) $g \\ *"
    shown = markdown(build, [msgspec.structs.replace(jobs[0], text=text, sent_s=1.0, home_s=10_000.0)])
    assert html.unescape(shown.splitlines()[-1]).endswith(f"| {text} |")


def test_one_is_not_written_as_many() -> None:
    build, jobs = synthetic_build(20)
    counts = BuildCounts(nonzero=1, retried=1, failed=2, dropped_writes=1)
    lines = list(build_lines(msgspec.structs.replace(build, counts=counts), jobs))
    assert "failed    1 command failed" in lines and "          2 jobs could not be run" in lines
    assert "retried   1 failed attempt: each time the command ran again" in lines
    assert "dropped   1 dropped write: to caches outside the tree" in lines


def test_json_has_the_build_its_figures_and_every_job() -> None:
    build, jobs = synthetic_build(40)
    read = json.loads(json.dumps(build_object(build, jobs)))
    assert [job["id"] for job in read["jobs"]] == [job.id for job in jobs]
    assert read["build"]["id"] == build.id
    assert read["figures"]["slowest"]
