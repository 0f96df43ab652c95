"""Test how the doctor judges figures, and how it shows what it has found."""

from argparse import Namespace
from pathlib import Path

import pytest
import trio

from termite.cli.doctor import doctor_command
from termite.cli.doctor.doctor_command import run_doctor
from termite.cli.doctor.farm_checks import judge_list
from termite.cli.doctor.finding import Finding, Level, exit_code_of, findings_report, shown_finding, verdict_line
from termite.cli.doctor.own_files import judge_variables
from termite.cli.doctor.room_checks import (
    judge_clock,
    judge_disk,
    judge_files,
    judge_instances,
    judge_memory,
    judge_processes,
    judge_watches,
)
from termite.cli.doctor.trial_jobs import Patient, _failure, clock_finding, refusal_finding, room_finding
from termite.engine.errors import Reason, Retryable, UserError
from termite.engine.model import MachineFacts, WorkerRoom
from termite.engine.wire.protocol.fleet_messages import ListedWorker
from tests.unit.tables import each_row

GIB = 1024**3
OK, WARNING, FAILURE = Level.OK, Level.WARNING, Level.FAILURE


def a_finding(level: Level, mend: str = "do this") -> Finding:
    return Finding("this machine", "fuse", level, "it is so\x1b[2J", mend)


