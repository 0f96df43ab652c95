"""The report of a started master goes through a pipe whole, and one that was cut off is none."""

import pytest

from termite.cli.client import StartReport, parse_start_report
from termite.engine.errors import Reason


@pytest.mark.parametrize(
    ("error", "hint"), [("", ""), ("the port is in use\nby another", "see ss -l"), ("no \udcff here", "")]
)
def test_a_report_comes_out_as_it_went_in_and_no_part_of_it_means_success(error: str, hint: str) -> None:
    packed = StartReport(error, hint, Reason.BAD_RULES.value).pack()
    whole = parse_start_report(packed)
    assert (whole.error, whole.hint, whole.reason) == (error, hint, Reason.BAD_RULES)
    for length in range(len(packed)):
        assert parse_start_report(packed[:length]).error


def test_a_master_that_says_something_else_has_not_started() -> None:
    for packed in (b"ok", b"[]", b"\xff", b'"ok"'):
        assert parse_start_report(packed).error == "the master ended while it was starting"
