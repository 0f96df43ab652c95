"""tools/example.py: an example fails if its jobs do not run on workers."""

from collections import Counter
from pathlib import Path

import pytest

from example import Built, check_remote
from projects import ProjectError, read_project

CHECKOUT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(CHECKOUT.glob("examples/*/*.toml"))


def built(remote: int, **counts: int) -> Built:
    return Built("first", {}, 1.0, Counter({"remote": remote, **counts}))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_example_says_how_many_of_its_jobs_must_run_on_workers(path: Path) -> None:
    example = read_project(path)
    assert example.remote > 30
    check_remote(example, [built(example.remote), built(example.remote + 1, local=1)])
    for count in (0, example.remote - 1):
        with pytest.raises(ProjectError, match=f"{count} jobs ran on workers"):
            check_remote(example, [built(example.remote), built(count, local=example.remote)])
