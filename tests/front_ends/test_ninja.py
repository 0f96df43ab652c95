"""`termite-ninja` does what ninja does, for every feature of a manifest.

Both can build the same tree in turn.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.places import COMMANDS, Outcome
from tests.e2e.snapshot import Entry, snapshot

USUAL_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
NINJAS = {"Debian's": Path("/usr/bin"), "PyPI's": COMMANDS}
NO_WORK = b"ninja: no work to do.\n"

# A manifest with each feature: depfile, deps, restat, response file, dyndep, console, generator,
# phony, order-only and validation.
MANIFEST = """
ninja_required_version = 1.7
builddir = out
rule cc
  command = gcc -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = CC $out
rule cc_kept
  command = gcc -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = gcc @$out.rsp -o $out
  rspfile = $out.rsp
  rspfile_content = $in
rule keep_if_same
  command = cat $in | tr a-z A-Z | cmp -s - $out || tr a-z A-Z <$in >$out
  restat = 1
rule copy
  command = cp $in $out
rule scan
  command = printf 'ninja_dyndep_version = 1\\nbuild out/user: dyndep | out/provided\\n' >$out
rule use
  command = cat out/provided >$out
rule shout
  command = echo made on the console; cat $in >$out
  pool = console
rule configure
  command = sed s/@VERS[I]ON@/$$(cat version)/ build.ninja.in >build.ninja
  generator = 1
pool few
  depth = 1
build build.ninja: configure build.ninja.in version
build out/a.o: cc a.c
build out/b.o: cc_kept b.c
build out/program: link out/a.o out/b.o
build out/upper: keep_if_same lower
build out/after: copy out/upper
build out/user.dd: scan
build out/user: use || out/user.dd
  dyndep = out/user.dd
build out/provided: copy lower
build out/console: shout lower | out/after
build out/spaced$ name: copy lower
  pool = few
build all: phony out/program out/after out/user out/console out/spaced$ name
default all
# @VERSION@
"""
FILES = {
    "a.c": '#include "a.h"\nint main(void){return f();}\n',
    "a.h": "int f(void);\n",
    "b.c": '#include "b.h"\nint f(void){return B;}\n',
    "b.h": "#define B 0\n",
    "lower": "text\n",
    "version": "1\n",
    "build.ninja.in": MANIFEST,
    "build.ninja": MANIFEST.replace("@VERSION@", "1"),
}


class Ninja:
    """A tree that plain ninja or termite-ninja builds."""

    def __init__(self, tree: Tree, directory: Path) -> None:
        self.tree = tree
        self._env = {"PATH": f"{directory}:{USUAL_PATH}"}
        for name, content in FILES.items():
            tree.write(name, content)
        # The sources are older than anything that is built, in whatever order they were written.
        self.age("build.ninja.in", "version", by=20)
        self.age(*(FILES.keys() - {"build.ninja.in", "version"}), by=10)

    def age(self, *names: str, by: int) -> None:
        for name in names:
            stamp = (self.tree.path / name).stat().st_mtime - by
            os.utime(self.tree.path / name, (stamp, stamp))

    def plain(self, *arguments: str) -> Outcome:
        return self.tree.plain("ninja", *arguments, env=self._env)

    def termite(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        program = self.tree.where.termite("termite-ninja")
        return self.tree.plain(program, *arguments, env={**self._env, **(env or {})})

    def products(self) -> dict[bytes, Entry]:
        """Return what was built, without ninja's own logs, because they hold times."""
        return {path: entry for path, entry in snapshot(self.tree.path).items() if b".ninja_" not in path}


@pytest.fixture(params=list(NINJAS.values()), ids=list(NINJAS))
def ninja_directory(request: pytest.FixtureRequest) -> Path:
    directory: Path = request.param
    if not (directory / "ninja").exists():
        pytest.skip(f"there is no ninja in {directory}")
    return directory


def test_it_builds_what_ninja_builds_and_either_finds_nothing_to_do_after_the_other(
    tree: Tree, ninja_directory: Path
) -> None:
    near, far = Ninja(tree.subtree("near"), ninja_directory), Ninja(tree.subtree("far"), ninja_directory)
    before = tree.jobs()
    plain, remote = near.plain("-v", "-j1"), far.termite("-v", "-j1")
    assert (plain.code, plain.stderr) == (0, b""), plain
    assert remote == plain
    assert far.products() == near.products()
    assert tree.jobs() - before == 10, "every command is to run remotely"
    for ninja, way in ((far, far.plain), (near, near.termite), (far, far.termite)):
        assert way().stdout == NO_WORK, (ninja, way("-d", "explain", "-n"))


def test_after_a_change_both_run_the_same_commands(tree: Tree, ninja_directory: Path) -> None:
    near, far = Ninja(tree.subtree("near"), ninja_directory), Ninja(tree.subtree("far"), ninja_directory)
    changes = {
        "a header known from deps": ("a.h", "int f(void); /* */\n"),
        "a header known from a depfile": ("b.h", "#define B 1\n"),
        "restat cuts the rest": ("lower", "TEXT\n"),
        "dyndep": ("lower", "other\n"),
        "the manifest is made again": ("version", "2\n"),
    }
    assert near.plain("-j1").code == far.termite("-j1").code == 0
    for what, (name, content) in changes.items():
        for ninja in (near, far):
            ninja.tree.write(name, content)
        plain, remote = near.plain("-v", "-j1"), far.termite("-v", "-j1")
        assert plain.code == 0
        assert plain.stdout != NO_WORK, what
        assert remote == plain, what
        assert far.products() == near.products(), what
        assert (near.plain().stdout, far.plain().stdout) == (NO_WORK, NO_WORK), what


