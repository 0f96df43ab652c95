"""Rounds of the torture test with fixed seeds: the build is right, and nothing is left.

`make torture` runs many more (docs/develop/faults.md). These seeds have different faults, tools and
users.
"""

from pathlib import Path

import pytest

from tests.torture.faults import FAULTS
from tests.torture.one_round import Rounds
from tests.torture.steps import SMALL

SEEDS = [
    ("restart:master", 1),
    ("kill:pid1", 2),
    ("stop:worker", 3),
    ("restart:worker", 4),
    ("kill:coordinator", 5),
    ("line:cut", 6),
    ("line:reset", 7),
    ("blob:truncate:during", 8),
    ("user:ctrl-c", 9),
    ("edit:sources", 10),
    ("space:tree-fills", 11),
    ("space:below-fills", 1),
    ("space:scratch-fills", 4),
    ("freeze:pid1", 1),
    ("freeze:waiting", 1),
    ("user:ci-publishing", 1),
]


@pytest.fixture(scope="module")
def rounds(base: Path) -> Rounds:
    return Rounds(base, SMALL)


def seed_param(name: str, seed: int) -> object:
    marks = [pytest.mark.needs_root("mounts small file systems")] if FAULTS[name].needs_root else []
    return pytest.param(name, seed, marks=marks)


@pytest.mark.parametrize(("name", "seed"), [seed_param(*seed) for seed in SEEDS])
def test_one_fault_changes_nothing(rounds: Rounds, name: str, seed: int) -> None:
    fault = FAULTS[name]
    result = rounds.run(fault, seed)
    assert result.problems == [], f"injected: {result.injected}"
    assert result.injected, "the build ended before the fault's moment"
