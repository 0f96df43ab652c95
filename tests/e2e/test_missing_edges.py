"""A command that fails because a rule does not name an input passes if the input comes meanwhile.

`python -m tests.e2e.missing_edges` runs a hundred such builds.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Tree, cluster, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.missing_edges import RULES, TRACED, Counts, SeededBuild

MOST_JOBS = 16
SEEDS = range(4)


@pytest.fixture(scope="module", params=USERS)
def traced(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    with make_place(request.param) as where:
        tree = new_tree(where)
        with cluster(tree, [where], jobs=MOST_JOBS, master_flags=TRACED):
            tree.write(".termite-localrc", RULES)
            yield tree


def test_a_command_that_failed_passes_when_its_input_has_come(traced: Tree) -> None:
    counts = Counts()
    builds = [SeededBuild(traced, seed, MOST_JOBS) for seed in SEEDS]
    for build in builds:
        counts.add(build.run())
    assert not counts.wrong, "\n".join(counts.wrong)
    assert counts.mended, str(counts)
    assert {build.tool for build in builds} == {"make", "ninja"}
    assert traced.status()["retries"] == {"input-changed": counts.mended}
