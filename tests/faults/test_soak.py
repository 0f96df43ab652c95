"""A short soak: no table of a real master or mirror grows with names that are deleted again."""

import math
from pathlib import Path

from tests.torture.soak import soak

JOBS = 1000


def test_no_table_grows_with_new_names(base: Path) -> None:
    """Resident memory is printed, and only tables are judged (see tests/torture/soak.py)."""
    result = soak(base, 1, math.inf, JOBS)
    assert result.problems == []
    assert result.jobs == JOBS
