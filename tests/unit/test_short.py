"""Which commands are short: by what they took, and by what their way costs."""

import os
from pathlib import Path

import pytest

from termite.engine.decide import short_commands as short
from termite.engine.decide.short_commands import ENOUGH, LONGEST_S, WAYS, ShortCommands, mark_of
from termite.engine.model import Command


def command(text: str, cwd: str = "/p", **env: str) -> Command:
    return Command(argv=("sh", "-c", text), exe="sh", search=True, cwd=cwd, env=env, text=text)


CONFIGURE, COMPILE = command("gcc -E -"), command("gcc -c x.c")


def known(way_s: float = 0.004, times: int = ENOUGH, limit_s: float | None = None) -> ShortCommands:
    commands = ShortCommands(limit_s)
    for _ in range(times):
        commands.ran_there(mark_of(CONFIGURE), 0.02, way_s)
        commands.ran_there(mark_of(COMPILE), 0.8, way_s)
    return commands


def test_a_command_is_short_where_its_way_costs_more_than_its_share() -> None:
    commands = known()
    assert commands.limit_s == pytest.approx(WAYS * 0.004)
    assert commands.is_short(mark_of(CONFIGURE))
    assert not commands.is_short(mark_of(COMPILE))


def test_behind_a_slow_link_more_is_short_but_never_what_takes_long() -> None:
    assert known(way_s=0.035).is_short(mark_of(COMPILE))
    commands = known(way_s=1.0)
    assert commands.limit_s == LONGEST_S
    commands.ran_there(mark_of(COMPILE), 5.0, 1.0)
    assert commands.took_s(COMPILE) is None


def test_nothing_is_guessed() -> None:
    commands = known()
    assert not commands.is_short(mark_of(command("gcc -E - # another")))
    assert not commands.is_short(mark_of(command(CONFIGURE.text, cwd="/elsewhere")))
    assert known(times=(ENOUGH - 1) // 2).limit_s == 0


def test_in_another_environment_it_is_another_command() -> None:
    commands = ShortCommands(1.0)
    commands.ran_there(mark_of(command("cp x $D", D="here", MAKEFLAGS="-j2 -- A=b", _="/usr/bin/env")), 0.02, 0.004)
    assert commands.is_short(
        mark_of(command("cp x $D", D="here", MAKEFLAGS="-j9 -- A=b", _="make", TERMITE_VERBOSE="1"))
    )
    for other in ({"D": "/usr"}, {}, {"D": "here", "MAKEFLAGS": "-j2 -- A=c"}):
        assert not commands.is_short(mark_of(command("cp x $D", **other)))
    assert commands.took_s(command("cp x $D")) == 0.02


def test_in_each_of_its_environments_it_is_known() -> None:
    commands = ShortCommands(1.0)
    places = [mark_of(command("uname -m", MAKEFLAGS=f" -- obj={name}")) for name in "abc"]
    for mark in places:
        commands.ran_there(mark, 0.02, 0.004)
    assert all(commands.is_short(mark) for mark in places)
    commands.forget(places[0])
    assert [commands.is_short(mark) for mark in places] == [False, True, True]


def test_one_way_that_had_to_fetch_a_compiler_says_nothing() -> None:
    commands = known(times=10)
    commands.ran_there(mark_of(command("first of its kind")), 0.5, 30.0)
    assert commands.limit_s == pytest.approx(WAYS * 0.004)


def test_what_is_said_counts_more_than_what_is_measured() -> None:
    assert not known(limit_s=0.0).is_short(mark_of(CONFIGURE))
    commands = known(limit_s=5.0, times=1)
    assert commands.is_short(mark_of(COMPILE))
    commands.ran_here(mark_of(COMPILE), 4.0)
    assert commands.is_short(mark_of(COMPILE))


def test_a_command_that_takes_longer_than_it_did_goes_away_again() -> None:
    commands = known()
    commands.ran_here(mark_of(CONFIGURE), 0.03)
    assert commands.is_short(mark_of(CONFIGURE))
    commands.ran_here(mark_of(CONFIGURE), 0.5)
    assert not commands.is_short(mark_of(CONFIGURE))
    commands.forget(mark_of(COMPILE))
    assert commands.took_s(COMPILE) is None


def test_only_so_many_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short, "KNOWN_LIMIT", 3)
    commands = ShortCommands(1.0)
    for name in "abcd":
        commands.ran_there(mark_of(command(name)), 0.01, 0.004)
    assert [commands.is_short(mark_of(command(name))) for name in "abcd"] == [False, True, True, True]


def test_the_next_master_knows_what_the_last_one_knew(tmp_path: Path) -> None:
    store = tmp_path / "short-p"
    commands = ShortCommands(1.0, store)
    commands.ran_there(mark_of(command("gcc \udcff.c")), 0.02, 0.004)
    commands.save()
    assert ShortCommands(1.0, store).took_s(command("gcc \udcff.c")) == 0.02
    assert os.listdir(tmp_path) == ["short-p"]


def test_a_store_that_is_rubbish_or_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "short-p").write_bytes(b"\xc1rubbish")
    assert ShortCommands(1.0, tmp_path / "short-p").took_s(CONFIGURE) is None
    nowhere = ShortCommands(1.0, tmp_path / "short-p" / "below-a-file")
    nowhere.ran_there(mark_of(CONFIGURE), 0.02, 0.004)
    nowhere.save()


def test_what_was_forgotten_is_forgotten_in_the_store_too(tmp_path: Path) -> None:
    commands = ShortCommands(1.0, tmp_path / "short-p")
    commands.ran_there(mark_of(CONFIGURE), 0.02, 0.004)
    commands.save()
    commands.forget(mark_of(CONFIGURE))
    commands.save()
    assert ShortCommands(1.0, tmp_path / "short-p").took_s(CONFIGURE) is None


def test_stores_of_trees_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    for name, days in (("short-old", 61), ("short-new", 1), ("hashes", 400)):
        (tmp_path / name).touch()
        seconds = (tmp_path / name).stat().st_mtime - days * 24 * 3600
        os.utime(tmp_path / name, (seconds, seconds))
    commands = ShortCommands(1.0, tmp_path / "short-p")
    commands.ran_there(mark_of(CONFIGURE), 0.02, 0.004)
    commands.save()
    assert sorted(os.listdir(tmp_path)) == ["hashes", "short-new", "short-p"]
