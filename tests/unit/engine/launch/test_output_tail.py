"""The end of an output is kept, in whatever pieces it comes."""

import pytest

from termite.engine.launch.output_tail import TAIL_BYTES, OutputTail


@pytest.mark.parametrize("step", [1, 7, 1000, TAIL_BYTES, 3 * TAIL_BYTES])
def test_the_last_bytes_stay_and_all_are_counted(step: int) -> None:
    whole = bytes(range(256)) * 64
    tail = OutputTail()
    for at in range(0, len(whole), step):
        tail.add(whole[at : at + step])
    assert (tail.content, tail.size) == (whole[-TAIL_BYTES:], len(whole))


def test_a_second_run_begins_anew() -> None:
    tail = OutputTail()
    tail.add(b"first")
    tail.clear()
    tail.add(b"2")
    assert (tail.content, tail.size) == (b"2", 1)
