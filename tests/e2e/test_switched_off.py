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


def test_another_word_is_reported_once_in_a_build(tree: Tree) -> None:
    tree.write("Makefile", "all: a b\na b:\n\t@echo $@ >$@\n")
    made = tree.make(env={"TERMITE": "on"})
    line = b'termite: TERMITE=on is ignored: the only accepted value is "off"\n'
    assert made.code == 0 and made.stderr.count(line) == 1, made


def test_a_command_in_a_build_may_switch_it_off_for_what_it_starts(tree: Tree) -> None:
    tree.write("sub.mk", "all:\n\t@echo sub [$$LD_PRELOAD]\n")
    tree.write("Makefile", "all:\n\t@TERMITE=off $(MAKE) --no-print-directory -f sub.mk\n")
    assert tree.make().stdout == b"sub []\n"
