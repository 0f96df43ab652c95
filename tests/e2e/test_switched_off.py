"""TERMITE=off: every program of termite is the plain tool, and no master hears of it."""

import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree

OFF = {"TERMITE": "off"}
MAKEFILE = "all:\n\t@echo made by $(MAKE) with [$$LD_PRELOAD]\nfails:\n\t@exit 3\n"


@pytest.mark.parametrize("never", [False, True])
def test_a_make_is_a_plain_make(tree: Tree, never: bool) -> None:
    tree.write("Makefile", MAKEFILE)
    env = OFF | ({"TERMITE_LOCAL": "never"} if never else {})
    before = tree.status()["jobs"]
    for arguments in ((), ("fails",), ("no-such-target",), ("-n",), ("--version",)):
        assert tree.make(*arguments, env=env) == tree.plain("make", *arguments)
    assert tree.status()["jobs"] == before


def test_ninja_cmake_and_any_tool_are_plain(tree: Tree) -> None:
    tree.write("build.ninja", "rule r\n command = echo made [$$LD_PRELOAD]; false\nbuild x: r\n")
    tree.write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.13)\nproject(p NONE)\n")
    bins = str(Path(sys.executable).parent)
    env = OFF | {"PATH": f"{bins}:/usr/bin:/bin"}
    before = tree.status()["jobs"]
    for name, argv in (("termite-ninja", ()), ("termite-build", ("ninja",))):
        far = tree.where.run([tree.where.termite(name), *argv], tree.path, env=env)
        assert (far.code, far.stderr) == (1, b"") and b"made []" in far.stdout, far
    far = tree.where.run([tree.where.termite("termite-cmake"), "-S", ".", "-B", "out"], tree.path, env=env)
    assert far.code == 0 and far.stderr == b"", far
    assert b"TERMITE" not in (tree.path / "out/CMakeCache.txt").read_bytes()
    assert tree.status()["jobs"] == before


def test_no_master_is_started(tree: Tree) -> None:
    alone = tree.where.base / "alone"
    alone.mkdir()
    tree.own(alone)
    there = Tree(tree.where, alone)
    there.write("Makefile", "all:\n\t@kill -TERM $$PPID; sleep 1\n")
    done = there.make(env=OFF)
    is_served = (alone / ".termite-socket").exists()
    there.ctl("shutdown")
    assert (done.code, done.stdout) == (-signal.SIGTERM, b""), done  # make dies of it, and so does termite-make
    assert not is_served and b"termite:" not in done.stderr


def test_another_word_is_refused_by_a_front_end_and_reported_once_by_launchers(tree: Tree) -> None:
    tree.write("Makefile", "all: a b\na b:\n\t@echo $@ >$@\n")
    made = tree.make(env={"TERMITE": "of"})
    assert (made.code, made.stdout) == (100, b""), made
    assert made.stderr == b"termite-make: TERMITE=of has no meaning: write TERMITE=off\n"
    ran = [tree.termite("echo", "on", env={"TERMITE": "of"}).stderr for _ in range(2)]
    assert ran == [b"termite: TERMITE=of is ignored: write TERMITE=off\n", b""]
    tree.write(".termite-localrc", '[{"Regexp": "^echo here", "Local": true}]')
    here = tree.termite("echo", "here", env={"TERMITE_LOCAL": "nevr"})
    assert here.stderr == b"termite: TERMITE_LOCAL=nevr is ignored: write TERMITE_LOCAL=never\n", "a rule keeps it here"


@pytest.mark.parametrize("wrong", ["TERMITE_LOCAL=nevr", "TERMITE_SHORT=abc", "TERMITE_TMP=privat", "TERMITE_SHROT=1"])
def test_every_program_of_the_user_refuses_a_wrong_variable(tree: Tree, wrong: str) -> None:
    tree.write("build.ninja", "rule r\n command = touch $out\nbuild x: r\n")
    tree.write("Makefile", "x:\n\ttouch x\n")
    name, _, value = wrong.partition("=")
    for program, *words in (
        ("termite-make",),
        ("termite-ninja",),
        ("termite-cmake", "-B", "out"),
        ("termite-build", "just"),
        ("termite-ctl", "status"),
        ("termite-coordinator",),
        ("termite-worker",),
        ("termite-master",),
    ):
        done = tree.where.run([tree.where.termite(program), *words], tree.path, env={name: value})
        lines = done.stderr.decode().splitlines()
        assert (done.code, done.stdout, len(lines)) == (100, b"", 1), done
        assert lines[0].startswith(f"{program}: {name}") and ": write " in lines[0], done
    assert {path.name for path in tree.path.iterdir()} == {"build.ninja", "Makefile"}


def test_a_command_in_a_build_may_switch_it_off_for_what_it_starts(tree: Tree) -> None:
    tree.write("sub.mk", "all:\n\t@echo sub [$$LD_PRELOAD]\n")
    tree.write("Makefile", "all:\n\t@TERMITE=off $(MAKE) --no-print-directory -f sub.mk\n")
    assert tree.make().stdout == b"sub []\n"
