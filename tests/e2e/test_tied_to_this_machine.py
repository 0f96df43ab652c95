"""Commands below fakeroot run locally, because their library asks a process of this machine."""

import shlex
import shutil
from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.places import COMMANDS, Outcome, Place

LAUNCHER, MAKE, CTL = (shlex.quote(str(COMMANDS / name)) for name in ("termite", "termite-make", "termite-ctl"))
LIMIT_S = 30  # what is tried here used to wait for ever
FAKES = {
    Reason.BELOW_FAKEROOT: ["fakeroot"],
    Reason.BELOW_PSEUDO: ["env", "PSEUDO_PREFIX=/usr", "PSEUDO_LOCALSTATEDIR=pseudo", "pseudo"],
    Reason.BELOW_FAKECHROOT: ["fakechroot"],
    Reason.BELOW_FAKETIME: ["faketime", "2001-02-03"],
}
OWNERS = "{0} touch made; {0} chown 12:34 made; {0} stat -c %u:%g made; {0} sh -c 'id -u'"


def below(tie: Reason) -> list[str]:
    """Return the words that start a command below the tool. Skip if it is not installed."""
    (name,) = {"fakeroot", "pseudo", "fakechroot", "faketime"} & set(FAKES[tie])
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return FAKES[tie]


@pytest.mark.attack
@pytest.mark.parametrize("tie", [Reason.BELOW_FAKEROOT, Reason.BELOW_PSEUDO])
def test_what_it_starts_runs_here_and_sees_the_same_owners(tree: Tree, tie: Reason) -> None:
    plain = tree.plain(*below(tie), "sh", "-c", OWNERS.format("env"), timeout_s=LIMIT_S)
    assert plain.stdout == b"12:34\n0\n", plain
    (tree.path / "made").unlink()
    before = tree.status()
    done = tree.plain(*below(tie), "sh", "-c", OWNERS.format(LAUNCHER), timeout_s=LIMIT_S)
    assert done == plain
    after = tree.status()
    assert after["jobs"]["remote"] == before["jobs"]["remote"]
    assert after["tied"][tie] == before["tied"].get(tie, 0) + 4


@pytest.mark.attack
@pytest.mark.parametrize(
    ("tie", "script", "said"),
    [
        (Reason.BELOW_FAKECHROOT, "{0} echo here", b"here\n"),
        (Reason.BELOW_FAKETIME, "{0} date +%Y; {0} sh -c 'date +%Y'", b"2001\n2001\n"),
    ],
)
def test_what_other_fakes_start_runs_here(tree: Tree, tie: Reason, script: str, said: bytes) -> None:
    jobs = tree.jobs()
    done = tree.plain(*below(tie), "sh", "-c", script.format(LAUNCHER), timeout_s=LIMIT_S)
    assert done == Outcome(0, said, b"")
    assert tree.jobs() == jobs


@pytest.mark.parametrize("local", ["", "never"])
def test_a_front_end_below_it_builds_plainly_after_one_true_line(tree: Tree, local: str) -> None:
    """No rule can place these commands elsewhere, so TERMITE_LOCAL=never does not forbid them."""
    tree.write("Makefile", "all: made; @stat -c %u:%g made\nmade: ; @touch made; chown 12:34 made\n")
    jobs = tree.jobs()
    words = [*below(Reason.BELOW_FAKEROOT), str(COMMANDS / "termite-make"), "-s"]
    done = tree.plain(*words, timeout_s=LIMIT_S, env={"TERMITE_LOCAL": local})
    assert done == Outcome(0, b"12:34\n", f"termite: started without workers: {Reason.BELOW_FAKEROOT.words}\n".encode())
    assert tree.jobs() == jobs


def test_in_a_recipe_on_a_worker_it_works_as_ever(tree: Tree) -> None:
    below(Reason.BELOW_FAKEROOT)
    jobs = tree.jobs()
    done = tree.termite("fakeroot", "sh", "-c", "touch made; stat -c %u:%g made; id -u", timeout_s=LIMIT_S)
    assert done == Outcome(0, b"0:0\n0\n", b"")
    assert tree.jobs() == jobs + 1


def test_termite_ctl_below_it_finds_the_users_own_master_and_says_why(tree: Tree) -> None:
    script = f"{CTL} why gcc -c x.c; {CTL} status | grep ^tree"
    done = tree.plain(*below(Reason.BELOW_FAKEROOT), "sh", "-c", script)
    lines = done.stdout.decode().splitlines()
    assert lines[2] == "place      local, whatever a rule says", done
    assert lines[3] == f"reason     {Reason.BELOW_FAKEROOT.words}"
    assert lines[4].startswith("tree")
    assert done.stderr == b""


@pytest.fixture
def own_tree(user: Place) -> Iterator[Tree]:
    """Yield a tree with a master and rules of its own."""
    with embedded(new_tree(user)) as tree:
        yield tree


def test_the_summary_of_a_build_counts_what_ran_below_it(own_tree: Tree) -> None:
    below(Reason.BELOW_FAKEROOT)
    own_tree.write(".termite-localrc", '[{"Regexp": "fakeroot|make", "Local": true, "Recurse": true}]')
    recipes = "far: ; @id -u >far\nnear: ; @id -u >near; cat near\n"
    own_tree.write("Makefile", f"all: far; @fakeroot $(MAKE) -s near\n{recipes}")
    done = own_tree.make("-s", env={"TERMITE_VERBOSE": "1"}, timeout_s=LIMIT_S)
    assert (done.code, done.stdout) == (0, b"0\n"), done
    places = "1 job ran on workers, 2 on this machine (0 short, 1 by rule)"
    said = f"{places}; 1 on this machine: {Reason.BELOW_FAKEROOT.words}"
    assert done.stderr == f"termite: {said}\n".encode()
    assert f"local     1 command: {Reason.BELOW_FAKEROOT.words}\n".encode() in own_tree.ctl("status").stdout
