"""Tests of which task listens while others wait."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from termite.engine.loop.leader import SPARE_TASKS, Leader


class Listening:
    """A loop that receives numbers and calls `deal` with each; `listened` has the task of each."""

    def __init__(self, nursery: trio.Nursery, deal: Callable[[int], Awaitable[None]], max_tasks: int = 1000) -> None:
        self.said, self._heard = trio.open_memory_channel[int](1000)
        self.listened: list[trio.lowlevel.Task] = []
        self.tasks = 0
        self.started = 0
        self._deal = deal
        self.run = Leader(nursery, self._loop, max_tasks).run

    async def _loop(self, leader: Leader) -> None:
        self.started += 1
        self.tasks += 1
        try:
            while await leader.wait_turn():
                number = await leader.listen(self._heard.receive)
                self.listened.append(trio.lowlevel.current_task())
                await self._deal(number)
        except trio.EndOfChannel:
            pass
        finally:
            self.tasks -= 1


async def test_events_that_need_no_waiting_are_dealt_with_by_one_task(nursery: trio.Nursery) -> None:
    async def deal(number: int) -> None:
        pass

    listening = Listening(nursery, deal)
    nursery.start_soon(listening.run)
    for number in range(50):
        listening.said.send_nowait(number)
        await trio.testing.wait_all_tasks_blocked()
    assert len(set(listening.listened)) == listening.started == 1
    assert len(listening.listened) == 50


async def test_while_some_wait_others_listen_and_then_all_but_a_few_end(nursery: trio.Nursery) -> None:
    may_end = trio.Event()

    async def deal(number: int) -> None:
        if number:
            await may_end.wait()
            await trio.lowlevel.checkpoint()  # the second suspension must not start another task

    listening = Listening(nursery, deal)
    nursery.start_soon(listening.run)
    for number in range(1, 41):
        listening.said.send_nowait(number)
    await trio.testing.wait_all_tasks_blocked()
    assert listening.tasks == listening.started == 41
    may_end.set()
    await trio.testing.wait_all_tasks_blocked()
    assert listening.tasks == 1 + SPARE_TASKS
    for number in range(41, 60):  # the spare ones are used again
        listening.said.send_nowait(number)
        await trio.testing.wait_all_tasks_blocked()
    assert listening.started == 41
    assert len(listening.listened) == 59


async def test_while_all_tasks_wait_nobody_listens(nursery: trio.Nursery) -> None:
    gates = {number: trio.Event() for number in range(5)}

    async def deal(number: int) -> None:
        await gates[number].wait()

    listening = Listening(nursery, deal, max_tasks=3)
    nursery.start_soon(listening.run)
    for number in gates:
        listening.said.send_nowait(number)
    await trio.testing.wait_all_tasks_blocked()
    assert len(listening.listened) == 3
    gates[0].set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(listening.listened) == 4
    for gate in gates.values():
        gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(listening.listened) == 5


async def test_the_end_of_the_events_ends_all_tasks_and_none_is_cut_short() -> None:
    done: list[int] = []

    async def deal(number: int) -> None:
        await trio.sleep(0.02)
        done.append(number)

    async with trio.open_nursery() as nursery:
        listening = Listening(nursery, deal)
        nursery.start_soon(listening.run)
        for number in range(5):
            listening.said.send_nowait(number)
        await trio.sleep(0.1)
        listening.said.send_nowait(5)
        listening.said.close()
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    assert listening.tasks == 0


async def test_an_error_stays_in_its_task_and_cancelling_reaches_all_waiting_tasks() -> None:
    async def deal(number: int) -> None:
        if number == 2:
            raise ZeroDivisionError
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            ended.append(number)
            raise

    ended: list[int] = []
    with pytest.raises(ExceptionGroup) as raised:
        async with trio.open_nursery() as nursery:
            listening = Listening(nursery, deal)
            nursery.start_soon(listening.run)
            for number in range(3):
                listening.said.send_nowait(number)
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]
    assert sorted(ended) == [0, 1]
