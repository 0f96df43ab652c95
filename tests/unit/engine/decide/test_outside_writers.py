"""Tests of the commands that are known to write outside the tree."""

import pytest

from termite.engine.decide import command_memory
from termite.engine.decide.command_memory import CommandMemory, key_of
from termite.engine.decide.outside_writers import REMEMBERED_S, TRIES, OutsideWriters
from tests.unit.engine.decide.test_short_commands import command

INSTALL = key_of(command("cp x $D/x", D="/srv"))
NOW_S = 1_000_000.0


def known(at_s: float = NOW_S) -> OutsideWriters:
    writers = OutsideWriters(CommandMemory())
    writers.record(INSTALL, "/srv", at_s)
    return writers


def test_a_command_is_known_in_the_same_environment_only() -> None:
    writers = known()
    assert writers.place_of(INSTALL, NOW_S) == "/srv"
    for other in (command("cp x $D/x", D="here"), command("cp x $D/x"), command("cp x $D/x", cwd="/q", D="/srv")):
        assert writers.place_of(key_of(other), NOW_S) == ""


@pytest.mark.parametrize(("after_s", "place"), [(0, "/srv"), (REMEMBERED_S - 1, "/srv"), (REMEMBERED_S, ""), (-10, "")])
def test_it_is_remembered_for_seven_days(after_s: float, place: str) -> None:
    assert REMEMBERED_S == 7 * 24 * 3600
    assert known().place_of(INSTALL, NOW_S + after_s) == place


def test_one_run_in_twenty_is_tried_on_a_worker_again() -> None:
    writers = known()
    places = []
    for _ in range(3 * TRIES):
        places.append(writers.place_of(INSTALL, NOW_S))
        writers.count_run(INSTALL)
    assert TRIES == 20
    assert [at for at, place in enumerate(places) if not place] == [19, 39, 59]


def test_after_a_try_that_wrote_there_again_the_next_runs_are_here() -> None:
    writers = known()
    for _ in range(TRIES):
        writers.count_run(INSTALL)
    writers.record(INSTALL, "/srv", NOW_S + REMEMBERED_S)
    assert writers.place_of(INSTALL, NOW_S + REMEMBERED_S + 1) == "/srv"


def test_after_a_try_that_wrote_nothing_there_it_is_forgotten() -> None:
    writers = known()
    assert writers.are_known
    writers.forget(INSTALL)
    writers.forget(INSTALL)
    assert not writers.are_known
    writers.count_run(INSTALL)
    assert writers.place_of(INSTALL, NOW_S) == ""


def test_the_number_of_remembered_commands_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_memory, "MAX_COMMANDS", 3)
    writers = OutsideWriters(CommandMemory())
    for name in "abcd":
        writers.record(key_of(command(name)), "/srv", NOW_S)
    assert [writers.place_of(key_of(command(name)), NOW_S) for name in "abcd"] == ["", "/srv", "/srv", "/srv"]
