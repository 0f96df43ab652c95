"""Variables that -env-exclude names do not leave the machine; commands that name one run there."""

from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import Outcome

SECRETS = {"AWS_SECRET": "abc", "MY_TOKEN": "def", "MY_TOKENS": "kept", "OTHER": "kept"}


@pytest.fixture(scope="module", params=USERS)
def closed(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    env = {"TERMITE_ENV_EXCLUDE": "AWS_* *_TOKEN"}
    with make_place(request.param) as where, embedded(new_tree(where), env=env) as tree:
        yield tree


def test_a_worker_does_not_get_them(closed: Tree) -> None:
    jobs = closed.jobs()
    said = closed.termite("env", env=SECRETS).stdout.decode().splitlines()
    assert closed.jobs() == jobs + 1
    assert {line for line in said if line.partition("=")[0] in SECRETS} == {"MY_TOKENS=kept", "OTHER=kept"}


@pytest.mark.parametrize("script", ["echo $AWS_SECRET", "echo ${AWS_SECRET}", "env | sed -n s/^AWS_SECRET=//p"])
def test_a_command_that_names_one_runs_here(closed: Tree, script: str) -> None:
    before = closed.status()
    assert closed.termite("sh", "-c", script, env=SECRETS) == Outcome(0, b"abc\n", b"")
    after = closed.status()
    assert after["jobs"]["remote"] == before["jobs"]["remote"]
    assert after["tied"][Reason.NAMES_EXCLUDED] == before["tied"].get(Reason.NAMES_EXCLUDED, 0) + 1
    assert Reason.NAMES_EXCLUDED.words.encode() in closed.ctl("why", "sh", "-c", script, env=SECRETS).stdout


LONG = {"MY_TOKEN": "correct-horse"}


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (("echo", "correct-horse"), {}),
        (("sh", "-c", 'echo "$1"', "-", "correct-horse"), {}),
        (("sh", "-c", "echo $COPY"), {"COPY": "correct-horse"}),
    ],
)
def test_a_command_that_contains_the_value_of_one_runs_here(
    closed: Tree, words: tuple[str, ...], env: dict[str, str]
) -> None:
    jobs = closed.jobs()
    assert closed.termite(*words, env={**LONG, **env}) == Outcome(0, b"correct-horse\n", b"")
    assert closed.jobs() == jobs


def test_what_make_repeats_of_its_command_line_is_not_sent(closed: Tree) -> None:
    jobs = closed.jobs()
    said = closed.termite("env", env={**LONG, "MAKEFLAGS": "w -- MY_TOKEN=correct-horse CC=gcc"}).stdout
    assert b"MAKEFLAGS=w -- CC=gcc\n" in said
    assert b"correct-horse" not in said
    assert closed.jobs() == jobs + 1


def test_a_value_is_never_shown(closed: Tree) -> None:
    said = closed.ctl("why", "sh", "-c", "curl -H correct-horse --password hunter2 x", env=LONG).stdout
    assert b"curl -H *** --password *** x" in said


def test_a_name_that_only_contains_one_goes_to_a_worker(closed: Tree) -> None:
    jobs = closed.jobs()
    assert closed.termite("sh", "-c", "echo $MY_TOKENS; : XMY_TOKEN", env=SECRETS) == Outcome(0, b"kept\n", b"")
    assert closed.termite("sh", "-c", "echo $AWS_SECRET").stdout == b"\n"  # it is not set here either
    assert closed.jobs() == jobs + 2