def test_a_worker_without_room_gets_the_deed_that_helps() -> None:
    found = _failure(Patient("worker w", "w1", "h", 1), Retryable(Reason.DISK_FULL, "No space"), is_connected=True)
    assert (found.text, found.mend) == ("the worker's disk is full: No space", Reason.DISK_FULL.deed)
    other = _failure(Patient("worker w", "w1", "h", 1), Retryable(Reason.WORKER_BUG), is_connected=True)
    assert other.mend == "read the worker's log, and run termite-ctl doctor there"


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_farm_that_was_asked_for_needs_no_word_that_it_was_not(
    is_asked: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("check_this_machine", "check_room", "check_own_files"):
        monkeypatch.setattr(doctor_command, name, list)

    async def try_nothing(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(doctor_command, "_run_jobs", try_nothing)
    monkeypatch.setattr(doctor_command, "check_secret", lambda path: (b"", a_finding(FAILURE)))
    run_doctor(Namespace(coordinator="farm" if is_asked else "", secret=None, json=False))
    said = capsys.readouterr().out
    assert ("no farm was checked" in said) != is_asked and ("1 failure" in said) == is_asked


def test_the_exit_code_is_that_of_the_worst_finding() -> None:
    assert exit_code_of([a_finding(OK)]) == 0
    assert exit_code_of([a_finding(OK), a_finding(WARNING)]) == 104
    assert exit_code_of([a_finding(WARNING), a_finding(FAILURE), a_finding(OK)]) == 105


def test_a_bad_finding_is_shown_with_what_mends_it_and_without_control_characters() -> None:
    assert shown_finding(a_finding(OK)) == "ok       fuse          it is so\\x1b[2J"
    assert shown_finding(a_finding(FAILURE)).splitlines() == [
        "failure  fuse          it is so\\x1b[2J",
        "         mend it by    do this",
    ]
    assert len(shown_finding(a_finding(WARNING, mend="")).splitlines()) == 1


def test_the_last_line_counts() -> None:
    assert verdict_line([a_finding(OK)]) == "all is well: 1 checks"
    assert verdict_line([a_finding(FAILURE), a_finding(FAILURE), a_finding(WARNING)]) == "2 failures, 1 warning"
    report = findings_report([a_finding(FAILURE), a_finding(OK)])
    assert (report["failures"], report["warnings"]) == (1, 0)


@each_row(
    ("finding", "level"),
    [
        (judge_files(-1, 8), OK),
        (judge_files(1024, 8), OK),
        (judge_files(200, 8), WARNING),
        (judge_files(100, 8), FAILURE),
        (judge_processes(-1, 1_000_000, 8), OK),
        (judge_processes(1000, 100, 8), OK),
        (judge_processes(200, 80, 8), WARNING),
        (judge_processes(100, 200, 8), FAILURE),
        (judge_memory(0, 0), OK),
        (judge_memory(2 * GIB, 4 * GIB), OK),
        (judge_memory(GIB // 4, 4 * GIB), WARNING),
        (judge_memory(1, 4 * GIB), FAILURE),
        (judge_watches({"a": 100_000, "b": 8192}), OK),
        (judge_watches({"a": 100_000, "b": 100}), WARNING),
        (judge_instances({"a": 128}, is_possible=True), OK),
        (judge_instances({"a": 8}, is_possible=True), WARNING),
        (judge_instances({"a": 128}, is_possible=False), FAILURE),
        (judge_clock(1_800_000_000, True), OK),
        (judge_clock(1_800_000_000, None), OK),
        (judge_clock(0, False), FAILURE),
        (clock_finding("worker w", 100_000_000), OK),
        (clock_finding("worker w", -500_000_000), WARNING),
        (clock_finding("worker w", 2_000_000_000), FAILURE),
        (room_finding("worker w", WorkerRoom(20 * GIB, 5 * GIB, 1000, GIB)), OK),
        (room_finding("worker w", WorkerRoom(20 * GIB, GIB // 2, 1000, GIB)), WARNING),
    ],
)
def test_a_figure_is_judged(finding: Finding, level: Level) -> None:
    assert finding.level is level
    assert finding.mend or level is OK


@each_row(
    ("free_bytes", "free_files", "total_files", "about", "level"),
    [
        (10 * GIB, 1_000_000, 2_000_000, "cache", OK),
        (10 * GIB, 0, 0, "cache", OK),  # btrfs has no inodes to count
        (GIB // 2, 1_000_000, 2_000_000, "cache", WARNING),
        (0, 1_000_000, 2_000_000, "cache", FAILURE),
        (10 * GIB, 5_000, 2_000_000, "cache-inodes", WARNING),
        (GIB // 2, 10, 2_000_000, "cache-inodes", FAILURE),
        (0, 5_000, 2_000_000, "cache", FAILURE),
    ],
)
def test_a_disk_is_judged_by_what_it_lacks(
    free_bytes: int, free_files: int, total_files: int, about: str, level: Level
) -> None:
    found = judge_disk("cache", Path("/c"), free_bytes, free_files, total_files, "make room")
    assert (found.about, found.level) == (about, level)


@each_row(
    ("name", "value", "mend"),
    [
        ("TERMITE", "of", "export TERMITE=off"),
        ("TERMITE_LOCAL", "nevr", "export TERMITE_LOCAL=never"),
        ("TERMITE_SHORT", "nan", "export TERMITE_SHORT=auto"),
        ("TERMITE_SHORT", "-1", "export TERMITE_SHORT=auto"),
        ("TERMITE_VERBSE", "1", "unset TERMITE_VERBSE; export TERMITE_VERBOSE=1"),
        ("TERMITE_XYZ", "1", "unset TERMITE_XYZ"),
        ("TERMITE_VERSOBE", "1", "unset TERMITE_VERSOBE; export TERMITE_VERBOSE=1"),
        ("TERMITE_ZZZZZZZZZZZZ", "1", "unset TERMITE_ZZZZZZZZZZZZ"),
    ],
)
def test_a_variable_without_a_meaning_is_a_warning(name: str, value: str, mend: str) -> None:
    others = {"TERMITE_LOCAL": "never", "TERMITE_SHORT": "12.5", "HOME": "/"}
    (found,) = judge_variables({**others, name: value})
    assert (found.level, found.mend) == (WARNING, mend)


def test_known_variables_are_no_finding() -> None:
    env = {"TERMITE": "off", "TERMITE_LOCAL": "", "TERMITE_TMP": "private", "TERMITE_NATIVE": "/x", "TERMITES": "x"}
    assert list(judge_variables(env)) == []


def worker(name: str, architecture: str = "x86_64", draining: bool = False, rival: str = "") -> ListedWorker:
    facts = MachineFacts(architecture=architecture)
    return ListedWorker(name, "10.0.0.1:1235", 4, 0, 0.0, 0, draining, facts, rival)


def test_a_list_of_workers_is_judged() -> None:
    (empty,) = judge_list("coordinator", (), "x86_64")
    assert empty.level is FAILURE
    workers = (worker("a"), worker("b", rival="10.0.0.2:1235"), worker("c", draining=True), worker("d", "aarch64"))
    found = {(finding.area, finding.about): finding.level for finding in judge_list("coordinator", workers, "x86_64")}
    assert found == {
        ("coordinator", "workers"): OK,
        ("worker b", "name"): FAILURE,
        ("worker c", "drains"): WARNING,
        ("worker d", "architecture"): WARNING,
    }


@pytest.mark.parametrize(
    ("reason", "about"),
    [(Reason.CLOCKS_DIFFER, "clock"), (Reason.OTHER_PROTOCOL, "version"), (Reason.UNFIT_WORKER, "job")],
)
def test_a_refusal_is_named_by_its_reason(reason: Reason, about: str) -> None:
    found = refusal_finding("worker w", UserError("no", reason=reason), "job", "see the log")
    assert (found.about, found.level, bool(found.mend)) == (about, FAILURE, True)
