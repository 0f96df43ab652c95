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
