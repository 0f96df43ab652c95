"""Tools that start commands like make does send them to workers."""

import os
import shutil
from typing import NamedTuple

import pytest

from tests.e2e.cluster import Tree

SOURCES = {f"{name}.c": f"int {name};\n" for name in "abc"}
OBJECTS = tuple(f"{name}.o" for name in "abc")
PASSED_ON = ("LD_LIBRARY_PATH", "PYTHONPATH", "OCAMLLIB", "OCAMLPATH", "GUILE_LOAD_PATH")


class Runner(NamedTuple):
    """A tool's project: its files, its words, what is made, and the fewest commands."""

    files: dict[str, str]
    words: tuple[str, ...]
    products: tuple[str, ...]
    commands: int


SUFFIX_RULES = "all: a.o b.o c.o\n.SUFFIXES: .c .o\n.c.o:\n\tgcc -c $< -o $@\n"
NINJA = "rule cc\n command = gcc -c $in -o $out\n" + "".join(f"build {name}.o: cc {name}.c\n" for name in "abc")
RUNNERS = {
    "samu": Runner({"build.ninja": NINJA}, (), OBJECTS, 3),
    "bmake": Runner({"Makefile": SUFFIX_RULES}, ("-r", "-j2"), OBJECTS, 3),
    "remake": Runner({"Makefile": "all: a.o b.o c.o\n%.o: %.c ; gcc -c $< -o $@\n"}, ("-j2",), OBJECTS, 3),
    "just": Runner({"justfile": "all:\n    gcc -c a.c -o a.o\n    gcc -c b.c; gcc -c c.c\n"}, ("all",), OBJECTS, 2),
    "scons": Runner({"SConstruct": "for name in 'abc':\n    Object(name)\n"}, ("-Q", "-j2"), OBJECTS, 3),
    "dune": Runner(
        {
            "dune-project": "(lang dune 2.9)\n",
            "dune": '(rule (targets o.txt) (deps a.c) (action (with-stdout-to o.txt (system "gcc -E a.c"))))\n',
        },
        ("build", "./o.txt"),
        ("_build/default/o.txt",),
        1,
    ),
}


@pytest.mark.parametrize("name", RUNNERS)
def test_what_it_starts_goes_to_workers(tree: Tree, name: str) -> None:
    tool = shutil.which(name)
    if tool is None:
        pytest.skip(f"{name} is not installed")
    runner = RUNNERS[name]
    env = {variable: os.environ[variable] for variable in PASSED_ON if variable in os.environ}
    env["PATH"] = f"{os.path.dirname(tool)}:/usr/local/bin:/usr/bin:/bin"
    made = {}
    for way in ("plain", "termite"):
        project = tree.subtree(way)
        for file, text in {**SOURCES, **runner.files}.items():
            project.write(file, text)
        before = tree.jobs()
        front_end = [project.where.termite("termite-build")] if way == "termite" else []
        done = project.plain(*front_end, name, *runner.words, env={**env, "TERMITE_SHORT": "0"})
        assert done.code == 0, done
        assert b"started without workers" not in done.stderr, done
        assert (tree.jobs() - before >= runner.commands) is (way == "termite"), (done, tree.status())
        made[way] = [(project.path / product).read_bytes() for product in runner.products]
    assert made["plain"] == made["termite"]


def test_a_tool_below_the_build_is_a_scheduler_too(tree: Tree) -> None:
    if shutil.which("bmake") is None:
        pytest.skip("bmake is not installed")
    for file, text in {**SOURCES, "sub.mk": SUFFIX_RULES, "Makefile": "all: ; @bmake -r -s -f sub.mk\n"}.items():
        tree.write(file, text)
    before = tree.jobs()
    done = tree.make("-s", env={"PATH": os.environ["PATH"]})
    assert done.code == 0, done
    assert tree.jobs() == before + 3
