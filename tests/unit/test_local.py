"""Slots of this machine."""

import trio
import trio.testing

from termite.engine.local import LocalSlots

PARENTS = {20: 10, 30: 20, 40: 1, 10: 1}


async def test_what_a_local_command_starts_takes_no_second_slot() -> None:
    slots = LocalSlots(1, lambda pid: PARENTS.get(pid, 0))
    with trio.fail_after(1):
        async with slots.slot(10), slots.slot(30):
            assert slots.running == 1


async def test_another_command_waits_for_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    slots = LocalSlots(1, lambda pid: PARENTS.get(pid, 0))
    async with slots.slot(10):
        with trio.move_on_after(5) as waiting:
            async with slots.slot(40):
                raise AssertionError
        assert waiting.cancelled_caught
    async with slots.slot(40):
        assert slots.running == 1


async def test_a_command_that_becomes_a_launcher_again_takes_no_second_slot() -> None:
    """`termite ar x`, or `exec termite ar x`, as a command that is local itself: the process stays the same."""
    slots = LocalSlots(1, lambda pid: PARENTS.get(pid, 0))
    with trio.fail_after(1):
        async with slots.slot(10):
            async with slots.slot(10):
                assert slots.running == 1
            assert slots.running == 1


async def test_a_spare_slot_is_taken_at_once_or_not_at_all() -> None:
    slots = LocalSlots(2, lambda pid: PARENTS.get(pid, 0))
    assert not slots.take_spare(10, reserved=2)
    assert slots.take_spare(10, reserved=1)
    assert not slots.take_spare(20, reserved=1)
    assert slots.take_spare(20, reserved=0), "below a command with a slot it takes one too"
    assert not slots.take_spare(30, reserved=0)
    assert slots.running == 2
    slots.give_back(20)
    slots.give_back(10)
    assert slots.running == 0
    async with slots.slot(40):
        assert slots.running == 1
