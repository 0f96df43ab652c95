"""Daemons that may open few files refuse newcomers, and commands have the limits of their user."""

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace


@pytest.mark.parametrize("kind", ["here", "on a worker"])
def test_a_command_has_the_limit_of_open_files_of_its_user(tree: Tree, kind: str) -> None:
    termite = tree.where.word("termite")
    for limit in (256, 777, 2000):
        script = f"ulimit -Sn {limit}; exec {termite} sh -c 'ulimit -Sn; : {kind}'"
        before = tree.jobs()
        done = tree.plain("sh", "-c", script, env={"TERMITE_SOCKET": ""} if kind == "here" else {})
        assert (done.code, done.stdout) == (0, b"%d\n" % limit), done
        assert tree.jobs() == before + (kind != "here")


@pytest.fixture(params=USERS)
def narrow(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    """Yield a tree whose master, with its worker, may open few files."""
    with make_place(request.param) as where:
        tree = new_tree(where)
        start = f"ulimit -n 96; exec {where.word('termite-ctl')} start ."
        assert tree.plain("sh", "-c", start, env={"TERMITE_SHORT": "0"}).code == 0
        with embedded(tree):
            yield tree


def test_a_build_of_more_commands_than_descriptors_ends_well_and_says_why_they_run_here(narrow: Tree) -> None:
    names = " ".join(f"t{number}" for number in range(80))
    narrow.write("Makefile", f"all: {names}\n{names}:\n\t@sleep 0.2; echo $@ >$@\n")
    build = f"ulimit -n 96; exec {narrow.where.word('termite-make')} -j80"
    made = narrow.plain("sh", "-c", build)
    assert (made.code, made.stdout) == (0, b""), made
    assert made.stderr.count(b" of 96 files are open (ulimit -n)") >= 1, made
    assert all((narrow.path / f"t{number}").read_text() == f"t{number}\n" for number in range(80))
    jobs = narrow.status()["jobs"]
    assert jobs["retried"] == 0 and jobs["remote"] > 0, jobs
