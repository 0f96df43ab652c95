"""Tests of short commands: by their run times, and by the dispatch overhead."""

import pytest

from termite.engine.decide import command_memory
from termite.engine.decide.command_memory import key_of
from termite.engine.decide.short_commands import MAX_SHORT_S, MIN_SAMPLES, SHORT_RATIO, ShortCommands
from termite.engine.model import Command


def command(text: str, cwd: str = "/p", **env: str) -> Command:
    return Command(argv=("sh", "-c", text), exe="sh", search=True, cwd=cwd, env=env, text=text)


CONFIGURE, COMPILE = command("gcc -E -"), command("gcc -c x.c")


def known(overhead_s: float = 0.004, times: int = MIN_SAMPLES, limit_s: float | None = None) -> ShortCommands:
    commands = ShortCommands(limit_s)
    for _ in range(times):
        commands.record_remote(key_of(CONFIGURE), 0.02, overhead_s)
        commands.record_remote(key_of(COMPILE), 0.8, overhead_s)
    return commands


def test_a_command_is_short_if_the_overhead_is_too_large_a_part_of_its_run_time() -> None:
    commands = known()
    assert commands.limit_s == pytest.approx(SHORT_RATIO * 0.004)
    assert commands.is_short(key_of(CONFIGURE))
    assert not commands.is_short(key_of(COMPILE))


def test_behind_a_slow_link_more_commands_are_short_but_never_long_ones() -> None:
    assert known(overhead_s=0.035).is_short(key_of(COMPILE))
    commands = known(overhead_s=1.0)
    assert commands.limit_s == MAX_SHORT_S
    commands.record_remote(key_of(COMPILE), 5.0, 1.0)
    assert commands.took_s(COMPILE) is None


def test_a_command_that_never_ran_is_not_short() -> None:
    commands = known()
    assert not commands.is_short(key_of(command("gcc -E - # another")))
    assert not commands.is_short(key_of(command(CONFIGURE.text, cwd="/elsewhere")))
    assert known(times=(MIN_SAMPLES - 1) // 2).limit_s == 0


def test_in_another_environment_it_is_another_command() -> None:
    commands = ShortCommands(1.0)
    commands.record_remote(key_of(command("cp x $D", D="here", MAKEFLAGS="-j2 -- A=b", _="/usr/bin/env")), 0.02, 0.004)
    assert commands.is_short(
        key_of(command("cp x $D", D="here", MAKEFLAGS="-j9 -- A=b", _="make", TERMITE_VERBOSE="1"))
    )
    for other in ({"D": "/usr"}, {}, {"D": "here", "MAKEFLAGS": "-j2 -- A=c"}):
        assert not commands.is_short(key_of(command("cp x $D", **other)))
    assert commands.took_s(command("cp x $D")) == 0.02


def test_in_each_of_its_environments_it_is_known() -> None:
    commands = ShortCommands(1.0)
    places = [key_of(command("uname -m", MAKEFLAGS=f" -- obj={name}")) for name in "abc"]
    for key in places:
        commands.record_remote(key, 0.02, 0.004)
    assert all(commands.is_short(key) for key in places)
    commands.forget(places[0])
    assert [commands.is_short(key) for key in places] == [False, True, True]


def test_one_outlier_of_the_overhead_changes_nothing() -> None:
    commands = known(times=10)
    commands.record_remote(key_of(command("first of its kind")), 0.5, 30.0)
    assert commands.limit_s == pytest.approx(SHORT_RATIO * 0.004)


def test_the_users_limit_replaces_the_measured_one() -> None:
    assert not known(limit_s=0.0).is_short(key_of(CONFIGURE))
    commands = known(limit_s=5.0, times=1)
    assert commands.is_short(key_of(COMPILE))
    commands.record_local(key_of(COMPILE), 4.0)
    assert commands.is_short(key_of(COMPILE))


def test_a_command_that_takes_longer_than_before_runs_on_workers_again() -> None:
    commands = known()
    commands.record_local(key_of(CONFIGURE), 0.03)
    assert commands.is_short(key_of(CONFIGURE))
    commands.record_local(key_of(CONFIGURE), 0.5)
    assert not commands.is_short(key_of(CONFIGURE))
    commands.forget(key_of(COMPILE))
    assert commands.took_s(COMPILE) is None


def test_the_number_of_remembered_commands_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_memory, "MAX_COMMANDS", 3)
    commands = ShortCommands(1.0)
    for name in "abcd":
        commands.record_remote(key_of(command(name)), 0.01, 0.004)
    assert [commands.is_short(key_of(command(name))) for name in "abcd"] == [False, True, True, True]
