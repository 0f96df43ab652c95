"""A result that would make code run later as the user is refused; the command runs at home."""

import os
import stat
from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import IS_ROOT, Outcome

SETUID = "echo it >tool; chmod 4755 tool"
HOOK = "mkdir -p .bare/hooks; echo it >.bare/hooks/post-commit"  # of a repository with a name of its own
RULES = "echo '[]' >.termite-localrc"
REFUSED = (
    (SETUID, "tool"),
    (HOOK, ".bare/hooks/post-commit"),
    ("ln -s evil .cargo", ".cargo"),
    ("mkdir .local; ln -s ../evil .local/bin", ".local/bin"),
    ("mkdir sub/new; echo it >sub/new/workspace.xml; mv sub/new sub/.idea", "sub/.idea/workspace.xml"),
    ("mv evil sub/.cargo", "sub/.cargo/config.toml"),
    ("ln -s x a-link; ln a-link .mvn", ".mvn"),
    ("echo it >tools/hooks/pre-push", "tools/hooks/pre-push"),
    (RULES, ".termite-localrc"),
)


@pytest.fixture(params=["root", "ordinary"] if IS_ROOT else ["ordinary"])
def watched(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield tree


def run_here(tree: Tree) -> int:
    return int(tree.status()["fallbacks"].get(Reason.LATER_CODE, 0))


def refused(tree: Tree, script: str, name: str, before: int) -> None:
    done = tree.termite("sh", "-c", script)
    assert (done.code, done.stdout) == (0, b""), done
    assert Reason.LATER_CODE.words.encode() in done.stderr and name.encode() in done.stderr, done
    assert b"1 command runs on this machine" in done.stderr
    assert run_here(tree) == before + 1
    assert os.path.lexists(tree.path / name)  # as after a plain build: the command has run, and once


def test_the_command_runs_here_and_the_file_is_named(watched: Tree) -> None:
    watched.write(".bare/HEAD", "ref: refs/heads/main\n")
    watched.write("evil/config.toml", "")
    watched.write("tools/hooks/pre-push", "")
    watched.write("sub/x", "")
    (watched.path / "sub/.githooks").symlink_to("../tools/hooks")  # of the user
    assert watched.termite("ls", "sub").code == 0
    for count, (script, name) in enumerate(REFUSED):
        refused(watched, script, name, count)


def test_nothing_of_the_remote_run_comes_home(watched: Tree) -> None:
    script = "echo run >>runs; echo $PPID >pid-$$; chmod 2755 runs"
    assert watched.termite("sh", "-c", script).code == 0
    assert (watched.path / "runs").read_text() == "run\n"
    assert len(list(watched.path.glob("pid-*"))) == 1


def test_it_is_refused_where_the_command_may_not_run_here(watched: Tree) -> None:
    done = watched.termite("sh", "-c", SETUID, env={"TERMITE_LOCAL": "never"})
    assert done.code == 103
    assert not (watched.path / "tool").exists()


def test_a_rule_may_allow_it(watched: Tree) -> None:
    watched.write(".termite-localrc", '[{"Regexp": "chmod 4755", "Trusted": true}]')
    jobs = watched.jobs()
    assert watched.termite("sh", "-c", SETUID) == Outcome(0, b"", b"")
    assert stat.S_IMODE((watched.path / "tool").stat().st_mode) == 0o4755
    assert (watched.jobs(), run_here(watched)) == (jobs + 1, 0)
