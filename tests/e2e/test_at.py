"""Build trees at another path than their own, at the same time and with one store of results."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import Outcome
from tests.e2e.test_killed import kill_embedded
from tests.e2e.waiting import wait_until

AT = "/build/project"
ENV = {"TERMITE_CACHE": "on", "TERMITE_SHORT": "0", "TERMITE_VERBOSE": "1"}
OBJECTS = [f"obj/f{number}.o" for number in range(8)]
MAKEFILE = f"""
all: prog where
prog: {" ".join(OBJECTS)}
	gcc -g -o $@ $^
obj/%.o: %.c inc/shared.h
	gcc -g -O1 -I$(CURDIR)/inc -c $(CURDIR)/$< -o $@
where:
	pwd >$@
"""

PLAN = """
import os, sys
from termite.engine.tree.logic.redo_plan import JobEnd, PlaceEntry
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile
from termite.engine.tree.publishing.staging import open_staging

staging = open_staging(os.open(".", os.O_RDONLY | os.O_DIRECTORY), is_made=True)
plan, name = PlanFile(staging), os.fsencode(sys.argv[1])
staged = plan.label + b".1"
with open(os.open(staged, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=staging), "wb") as file:
    file.write(name + b"\\n")
place = PlaceEntry(path=name, staged=staged, stood=None, is_new=True)
plan.begin(JobEnd(os.urandom(8), 0, 0, 0, b""), lambda: False, (place,))
os._exit(0)
"""


def fill(tree: Tree) -> Tree:
    tree.write("Makefile", MAKEFILE)
    tree.write("inc/shared.h", "static inline const char *file(void) { return __FILE__; }\n")
    tree.mkdir("obj")
    for number in range(1, 8):
        tree.write(f"f{number}.c", f'#include "shared.h"\nconst char *f{number}(void) {{ return file(); }}\n')
    tree.write("f0.c", '#include "shared.h"\n#include <stdio.h>\nint main(void) { puts(__FILE__); puts(file()); }\n')
    return tree


def build(tree: Tree, *words: str, at: str = AT, env: dict[str, str] | None = None) -> Outcome:
    return tree.make("--at", at, "-j4", *words, env={**ENV, **(env or {})})


def results(tree: Tree) -> dict[str, bytes]:
    return {name: (tree.path / name).read_bytes() for name in (*OBJECTS, "prog", "where")}


@pytest.fixture(scope="module", params=USERS)
def trees(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[dict[str, Tree]]:
    """Yield trees with equal sources, of which "one" and "two" were built at the same time."""
    with make_place(request.param) as where:
        made = {name: fill(new_tree(where, name)) for name in ("one", "two", "three", "plain")}
        try:
            words = [where.termite("termite-make"), "--at", AT, "-j4"]
            started = [where.start(words, made[name].path, env=ENV) for name in ("one", "two")]
            for process in started:
                stdout, stderr = process.communicate(timeout=90)
                assert process.returncode == 0, (stdout, stderr)
            yield made
        finally:
            for tree in made.values():
                if tree.path.exists():
                    tree.ctl("shutdown")


def test_all_trees_have_the_bits_of_a_plain_build_at_that_path(trees: dict[str, Tree]) -> None:
    plain = build(trees["plain"], env={"TERMITE": "off"})
    assert (plain.code, b"termite" in plain.stderr) == (0, False), plain
    expected = results(trees["plain"])
    assert expected["where"] == f"{AT}\n".encode()
    assert AT.encode() in expected["obj/f0.o"] and b"plain" not in expected["prog"]
    assert results(trees["one"]) == expected
    assert results(trees["two"]) == expected
    assert trees["one"].jobs() + trees["one"].jobs("cached") >= 9, "the commands did not run here"
    assert not Path(AT).exists(), "nothing was made on this machine"
    assert (trees["one"].path / ".termite-at").read_text() == f"{AT}\n"


def test_a_tree_in_another_directory_is_built_from_the_store(trees: dict[str, Tree]) -> None:
    done = build(trees["three"])
    assert done.code == 0, done
    assert results(trees["three"]) == results(trees["one"])
    status = trees["three"].status()
    assert status["jobs"]["cached"] >= len(OBJECTS) + 1, (status["jobs"], done)  # all but pwd, which is not known
    again = build(trees["three"])
    assert again.stdout == b"make: Nothing to be done for 'all'.\n", again


def test_a_tree_is_built_at_no_other_path(trees: dict[str, Tree]) -> None:
    tree = trees["one"]
    before = results(tree)
    hint = f"termite-make: use --at {AT}".encode()
    for refused in (tree.make(), tree.make(within="obj"), build(tree, at="/build/other")):
        assert refused.code == 100 and refused.stdout == b"", refused
        assert refused.stderr.startswith(f"termite-make: {tree.path} is built at {AT}, not at ".encode()), refused
        assert hint in refused.stderr, refused
    launched = tree.termite("touch", "obj/f0.o")
    assert (launched.code, launched.stdout) == (106, b""), launched
    assert f"use --at {AT}".encode() in launched.stderr
    (tree.path / ".termite-at").rename(tree.path / "kept")  # as after git clean
    try:
        cleaned = tree.make("-B")
        assert cleaned.code == 100 and f"use --at {AT}".encode() in cleaned.stderr, cleaned
    finally:
        (tree.path / "kept").rename(tree.path / ".termite-at")
    served = tree.ctl("start", "-at", "/build/other")
    assert served.code == 100 and f"is built at {AT}".encode() in served.stderr, served
    assert results(tree) == before
    assert tree.make("--version").code == tree.make("-n").code == 0, "nothing is built"


def test_termite_ctl_works_from_both_sides(trees: dict[str, Tree]) -> None:
    tree = trees["one"]
    assert f"tree      {tree.path}, built at {AT}\n".encode() in tree.ctl("status").stdout
    assert b"elsewhere" not in tree.ctl("status").stdout
    why = tree.ctl("why", "gcc", "-c", "f1.c", within="obj")
    assert b"place      remote" in why.stdout, why
    assert f"{AT}/f1.c".encode() in tree.ctl("log", "obj/f1.o").stdout
    assert f"{AT}/obj\n".encode() == tree.ctl("shell", "--", "pwd", within="obj").stdout
    assert f"{tree.path}\n".encode() in tree.ctl("ls").stdout
    assert tree.ctl("paths", "-show").stdout == f"{AT}\t{tree.path}\n".encode()
    message = f"{AT}/f1.c:1:2: error\n{AT}2/x -I{AT}/inc".encode()
    here = message.replace(f"{AT}/".encode(), f"{tree.path}/".encode())
    translated = tree.ctl("paths", stdin=message, within="obj")
    assert (translated.code, translated.stdout) == (0, here), translated
    assert tree.ctl("paths", "-back", stdin=here).stdout == message
    commands = [{"directory": AT, "file": f"{AT}/f1.c", "command": f"gcc -I{AT}/inc -c f1.c"}]
    tree.write("compile_commands.json", json.dumps(commands))
    shown = json.loads(tree.ctl("paths", "compile_commands.json").stdout)
    assert shown == json.loads(json.dumps(commands).replace(AT, str(tree.path)))


def test_a_build_starts_in_a_directory_of_the_tree_and_names_it_as_it_likes(trees: dict[str, Tree]) -> None:
    tree = trees["two"]
    tree.write("sub/Makefile", "all:\n\t@pwd; echo $$PWD; echo $(WORD); ls -A $(OWN) | wc -l; id -u\n")
    own = f"OWN={os.fsdecode(bytes(tree.path))[:-1]}[{tree.path.name[-1]}]"  # a name that nobody translates
    done = build(tree, "-C", str(tree.path / "sub"), f"WORD={tree.path}/x", own)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(b"make: ")]
    uid = str(tree.where.uid).encode()
    assert lines == [f"{AT}/sub".encode(), f"{AT}/sub".encode(), f"{AT}/x".encode(), b"0", uid], done


def test_a_tree_that_is_moved_is_built_again_where_it_is(trees: dict[str, Tree]) -> None:
    tree = trees["three"]
    pid = tree.status()["pid"]
    moved = Tree(tree.where, tree.path.rename(tree.path.with_name("moved")))
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the master of the old place has ended")
    assert moved.make().code == 100
    done = build(moved, "-q")  # which needs no master
    assert (done.code, done.stdout, done.stderr) == (0, b"", b""), done


def leave_plan(tree: Tree, name: str) -> None:
    """Leave what a master leaves that is killed right after it has written a plan for a file."""
    done = tree.plain(tree.where.termite("python"), "-c", PLAN, name)
    assert done.code == 0, done
    assert not (tree.path / name).exists()


def test_plans_of_a_killed_master_are_finished_under_both_paths(trees: dict[str, Tree]) -> None:
    tree = trees["two"]
    leave_plan(tree, "swept")
    kill_embedded(tree)
    assert (tree.path / ".termite-socket").exists()
    orphan = tree.termite("touch", "obj/f0.o")
    assert orphan.code == 106 and AT.encode() in orphan.stderr, orphan
    plain = tree.ctl("start")
    assert plain.code == 100 and f"use --at {AT}".encode() in plain.stderr, plain
    wait_until(lambda: not (tree.path / ".termite-staging").exists(), "the tree is swept by its own path")
    assert (tree.path / "swept").read_text() == "swept\n" and not (tree.path / ".termite-socket").exists()
    leave_plan(tree, "finished")
    (tree.path / "obj/f0.o").unlink()
    done = build(tree)
    assert done.code == 0 and results(tree) == results(trees["one"]), done
    assert (tree.path / "finished").read_text() == "finished\n"
