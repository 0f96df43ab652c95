"""Test which programs make the results of a command unfit to be stored."""

import pytest

from termite.engine.recall.look_up.clocks import find_clock
from tests.unit.tables import each_row


@pytest.mark.parametrize("tool", [b"usr/bin/date", b"usr/bin/uuidgen", b"bin/hostname", b"usr/bin/make"])
def test_a_program_that_reads_a_clock_is_found(tool: bytes) -> None:
    assert find_clock((b"sh", b"-c", b"..."), (b"usr/bin/dash", tool)) == tool


def test_other_programs_are_no_clocks() -> None:
    assert (
        find_clock((b"sh", b"-c", b"date"), (b"usr/bin/dash", b"usr/bin/update", b"usr/bin/gcc", b"opt/date/cc")) == b""
    )


@each_row("word", [b"-r", b"-rx", b"--reference=x", b"-d@0", b"--date=@0", b"@0"])
def test_a_date_of_a_file_or_of_a_given_time_is_none_either(word: bytes) -> None:
    tools = (b"usr/bin/date",)
    assert find_clock((b"date", b"+%s", word), tools) == b""
    assert find_clock((b"date", b"+%s", b"-dtoday"), tools) == tools[0]
    assert find_clock((b"sh", b"-c", b"date -r x", word), tools) == tools[0], "nobody knows the words of that date"


def test_a_clock_is_found_by_the_name_of_the_link_that_was_executed() -> None:
    assert find_clock((b"sh", b"-c", b"date"), (b"bin/busybox", b"bin/sh", b"bin/date")) == b"bin/date"
    assert find_clock((b"/bin/date", b"+%F"), (b"bin/busybox",)) == b"bin/date"
    assert find_clock((b"date", b"-r", b"x"), (b"bin/busybox", b"bin/date")) == b""
