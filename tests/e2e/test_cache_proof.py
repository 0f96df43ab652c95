"""Results that are used again are what the commands would do: a small project and many commands.

`python -m tests.cache_proof` builds packages in the same way for as long as one likes.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache_proof.projects import PROJECTS, SMALL, TABLE
from tests.cache_proof.rounds import ProvenProject, Result
from tests.cache_proof.twin import difference_of_outcomes, differences
from tests.cache_proof.unsteady import COMMANDS, Unsteady
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import Outcome

SEED = 1
ROUNDS = 4
TABLE_PART = ("c1", "c4", "c7", "c13", "c24")
UNSTEADY_PART = ("time", "random", "hash order", "threads", "temporary directory", "__TIME__", "mode", "stderr")


@pytest.fixture(scope="module")
def caching(make_place: MakePlace) -> Iterator[Tree]:
    with make_place("ordinary") as where, embedded(new_tree(where), env={"TERMITE_CACHE": "on"}) as tree:
        yield tree


def problems(results: list[Result]) -> str:
    return "\n".join(f"{result.line()}\n    {result.problems}" for result in results if result.problems)


def test_every_hit_is_what_a_plain_build_makes(caching: Tree) -> None:
    kept = caching.where.base / "kept"
    small = ProvenProject(caching, SMALL, SEED, kept)
    table = ProvenProject(caching, PROJECTS[TABLE], SEED, kept, TABLE_PART)
    unsteady = Unsteady(caching, {name: COMMANDS[name] for name in UNSTEADY_PART})
    results = []
    for _ in range(ROUNDS):
        results += [small.run(), table.run(), unsteady.run()]
    assert not problems(results)
    assert sum(result.hits for result in results if result.name == SMALL.name)
    assert sum(result.hits for result in results if result.name == TABLE)
    assert not sum(result.hits for result in results if result.name == "unsteady")


def test_the_proof_sees_whatever_differs(tmp_path: Path) -> None:
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    for top in (ours, plain):
        top.mkdir()
        for name in ("content", "mode", "link", "time", "old"):
            (top / name).write_text("x")
        (top / "symlink").symlink_to("content")
    since_ns = (ours / "content").stat().st_mtime_ns
    assert not list(differences(ours, plain, since_ns))
    (ours / "content").write_text("y")
    (ours / "mode").chmod(0o600)
    (ours / "linked").hardlink_to(ours / "link")
    (ours / "symlink").unlink()
    (ours / "symlink").symlink_to("mode")
    for top, second in ((ours, 1), (plain, 2)):
        os.utime(top / "old", (second, second))
    os.utime(ours / "time", (1, 1))
    found = {line.partition(" ")[0] for line in differences(ours, plain, since_ns)}
    assert found == {"content", "mode", "link", "linked", "symlink", "time", "old"}
    right = Outcome(0, b"[1/2] a\nb\n", b"termite-make: summary\n")
    assert not list(difference_of_outcomes(Outcome(0, b"b\na\n", b""), right))
    for wrong in (Outcome(1, b"b\na\n", b""), Outcome(0, b"b\n", b""), Outcome(0, b"b\na\n", b"c\n")):
        assert list(difference_of_outcomes(wrong, right))
