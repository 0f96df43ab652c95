"""A make or ninja below the build that works outside the tree stays with the build's master."""

import os
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree
from tests.e2e.places import COMMANDS

TIED = Reason.OUTSIDE_TREE
LAUNCHER = shlex.quote(str(COMMANDS / "termite"))
# As the kernel's makefiles do for a module: they stand elsewhere, and the module is compiled in its
# own directory. `again` is a make below that one.
RULES = """
all: again
again: ; @$(MAKE) -f $(CURDIR)/Makefile --no-print-directory objects
objects: $(M)/a.o $(M)/b.o note
$(M)/%.o: $(M)/%.c ; @gcc -c -o $@ $<
note: ; @echo made >note
"""


@pytest.fixture
def elsewhere(tree: Tree) -> Iterator[Path]:
    """Yield a directory beside the tree, with a makefile for the sources of the tree."""
    path = tree.where.base / f"elsewhere-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    (path / "Makefile").write_text(RULES)
    for name in "ab":
        tree.write(f"{name}.c", f"int {name};\n")
    tree.own(path)
    tree.write("Makefile", f"all: ; @+$(MAKE) -C {path} M=$(CURDIR) --no-print-directory\n")
    yield path


@pytest.mark.parametrize("local", ["", "never"])
def test_what_it_compiles_for_the_tree_goes_to_workers(tree: Tree, elsewhere: Path, local: str) -> None:
    before, tied = tree.jobs(), tree.status()["tied"].get(TIED, 0)
    done = tree.make("-s", env={"TERMITE_LOCAL": local})
    assert done.code == 0, done
    assert tree.jobs() == before + 2, (done, tree.status())
    assert (elsewhere / "note").read_text() == "made\n"
    assert tree.status()["tied"][TIED] == tied + 1, "what it writes there would not come home"
    assert f"1 on this machine: {TIED.words}".encode() in done.stderr, "the summary says it"
    plain = (tree.path / "a.o").read_bytes()
    (tree.path / "a.o").unlink()
    assert tree.plain("make", "-s").code == 0
    assert (tree.path / "a.o").read_bytes() == plain


def test_only_build_tools_keep_the_master(tree: Tree, elsewhere: Path) -> None:
    """Other commands are started with the environment that they have in a plain build."""
    tree.write(".termite-localrc", "[]")
    (elsewhere / "Makefile").write_text("all: ; @env | grep TERMITE_ | sort\n")
    assert tree.plain("make", "-s").stdout == b""
    assert tree.make("-s").stdout == b""


def test_a_socket_of_another_user_or_a_symlink_is_not_used(tree: Tree, elsewhere: Path, tmp_path: Path) -> None:
    link = elsewhere / "link"
    link.symlink_to(tree.path.parent / ".termite-socket")
    tree.own(link)
    jobs = tree.jobs()
    done = tree.plain(str(COMMANDS / "termite"), "echo", "x", env={"TERMITE_BUILD_SOCKET": str(link), "PWD": "/"})
    assert done.stdout == b"x\n"
    there = tree.where.run([str(COMMANDS / "termite"), "echo", "x"], elsewhere, env={"TERMITE_BUILD_SOCKET": str(link)})
    assert there.stdout == b"x\n"
    assert tree.jobs() == jobs + 1, "only in the tree"
    if os.geteuid() == 0 and tree.where.uid:
        done = tree.where.run(
            ["env", "-C", str(elsewhere), str(COMMANDS / "termite"), "echo", "x"],
            elsewhere,
            env={"TERMITE_BUILD_SOCKET": str(tree.path.parent / ".termite-socket")},
        )
        assert tree.jobs() == jobs + 2, "the user's own socket is"


@pytest.mark.parametrize("where", ["in the tree", "without a master"])
@pytest.mark.parametrize("name", ["nosuch", "./nosuch", "./directory", "./closed", "./orphan"])
def test_a_command_that_cannot_be_started_ends_as_at_home_even_if_nothing_may_run_here(
    tree: Tree, elsewhere: Path, where: str, name: str
) -> None:
    place = tree.path if where == "in the tree" else elsewhere
    (place / "directory").mkdir()
    (place / "closed").write_text("#!/bin/sh\n")
    (place / "orphan").write_text("#!/no/such/interpreter\n")
    (place / "orphan").chmod(0o755)
    for made in ("directory", "closed", "orphan"):
        tree.own(place / made)
    plain = tree.where.run(["sh", "-c", f"exec {name}"], place)
    assert plain.code in (126, 127), plain
    for argv in ([tree.where.termite("termite"), name], [tree.where.termite("termite"), "sh", "-c", f"exec {name}"]):
        if where == "without a master" and argv[1] == "sh":
            continue  # there is a shell to run, which is forbidden
        done = tree.where.run(argv, place, env={"TERMITE_LOCAL": "never"})
        assert done.code == plain.code, (argv, done, plain)
        assert b"never" not in done.stderr, done
