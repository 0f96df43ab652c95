"""Test the local slots, and the commands that hold them."""

import trio
import trio.testing

from termite.engine.launch.local_runs import LocalSlots

PARENTS = {20: 10, 30: 20, 40: 1, 10: 1}


def slots_of(count: int) -> LocalSlots:
    return LocalSlots(count, lambda pid: PARENTS.get(pid, 0))


async def test_what_a_local_command_starts_is_part_of_it() -> None:
    slots = slots_of(1)
    assert not slots.is_nested(30)
    await slots.take(10)
    assert slots.is_nested(30) and not slots.is_nested(40)
    assert slots.is_nested(10), "`exec termite ar x`, as a command that is local itself: the process stays the same"
    slots.give_back(10)
    assert not slots.is_nested(30)


async def test_another_command_waits_for_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    slots = slots_of(1)
    await slots.take(10)
    with trio.move_on_after(5) as waiting:
        await slots.take(40)
    assert waiting.cancelled_caught
    slots.give_back(10)
    await slots.take(40)
    assert slots.running == 1


async def test_a_slot_is_taken_at_once_or_not_at_all() -> None:
    slots = slots_of(2)
    assert not slots.take_nowait(10, reserved=2)
    assert slots.take_nowait(10, reserved=1)
    assert not slots.take_nowait(20, reserved=1)
    assert slots.take_nowait(20)
    assert not slots.take_nowait(30)
    assert slots.running == 2
    slots.give_back(20)
    slots.give_back(10)
    assert slots.running == 0
