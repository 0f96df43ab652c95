"""A master reports its start once, on a descriptor that may later be the number of another file."""

import os

import pytest

from termite.cli.client import StartReport, parse_start_report
from termite.cli.master_command import StarterPipe


def test_the_report_is_sent_once_and_no_other_file_gets_a_later_one() -> None:
    ready, for_master = os.pipe()
    starter = StarterPipe(for_master)
    starter.report(StartReport())
    with os.fdopen(ready, "rb") as pipe:
        assert parse_start_report(pipe.read()).error == "", "the pipe is closed after the report"
    other_ready, other = os.pipe()
    os.dup2(other, for_master)  # the number belongs to another file now
    os.set_blocking(other_ready, False)
    try:
        starter.report(StartReport("the master ended", ""))
        with pytest.raises(BlockingIOError):
            os.read(other_ready, 1)
    finally:
        for fd in {other_ready, other, for_master}:
            os.close(fd)


def test_a_starter_that_has_gone_and_a_wrong_number_are_no_error() -> None:
    ready, for_master = os.pipe()
    os.close(ready)
    StarterPipe(for_master).report(StartReport())
    with pytest.raises(OSError):
        os.fstat(for_master)
    StarterPipe(for_master).report(StartReport())
    StarterPipe(-1).report(StartReport())
