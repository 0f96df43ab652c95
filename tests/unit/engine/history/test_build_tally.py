"""The counts of a build are those of its records."""

import pytest

from termite.engine.history.logic.build_tally import BuildTally
from tests.synthetic_builds import counts_of, synthetic_build


@pytest.mark.parametrize("jobs", [0, 1, 200])
def test_records_give_the_counts(jobs: int) -> None:
    _, records = synthetic_build(jobs)
    tally = BuildTally()
    for record in records:
        tally.add(record)
    assert (tally.counts(), tally.jobs) == (counts_of(records), jobs)


def test_files_that_two_jobs_wrote_are_counted() -> None:
    tally = BuildTally()
    _, records = synthetic_build(2)
    tally.add(records[0], 3)
    tally.add(records[1])
    assert tally.counts().conflicts == 3
