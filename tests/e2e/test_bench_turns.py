"""Builds of the benchmark take turns, with and without cgroups and mount namespaces."""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import projects
from bench import cpu, turns
from bench.cpu import Accounts, Group, accounts
from bench.figures import Measured
from bench.rounds import Settings
from bench.turns import TERMITE, Build, Steps, alone, can_take_turns, in_turns
from projects import Place, Project, ProjectError

WHO_AND_WHERE = 'sh -c "echo $0 > who; pwd > where" {}'


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setattr(turns, "AFTER_S", 0.0)
    with accounts() as counted:
        made = Settings(counted, say=lambda line: None, rounds=1)
        if not can_take_turns(made):
            pytest.skip("this machine has no cgroup of version 2")
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place.below(tmp_path)
    for directory in (made.tree, made.saved, made.logs):
        directory.mkdir()
    (made.saved / "source").write_text("as it was")
    return made


def _side(place: Place, name: str, lines: Sequence[str]) -> Steps[Measured]:
    return (yield Build(name, tuple(lines), {}, Project("a project", tuple(lines), 0), place))


@pytest.mark.needs_root("divides control groups")
def test_each_side_has_a_tree_of_its_own_at_the_same_path(settings: Settings, place: Place) -> None:
    (place.tree / "left over").touch()
    sides = {name: functools.partial(_side, place, name, [WHO_AND_WHERE.format(name)]) for name in ("plain", TERMITE)}
    results = in_turns(settings, sides)
    for name, tree in (("plain", place.tree.with_name("tree-plain")), (TERMITE, place.tree)):
        assert sorted(os.listdir(tree)) == ["source", "where", "who"]
        assert (tree / "who").read_text() == f"{name}\n"
        assert (tree / "where").read_text() == f"{place.tree}\n"
        assert results[name][0].wall_s > 0


@pytest.mark.needs_root("divides control groups")
def test_the_environment_is_the_same_as_alone(settings: Settings, place: Place) -> None:
    """Else termite's commands are others in the first round than when it was warmed up."""
    log = place.logs / f"{TERMITE}.log"
    alone(settings, _side(place, TERMITE, ["env"]))  # no shell between, which would change it
    before = log.read_text().splitlines()
    assert f"PWD={place.tree}" in before
    in_turns(settings, {TERMITE: functools.partial(_side, place, TERMITE, ["env"])})
    assert sorted(log.read_text().splitlines()) == sorted(before + before)


@pytest.mark.needs_root("divides control groups")
def test_while_one_side_runs_the_others_and_their_daemons_do_not(
    settings: Settings, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[list[str]] = []  # the sides that are not stopped when one begins its turn
    go = Group.go

    def noted(group: Group) -> None:
        assert settings.accounts.cgroup is not None
        events = {other.name: (other / "cgroup.events").read_text() for other in settings.accounts.cgroup.glob("*/")}
        running.append([name for name, text in events.items() if "populated 1" in text and "frozen 0" in text])
        go(group)

    monkeypatch.setattr(turns, "TURN_S", 0.05)
    monkeypatch.setattr(cpu, "STOPPING_S", 5.0)  # it takes longer on a busy machine
    monkeypatch.setattr(Group, "go", noted)
    busy = [f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.3: pass'"]  # six turns, on any machine
    results = in_turns(settings, {name: functools.partial(_side, place, name, busy) for name in "abc"})
    building = running[: -len("abc")]  # the last ones are those by which all go on
    assert len(building) > 2 * len("abc")
    assert not any(building), building
    assert all(0 < results[name][0].own_s <= results[name][0].wall_s * (os.cpu_count() or 1) for name in "abc")


@pytest.mark.needs_root("divides control groups")
def test_a_build_that_fails_ends_the_others_and_nothing_stays_stopped(settings: Settings, place: Place) -> None:
    lines = {"a": "sleep 600", "b": "false"}
    with pytest.raises(ProjectError, match=r"false failed \(1\)"):
        in_turns(settings, {name: functools.partial(_side, place, name, [lines[name]]) for name in lines})
    for name in "ab":
        group = settings.accounts.group(name).path
        assert (group / "cgroup.procs").read_text() == ""
        assert (group / "cgroup.freeze").read_text() == "0\n"


def test_a_build_that_no_signal_ends_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "ENDING_S", 0.2)
    build = ["sh", "-c", "trap '' TERM; echo $$ > pid; sleep 60; sleep 60"]
    with pytest.raises(ProjectError, match="did not end"):
        projects.run(build, Project("a project", (), 0), place, "plain", limit_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((place.tree / "pid").read_text()), 0)


@pytest.mark.needs_root("divides control groups")
def test_what_a_killed_run_has_left_stopped_is_ended_by_the_next_one(settings: Settings) -> None:
    assert settings.accounts.cgroup is not None
    left = settings.accounts.cgroup / "termite-bench-4194305"  # no process has that number: they end at 2**22
    side = left / "plain"
    side.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "600"])
    try:
        (side / "cgroup.procs").write_text(str(process.pid))
        Group(side).stop()
        with accounts():
            assert process.wait(10) == -signal.SIGKILL
            assert not left.exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.needs_root("divides control groups")
def test_what_is_started_inside_belongs_to_the_side(settings: Settings) -> None:
    group = settings.accounts.group("a").path
    with settings.accounts.inside("a"):
        assert (group / "cgroup.procs").read_text() == f"{os.getpid()}\n"
    assert (group / "cgroup.procs").read_text() == ""


def test_without_cgroups_they_come_one_after_the_other_and_a_note_says_so(place: Place) -> None:
    settings = Settings(Accounts(None), say=lambda line: None, rounds=1)
    results = in_turns(settings, {TERMITE: functools.partial(_side, place, TERMITE, [WHO_AND_WHERE.format(TERMITE)])})
    assert (place.tree / "who").read_text() == "termite\n"
    assert results[TERMITE][0].wall_s > 0
    assert "one after the other" in settings.notes[0]
