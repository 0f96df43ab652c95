"""Each job has the number of a slot that no other job has at the same time."""

from termite.engine.loop.slot_numbers import SlotNumbers


def test_the_lowest_free_number_is_taken() -> None:
    numbers = SlotNumbers()
    assert [numbers.take() for _ in range(3)] == [0, 1, 2]
    numbers.give_back(2)
    numbers.give_back(0)
    assert [numbers.take() for _ in range(3)] == [0, 2, 3]