@pytest.mark.parametrize(
    "arguments",
    [
        ("-t", "commands"),
        ("-t", "query", "out/program"),
        ("-t", "targets", "all"),
        ("-t", "compdb", "cc"),
        ("-t", "rules"),
        ("-t", "missingdeps"),
        ("-t", "recompact"),
        ("-t", "cleandead"),
        ("-t", "clean"),
        ("-t", "list"),
        ("-n",),
        ("-d", "explain", "-n"),
        ("-w", "nosuch=err"),
        ("nosuchtarget",),
    ],
    ids=" ".join,
)
def test_tools_and_flags_answer_the_same(tree: Tree, arguments: tuple[str, ...]) -> None:
    ninja = Ninja(tree, NINJAS["Debian's"])
    assert ninja.plain().code == 0
    before = tree.jobs()
    first, kept = ninja.plain(*arguments), ninja.products()
    if "clean" in arguments[-1]:
        assert ninja.plain().code == 0
    assert ninja.termite(*arguments) == first
    assert ninja.products() == kept
    assert tree.jobs() == before


def test_deps_that_a_remote_command_found_are_in_the_log_of_ninja(tree: Tree, ninja_directory: Path) -> None:
    ninja = Ninja(tree, ninja_directory)
    assert ninja.termite().code == 0
    assert b"out/a.o: #deps 2" in ninja.plain("-t", "deps", "out/a.o").stdout


def test_a_command_that_fails_is_reported_as_ninja_does(tree: Tree) -> None:
    manifest = "rule r\n  command = echo said; echo worse >&2; exit 3\nbuild a: r\nbuild b: r\n"
    for arguments in (("a",), ("-k0", "-j1"), ("-k0", "-j1", "--quiet")):
        tree.write("build.ninja", manifest)
        plain = tree.plain("ninja", *arguments)
        assert plain.code != 0
        assert tree.plain(tree.where.termite("termite-ninja"), *arguments) == plain


def test_a_rule_written_with_termite_works_with_plain_ninja(tree: Tree, ninja_directory: Path) -> None:
    tree.write("build.ninja", "rule cc\n  command = termite gcc -c $in -o $out\nbuild a.o: cc a.c\n")
    tree.write("a.c", "int a;\n")
    env = {"PATH": f"{ninja_directory}:{USUAL_PATH}:{COMMANDS}"}
    before = tree.jobs()
    assert tree.plain("ninja", env=env).code == 0
    assert tree.jobs() == before + 1
    assert tree.plain("ninja", env=env).stdout == NO_WORK
    # The same manifest works with termite-ninja: in a sandbox, `termite` only runs the command.
    tree.write("a.c", "int b;\n")
    done = tree.plain(tree.where.termite("termite-ninja"), env=env)
    assert (done.code, done.stderr) == (0, b""), done
    assert tree.jobs() == before + 2
    assert tree.plain("ninja", env={**env, "TERMITE_SOCKET": ""}).stdout == NO_WORK


def test_a_rule_written_with_termite_builds_where_no_master_runs(tree: Tree) -> None:
    tree.write("build.ninja", "rule cc\n  command = termite gcc -c $in -o $out\nbuild a.o: cc a.c\n")
    tree.write("a.c", "int a;\n")
    before = tree.jobs()
    assert tree.plain("ninja", env={"PATH": f"{USUAL_PATH}:{COMMANDS}", "TERMITE_SOCKET": ""}).code == 0
    assert tree.jobs() == before


# -- ninjas of other names --------------------------------------------------------------------------------------------

# A manifest with the features that samu has, too: no dyndep.
OTHER_MANIFEST = """
rule cc
  command = gcc -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = gcc @$out.rsp -o $out
  rspfile = $out.rsp
  rspfile_content = $in
rule keep_if_same
  command = cat $in | tr a-z A-Z | cmp -s - $out || tr a-z A-Z <$in >$out
  restat = 1
rule shout
  command = echo made on the console; cat $in >$out
  pool = console
build a.o: cc a.c
build b.o: cc b.c
build program: link a.o b.o
build upper: keep_if_same lower
build console: shout upper
"""


NAMES = ["ninja-build", pytest.param("samu", marks=pytest.mark.skipif(not shutil.which("samu"), reason="no samu"))]


@pytest.mark.parametrize("name", NAMES)
def test_a_ninja_of_another_name(tree: Tree, name: str) -> None:
    """Run samu, and ninja by its name on Fedora, with `termite-build NAME`."""
    directory = tree.mkdir("bin")
    shutil.copy(shutil.which("samu" if name == "samu" else "/usr/bin/ninja") or name, directory / name)
    env = {"PATH": f"{directory}:{USUAL_PATH}"}
    for file in ("a.c", "a.h", "b.c", "b.h", "lower"):
        tree.write(f"source/{file}", FILES[file])
    tree.write("source/build.ninja", OTHER_MANIFEST)
    ways: tuple[tuple[str, ...], ...] = ((name,), (tree.where.termite("termite-build"), name))
    before, outcomes = tree.jobs(), []
    for place, way in zip(("near", "far"), ways, strict=True):
        tree.plain("cp", "-a", "source", place)
        outcomes.append(tree.plain(*way, "-v", "-j1", within=place, env=env))
        for back in ways:
            done = tree.plain(*back, within=place, env=env)
            assert b"to do" in done.stdout + done.stderr, done
    near, far = outcomes
    assert near.code == 0, near
    assert far == near
    assert tree.jobs() == before + 5
    products = [
        {path: entry for path, entry in snapshot(tree.path / place).items() if b".ninja_" not in path}
        for place in ("near", "far")
    ]
    assert products[0] == products[1]
    tree.write("far/b.h", "#define B 2\n")
    assert tree.plain(*ways[1], "-C", "far", env=env).code == 0
    assert tree.jobs() == before + 7, "the compile and the link"
