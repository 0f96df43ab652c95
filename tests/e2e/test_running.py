"""A cluster is run by hand with the lines of the README, one after the other, without a pause."""

import tomllib
from collections.abc import Callable

import pytest

from termite.cli.flags import VERSION
from tests.e2e.cluster import Tree, new_tree
from tests.e2e.conftest import USERS, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import CHECKOUT, COMMANDS, Place

# With the default ports and the default name of the secret. The worker is root's, as by sudo.
RUNNING = """
ip link set lo up
dd if=/dev/random of=secret.txt bs=1 count=20 status=none && chmod 0600 secret.txt
$TERMITE_DIR/bin/termite-coordinator &
$TERMITE_DIR/bin/termite-worker -jobs 4 &

mkdir bin
ln -s $TERMITE_DIR/bin/termite-make bin/
ln -s $TERMITE_DIR/bin/termite bin/
PATH=$PWD/bin:$PATH
cd project
$TERMITE_DIR/bin/termite-master -jobs 4 \\
 -secret ../secret.txt &
termite-make -j20
code=$?
termite gcc -c x.c
$TERMITE_DIR/bin/termite-ctl status
kill %3; wait %3; kill %1 %2; wait
exit $code
"""


@needs_root
def test_the_lines_work_as_they_are_written(places: Callable[..., Place]) -> None:
    where = places("root", network=True)
    tree = new_tree(where)
    tree.write("x.c", "int x;\n")
    tree.write("Makefile", "all: $(shell seq 1 20)\n%:\n\t@gcc -c -o $@ x.c\n")
    (where.base / "termite").mkdir()
    (where.base / "termite" / "bin").symlink_to(CHECKOUT / "bin")
    env = {"TERMITE_DIR": str(where.base / "termite"), "TERMITE_LOCAL": "never"}
    done = where.run(["bash", "-c", RUNNING], where.base, env=env)
    assert done.code == 0, done
    assert b"started a master" not in done.stderr, done
    assert b"a master already runs in this tree" not in done.stderr, done
    assert b"worker    " in done.stdout
    assert b":1235: " in done.stdout, done
    assert {str(number) for number in range(1, 21)} <= {path.name for path in tree.path.iterdir()}
    assert (tree.path / "x.o").exists()
    assert_nothing_left(where, tree.path)


def test_the_directory_for_path_has_the_commands_and_nothing_else() -> None:
    """Other programs beside Python would stand in front of the user's own cmake and python3."""
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
    programs = {*scripts} - {"termite-front-end"} | {f"termite-{name}" for name in ("make", "ninja", "cmake", "build")}
    assert {path.name for path in (CHECKOUT / "bin").iterdir()} == programs | {"termite", "termite-shell"}


@pytest.mark.parametrize("kind", USERS)
def test_every_command_works_by_its_link(places: Callable[..., Place], kind: str) -> None:
    where = places(kind)
    for link in sorted((CHECKOUT / "bin").iterdir()):
        if link.name != "termite-shell":
            by_link = where.run([str(link), "--version"], where.base)
            assert by_link == where.run([str(COMMANDS / link.name), "--version"], where.base)
            assert by_link.code == 0, by_link
            # make, ninja and cmake print their own version on stdout, where programs read it.
            is_front_end = link.name in ("termite-make", "termite-ninja", "termite-cmake")
            version = f"termite: {link.name} {VERSION}\n" if is_front_end else f"{link.name} {VERSION}\n"
            assert (by_link.stderr if is_front_end else by_link.stdout) == version.encode(), by_link
            assert not is_front_end or by_link.stdout == where.run([link.name[8:], "--version"], where.base).stdout
    assert where.run([str(CHECKOUT / "bin" / "termite-shell"), "-c", "exit 3"], where.base).code == 3
    assert where.run([str(CHECKOUT / "bin" / "termite-ctl"), "doctor"], where.base).code in (0, 104)


@pytest.mark.parametrize("kind", USERS)
def test_a_job_finds_the_launcher_by_a_link_in_a_private_home(places: Callable[..., Place], kind: str) -> None:
    where = places(kind)
    tree = new_tree(where)
    private = Tree(where, where.base / "home").mkdir("private/bin")
    for name in ("termite", "termite-make", "termite-ctl"):
        (private / name).symlink_to(CHECKOUT / "bin" / name)
    private.parent.chmod(0o700)
    tree.write("Makefile", "all:\n\ttermite echo found >out\n")
    env = {"PATH": f"{private}:/usr/bin:/bin", "TERMITE_SHORT": "0"}
    try:
        assert where.run(["termite-make"], tree.path, env=env).code == 0
        assert (tree.path / "out").read_text() == "found\n"
        assert tree.jobs() == 1
    finally:
        where.run(["termite-ctl", "shutdown"], tree.path, env=env)
    assert_nothing_left(where, tree.path)
