"""Tests of the commands that are remembered because their results were refused."""

import pytest

from termite.engine.decide import command_memory
from termite.engine.decide.command_memory import CommandMemory, key_of
from termite.engine.decide.refused_commands import REMEMBERED_S, TRIES, Refusal, RefusalMemory
from termite.engine.errors import Reason
from tests.unit.engine.decide.test_short_commands import command

INSTALL = key_of(command("cp x $D/x", D="/srv"))
NOW_S = 1_000_000.0
REFUSED = Refusal(Reason.WRITES_OUTSIDE, "/srv")


def known(at_s: float = NOW_S) -> RefusalMemory:
    commands = RefusalMemory(CommandMemory())
    commands.record(INSTALL, REFUSED, at_s)
    return commands


def test_a_command_is_known_in_the_same_environment_only() -> None:
    commands = known()
    assert commands.find(INSTALL, NOW_S) == REFUSED
    for other in (command("cp x $D/x", D="here"), command("cp x $D/x"), command("cp x $D/x", cwd="/q", D="/srv")):
        assert commands.find(key_of(other), NOW_S) is None


@pytest.mark.parametrize(
    ("after_s", "is_known"), [(0, True), (REMEMBERED_S - 1, True), (REMEMBERED_S, False), (-10, False)]
)
def test_it_is_remembered_for_seven_days(after_s: float, is_known: bool) -> None:
    assert REMEMBERED_S == 7 * 24 * 3600
    assert known().find(INSTALL, NOW_S + after_s) == (REFUSED if is_known else None)


def test_one_run_in_twenty_is_tried_on_a_worker_again() -> None:
    commands = known()
    places = []
    for _ in range(3 * TRIES):
        places.append(commands.find(INSTALL, NOW_S))
        commands.count_run(INSTALL)
    assert TRIES == 20
    assert [at for at, place in enumerate(places) if not place] == [19, 39, 59]


def test_after_a_try_that_wrote_there_again_the_next_runs_are_here() -> None:
    commands = known()
    for _ in range(TRIES):
        commands.count_run(INSTALL)
    commands.record(INSTALL, REFUSED, NOW_S + REMEMBERED_S)
    assert commands.find(INSTALL, NOW_S + REMEMBERED_S + 1) == REFUSED


def test_after_a_try_that_wrote_nothing_there_it_is_forgotten() -> None:
    commands = known()
    assert commands.are_known
    commands.forget(INSTALL)
    commands.forget(INSTALL)
    assert not commands.are_known
    commands.count_run(INSTALL)
    assert commands.find(INSTALL, NOW_S) is None


def test_the_number_of_remembered_commands_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_memory, "MAX_COMMANDS", 3)
    commands = RefusalMemory(CommandMemory())
    for name in "abcd":
        commands.record(key_of(command(name)), REFUSED, NOW_S)
    assert [commands.find(key_of(command(name)), NOW_S) for name in "abcd"] == [None, REFUSED, REFUSED, REFUSED]


def test_each_reason_is_remembered_with_its_place() -> None:
    commands = RefusalMemory(memory := CommandMemory())
    commands.record(INSTALL, Refusal(Reason.LATER_CODE, ""), NOW_S)
    assert commands.find(INSTALL, NOW_S) == (Reason.LATER_CODE, "")
    memory.refused[INSTALL[1]].reason = "of another version"
    assert commands.find(INSTALL, NOW_S) is None
