"""A short soak: no table of a real master or mirror grows with names that are deleted again."""

import math
from pathlib import Path

from tests.torture.soak import CACHES, MIRROR_TABLES, judge_leases, soak

JOBS = 1000


def test_no_table_grows_with_new_names(base: Path) -> None:
    """Resident memory is printed, and only tables are judged (see tests/torture/soak.py)."""
    result = soak(base, 1, math.inf, JOBS)
    assert result.problems == []
    assert result.jobs == JOBS


def test_a_table_of_a_mirror_that_keeps_one_entry_of_each_job_is_seen() -> None:
    """The numbers of jobs are those of a mirror in the short soak: a recipe has three."""
    level = dict.fromkeys(MIRROR_TABLES, 200)
    short, long = 300, 1200
    assert judge_leases("w0", [(0, {}), (long, level), (short, level)]) == []
    for name in set(MIRROR_TABLES) - set(CACHES):  # those have bounds of their own
        grown = level | {name: 200 + long}
        (problem,) = judge_leases("w0", [(short, level | {name: 200 + short}), (long, grown)])
        assert problem.startswith(f"left: the mirror's table {name} of w0 ")
    assert judge_leases("w0", [(short, level)])[0].startswith("wrong: ")
