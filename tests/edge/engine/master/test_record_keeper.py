"""Records are made and written beside the jobs, and no trouble with them concerns a job."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
import trio

from termite.engine.decide.environment import Environment
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import JobRecord, Where, Why
from termite.engine.history.past_builds import PastBuilds
from termite.engine.history.record_writer import RecordWriter
from termite.engine.host.process_exit import ExitUnknown
from termite.engine.launch.output_tail import OutputTail
from termite.engine.master.job import Job
from termite.engine.master.recording import record_keeper
from termite.engine.master.recording.build_notes import BuildNotes
from termite.engine.master.recording.job_notes import NO_PROCESS, JobNotes
from termite.engine.master.recording.job_records import RecordSettings
from termite.engine.master.recording.record_keeper import MAX_PROCESSES, BuildStep, RecordKeeper, Written, WrittenBuild
from termite.engine.model import Attr, Change, Command, Exit, How, Invocation, Rule, Usage, Verdict

TREE = b"home/u/p"


def keeper_in(directory: Path | None, *, keeps_output: bool = True) -> RecordKeeper:
    settings = RecordSettings(TREE, ("DEPLOY_*",), keeps_output)
    return RecordKeeper(directory, settings, lambda build: build.record("/home/u/p", "1"))


def new_build(keeper: RecordKeeper) -> BuildNotes:
    build = BuildNotes(keeper.last_build + 1, time.time(), "make", "make", "/home/u/p")
    keeper.add(BuildStep(build, is_end=False))
    return build


def finished(build: BuildNotes, number: int, text: str = "gcc -c x.c", **facts: Any) -> Job:
    """Return a job that came home from a worker. `facts` are notes that differ."""
    notes = JobNotes(build=build, queued_s=1.0, sent_s=2.0, home_s=5.0, where=Where.WORKER, worker="w1")
    notes.exit, notes.usage = Exit(0), Usage()
    for name, fact in facts.items():
        setattr(notes, name, fact)
    env = Environment({"DEPLOY_KEY": "very-secret-value"})
    invocation = Invocation(("sh", "-c", text), "/bin/sh", True, "/home/u/p", env, How.DIRECT)
    command = Command(invocation.argv, invocation.exe, True, invocation.cwd, env, text)
    build.begun += 1
    job = SimpleNamespace(
        id=number,
        notes=notes,
        command=command,
        verdict=Verdict(local=False),
        request=SimpleNamespace(invocation=invocation),
        launcher=SimpleNamespace(pid=77, gone=None),
        output=SimpleNamespace(tail=OutputTail()),
        plugin="make",
        place="",
    )
    return cast(Job, job)


def end(keeper: RecordKeeper, build: BuildNotes) -> None:
    build.ended_s = time.time()
    build.exit_code = 0
    keeper.add(BuildStep(build, is_end=True))


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


def only_jobs(written: list[Written | WrittenBuild]) -> list[JobRecord]:
    return [entry.record for entry in written if isinstance(entry, Written) and entry.record]


async def test_a_batch_is_whole_on_the_disk_when_it_was_written(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    for number in range(1, 4):
        keeper.add(finished(build, number))
    end(keeper, build)
    with trio.fail_after(5):
        await keeper.wait_for_batch()
    written = await keeper.write_batch()
    assert [job.id for job in only_jobs(written)] == [1, 2, 3]
    past = PastBuilds(tmp_path)
    assert [build.jobs for build in past.builds()] == [3] and past.builds()[0].ended_s == build.ended_s
    assert [job.id for job in past.jobs(1)] == [1, 2, 3]
    assert isinstance(written[-1], WrittenBuild) and written[-1].is_end
    keeper.close()
    again = keeper_in(tmp_path)
    assert (again.last_build, [build.jobs for build in again.builds]) == (1, [3])
    again.close()


async def test_jobs_that_outlive_their_build_are_in_its_record(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    late = finished(build, 7)
    end(keeper, build)
    await keeper.write_batch()
    assert PastBuilds(tmp_path).builds()[0].jobs == 0
    keeper.add(late)
    await keeper.write_batch()
    assert PastBuilds(tmp_path).builds()[0].jobs == 1
    assert build.is_closed
    keeper.close()


async def test_every_fact_of_a_job_has_its_place(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    changes = (
        Change(TREE, Attr(0o40755, 0, 1)),
        Change(TREE + b"/x.o", Attr(0o100644, 6, 1)),
        Change(TREE + b"/gone", None),
        Change(b"tmp/y", Attr(0o100644, 6, 1)),
        Change(TREE + b"/link", Attr(0o120777, 6, 1)),
    )
    usage = Usage(3.0, 1.0, 0.5, 4096, 12)
    job = finished(
        build,
        1,
        "echo very-secret-value \udcff",
        changes=changes,
        usage=usage,
        dropped=(b"home/u/.cache/x",),
        exit=Exit(0, 11),
        traffic=(10, 20, 3),
        timed_out=True,
    )
    job.output.tail.add(b"said very-secret-value\n")
    job.verdict = Verdict(False, Rule("echo", network=True, source="here"))
    keeper.add(job)
    (record,) = only_jobs(await keeper.write_batch())
    assert record.text == "echo *** \\xff" and record.output == b"said ***\n" and record.output_bytes == 23
    assert (record.files, record.file_count) == ((b"x.o", b"link"), 2)
    assert (record.dropped, record.dropped_count) == ((b"/home/u/.cache/x",), 1)
    assert (record.exit_code, record.signal, record.timed_out) == (-1, 11, True)
    assert (record.user_s, record.system_s, record.peak_memory_bytes, record.fuse_requests) == (1.0, 0.5, 4096, 12)
    assert (record.sent_bytes, record.received_bytes, record.wire_requests) == (10, 20, 3)
    assert (record.cause.kind, record.cause.regexp, record.cause.source) == (Why.RULE, "echo", "here")
    assert PastBuilds(tmp_path).job(1) == record
    assert b"very-secret" not in everything_in(tmp_path)
    keeper.close()


@pytest.mark.parametrize("silent", ["rule", "flag"])
async def test_output_may_be_left_out(silent: str) -> None:
    keeper = keeper_in(None, keeps_output=silent != "flag")
    job = finished(new_build(keeper), 1)
    job.output.tail.add(b"private")
    job.verdict = Verdict(False, Rule("x", log=silent != "rule"))
    keeper.add(job)
    (record,) = only_jobs(await keeper.write_batch())
    assert (record.output, record.output_bytes, record.is_output_kept) == (b"", 7, False)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"where": Where.ANSWERED}, (Why.NO_OP, "")),
        ({"where": Where.HERE, "is_short": True}, (Why.SHORT, "")),
        ({"where": Where.HERE, "reason": Reason.NO_WORKER}, (Why.FALL_BACK, "no-worker")),
        ({"where": Where.NOWHERE, "reason": Reason.NO_WORKER, "is_forbidden": True}, (Why.FORBIDDEN, "no-worker")),
        ({"where": Where.NOWHERE, "is_cancelled": True}, (Why.CANCELLED, "")),
        ({}, (Why.NO_RULE, "")),
    ],
)
async def test_a_place_has_its_cause(facts: dict[str, Any], expected: tuple[Why, str]) -> None:
    keeper = keeper_in(None)
    keeper.add(finished(new_build(keeper), 1, **facts))
    (record,) = only_jobs(await keeper.write_batch())
    assert (record.cause.kind, record.cause.reason) == expected


@pytest.mark.logs("record-failed")
async def test_a_bug_with_one_job_costs_only_its_record(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    broken = finished(build, 1)
    broken.notes.changes = cast(tuple[Change, ...], 5)
    for job in (broken, finished(build, 2)):
        keeper.add(job)
    end(keeper, build)
    written = await keeper.write_batch()
    assert [entry.job.id for entry in written if isinstance(entry, Written)] == [1, 2], "both are done with"
    assert [job.id for job in PastBuilds(tmp_path).jobs(1)] == [2]
    assert build.is_over and build.is_closed
    keeper.close()


@pytest.mark.logs("records-not-written")
async def test_a_full_disk_costs_records_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    await keeper.write_batch()
    with patch.object(RecordWriter, "write", side_effect=OSError(28, "No space left on device")):
        for number in (1, 2):
            keeper.add(finished(build, number))
            assert len(only_jobs(await keeper.write_batch())) == 1, "the live stream has it"
    assert caplog.text.count("records-not-written") == 1
    keeper.add(finished(build, 3))
    await keeper.write_batch()
    assert [job.id for job in PastBuilds(tmp_path).jobs(1)] == [3]
    keeper.close()


@pytest.mark.logs("records-not-written")
async def test_a_directory_that_cannot_be_used_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keeper = keeper_in(tmp_path / "file" / "records")
    keeper.add(finished(new_build(keeper), 1))
    assert len(only_jobs(await keeper.write_batch())) == 1
    keeper.close()


@pytest.mark.logs("records-not-written")
async def test_a_second_master_of_a_tree_writes_no_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = keeper_in(tmp_path), keeper_in(tmp_path)
    for keeper in (second, first):
        keeper.add(finished(new_build(keeper), 1))
        assert len(only_jobs(await keeper.write_batch())) == 1, "the live stream has it"
    assert caplog.text.count("another master writes the records of this tree") == 1
    assert [build.jobs for build in PastBuilds(tmp_path).builds()] == [0], "only the start is written yet"
    assert len(PastBuilds(tmp_path).jobs(1)) == 1
    second.close()
    first.close()


@pytest.mark.logs("records-not-written")
async def test_files_that_cannot_be_read_are_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with patch.object(PastBuilds, "written_builds", side_effect=ValueError("odd bytes")):
        keeper = keeper_in(tmp_path)
    assert caplog.text.count("records-not-written") == 1 and "odd bytes" in caplog.text
    keeper.add(finished(new_build(keeper), 1))
    assert len(only_jobs(await keeper.write_batch())) == 1
    keeper.close()


@pytest.mark.logs("records-dropped")
async def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    with patch.object(record_keeper, "MAX_STEPS", 3):
        assert [keeper.add(finished(build, number)) for number in range(4)] == [True, True, False, False]
        end(keeper, build)
    await keeper.write_batch()
    assert build.is_over and PastBuilds(tmp_path).builds()[0].jobs == 2
    keeper.close()


@contextmanager
def a_child(script: str) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(["sh", "-c", script]) as process:
        yield process


def ended_here(keeper: RecordKeeper, build: BuildNotes, process: "subprocess.Popen[bytes]", ended_s: float) -> Job:
    pidfd = os.pidfd_open(process.pid)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert keeper.keep_process(pidfd)
    return finished(build, 1, where=Where.HERE, exit=None, process=pidfd, ended_s=ended_s)


async def test_an_exit_is_asked_again_until_the_parent_has_waited(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    build = new_build(keeper)
    with a_child("exit 6") as process:
        job = ended_here(keeper, build, process, time.time() + 100)
        keeper.add(job)
        if written := only_jobs(await keeper.write_batch()):
            keeper.close()
            assert written[0].exit_code == -1
            pytest.skip("needs Linux 6.15")
        process.wait()
    with trio.fail_after(5):
        await keeper.wait_for_batch()
    assert [record.exit_code for record in only_jobs(await keeper.write_batch())] == [6]
    assert job.notes.process == NO_PROCESS
    keeper.close()


async def test_an_exit_that_nobody_tells_is_not_known() -> None:
    keeper = keeper_in(None)
    build = new_build(keeper)
    with a_child("exit 0") as process:
        keeper.add(ended_here(keeper, build, process, time.time() - 100))
        assert [record.exit_code for record in only_jobs(await keeper.write_batch())] == [-1]


async def test_an_old_kernel_is_asked_once() -> None:
    keeper = keeper_in(None)
    build = new_build(keeper)
    with a_child("exit 0") as process, patch.object(record_keeper, "exit_of", side_effect=ExitUnknown):
        keeper.add(ended_here(keeper, build, process, time.time()))
        assert [record.exit_code for record in only_jobs(await keeper.write_batch())] == [-1]
    assert not keeper.keep_process(0)


async def test_few_descriptors_are_kept() -> None:
    keeper = keeper_in(None)
    assert all(keeper.keep_process(-2 - number) for number in range(MAX_PROCESSES))
    assert not keeper.keep_process(-1)
