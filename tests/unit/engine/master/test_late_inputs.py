"""Test which failed jobs run again because an input has changed."""

from dataclasses import replace
from signal import SIGINT, SIGKILL, SIGSEGV, SIGTERM

import pytest

from termite.engine.history.logic.job_record import INPUTS_NAMED, LateInput
from termite.engine.master.recording.authors import AUTHORS_KEPT, Authors
from termite.engine.master.remote_runs.late_inputs import (
    LONGEST_S,
    JudgedRun,
    Objection,
    recorded_inputs,
)
from termite.engine.model import Exit
from termite.engine.recall.logic.changed_inputs import ChangedInput
from tests.unit.tables import each_row

FAILED = JudgedRun(Exit(1), took_s=0.1)


@pytest.mark.parametrize("exit", [Exit(1), Exit(127), Exit(0, SIGSEGV)])
def test_a_command_that_failed_may_run_again(exit: Exit) -> None:
    assert replace(FAILED, exit=exit).objection() is None
    assert replace(FAILED, took_s=LONGEST_S - 0.1).objection() is None
    assert replace(FAILED, took_s=-1.0).objection() is None, "the worker's clock was set back"


@each_row(
    ("run", "objection"),
    [
        (replace(FAILED, exit=Exit(0)), Objection.PASSED),
        (replace(FAILED, is_started=False), Objection.NOT_STARTED),
        (replace(FAILED, has_timed_out=True), Objection.STOPPED),
        *((replace(FAILED, exit=Exit(0, number)), Objection.STOPPED) for number in (SIGINT, SIGKILL, SIGTERM)),
        (replace(FAILED, is_cancelled=True), Objection.CANCELLED),
        (replace(FAILED, is_traced=False), Objection.UNTRACED),
        (replace(FAILED, took_s=LONGEST_S), Objection.TOO_LONG),
        (replace(FAILED, had_network=True), Objection.NETWORK),
        (replace(FAILED, has_shown=True), Objection.SHOWN),
        (replace(FAILED, can_rewind=False), Objection.STDIN),
        (replace(FAILED, has_rerun=True), Objection.RERAN),
    ],
)
def test_each_condition_keeps_a_command_from_running_again(run: JudgedRun, objection: Objection) -> None:
    assert run.objection() is objection


def test_inputs_are_named_below_the_tree_and_only_so_many() -> None:
    inputs = recorded_inputs(
        [(ChangedInput(b"home/p/gen.h", True, 3), 7), (ChangedInput(b"tmp/x", False, 3), 0)], b"home/p"
    )
    assert inputs == (LateInput("gen.h", True, 7), LateInput("/tmp/x", False, 0))
    assert recorded_inputs([(ChangedInput(b"home/p", True, 3), 0)], b"home/p") == (LateInput("."),)
    assert recorded_inputs([(ChangedInput(b"p/\xff", True, 3), 0)], b"p") == (LateInput("\\xff"),)
    many = [(ChangedInput(b"p/%d" % number, True, 1), 0) for number in range(2 * INPUTS_NAMED)]
    assert len(recorded_inputs(many, b"p")) == INPUTS_NAMED


def test_the_job_that_made_a_changeset_is_remembered_for_a_while() -> None:
    authors = Authors()
    authors.note(5, 1)
    authors.note(5, 2)
    assert (authors.job_of(5), authors.job_of(6)) == (1, 0), "a job without changes takes nobody's place"
    for number in range(6, 6 + AUTHORS_KEPT):
        authors.note(number, number)
    assert (authors.job_of(5), authors.job_of(6)) == (0, 6)
