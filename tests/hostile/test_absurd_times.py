"""A job dates its files so far ahead that no number on the wire can say it."""

from pathlib import Path

import pytest

from termite.engine.errors import Reason, Retryable
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize(
    "date", ["2261-01-01", "2263-01-01", "2400-01-01", "2600-01-01", "9999-01-01", "1901-01-01", "1500-01-01"]
)
async def test_a_file_of_another_century_is_told_or_its_job_runs_elsewhere_and_the_lease_goes_on(
    starter: Starter, date: str
) -> None:
    with attacked_place(starter) as base:
        await _date_a_file(base, starter, date)
    print("HELD", date)


async def _date_a_file(base: Path, starter: Starter, date: str) -> None:
    master = HostileMaster(base / "project")
    async with mirror(master, base / "place", starter):
        try:
            ran = await master.run("touch", "-d", date, "f")
        except Retryable as error:
            assert error.reason is Reason.TOO_LARGE
            assert date > "2554" or date < "1677"
        else:
            (attr,) = [change.attr for change in ran.changes if change.path.endswith(b"/f")]
            assert attr is not None
            said = (await master.said("date", "-u", "-d", f"@{attr.mtime_ns // 10**9}", "+%F")).decode().strip()
            assert said == date
        assert await master.said("echo", "alive") == b"alive\n"
