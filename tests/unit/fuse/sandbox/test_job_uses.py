"""The processes of a job are found, and their use is added up."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.fuse.sandbox.job_uses import PAGE_BYTES, JobUse, ProcessUse, parse_stat, sum_uses
from tests.unit.mutations import mutations

STAT = "7 ({name}) S {parent} 7 7 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 {threads} 0 5 8192 {pages} 18446744073709551615 1"


@pytest.mark.parametrize("name", ["sh", "a b", "x) S 1 (", ")", "("])
def test_a_line_of_proc_is_understood_whatever_the_name_of_the_program(name: str) -> None:
    stat = STAT.format(name=name, parent=3, threads=5, pages=40).encode()
    assert parse_stat(stat) == ProcessUse(3, 5, 40 * PAGE_BYTES)


@pytest.mark.attack
@given(st.binary(max_size=15))
def test_no_name_of_a_program_changes_the_numbers_behind_it(name: bytes) -> None:
    """The kernel shows a name as it is, and a job chooses it (prctl(2))."""
    before, _, after = STAT.format(name="NAME", parent=3, threads=5, pages=40).partition("NAME")
    assert parse_stat(before.encode() + name + after.encode()) == ProcessUse(3, 5, 40 * PAGE_BYTES)


@given(mutations(STAT.format(name="sh", parent=3, threads=5, pages=40).encode()))
def test_any_line_is_understood_or_left_out(stat: bytes) -> None:
    with suppress(ValueError, IndexError):
        assert isinstance(parse_stat(stat).parent, int)


def test_a_line_may_be_cut_anywhere() -> None:
    stat = STAT.format(name="a)b", parent=3, threads=5, pages=40).encode()
    for end in range(len(stat)):
        with suppress(ValueError, IndexError):
            assert parse_stat(stat[:end]).threads == 5


def test_descendants_count_for_their_job_and_nobody_else_does() -> None:
    processes = {
        1: ProcessUse(0, 9, 900),
        20: ProcessUse(1, 1, 100),  # serve
        30: ProcessUse(20, 1, 1),  # pid 1 of a job
        31: ProcessUse(30, 1, 10),
        32: ProcessUse(31, 4, 20),
        33: ProcessUse(30, 1, 30),  # an orphan
        40: ProcessUse(20, 1, 1),  # pid 1 of another
        41: ProcessUse(40, 2, 7),
        50: ProcessUse(20, 1, 1),  # of one that waits
        60: ProcessUse(99, 1, 1),  # its parent has ended meanwhile
    }
    assert sum_uses(processes, [30, 40, 70]) == {
        30: JobUse(6, 60, {31: 10, 32: 20, 33: 30}),
        40: JobUse(2, 7, {41: 7}),
        70: JobUse(),
    }


def test_a_circle_of_parents_which_two_looks_may_show_does_not_hang() -> None:
    processes = {2: ProcessUse(3, 1, 1), 3: ProcessUse(2, 1, 1), 4: ProcessUse(4, 1, 1)}
    assert sum_uses(processes, [9]) == {9: JobUse()}


def test_a_chain_of_ten_thousand_processes_is_followed() -> None:
    processes = {pid: ProcessUse(pid - 1, 1, 1) for pid in range(10_010, 10, -1)}
    assert sum_uses(processes, [10])[10].processes == 10_000
