"""Test which settled checks run, and who waits for them."""

import pytest
import trio
import trio.testing

from termite.engine.errors import UserError
from termite.engine.master.remote_runs.settled_check import RETRY_S, SettledCheck


class Look:
    def __init__(self) -> None:
        self.begun = 0
        self.ends, self.ended = trio.open_memory_channel[Exception | None](9)

    async def __call__(self) -> None:
        self.begun += 1
        if error := await self.ended.receive():
            raise error


async def test_nobody_waits_where_nothing_was_asked_for() -> None:
    recheck = SettledCheck(Look())
    with trio.fail_after(1):
        await recheck.wait()


async def test_who_asks_while_it_goes_on_waits_for_another_look(nursery: trio.Nursery) -> None:
    look = Look()
    recheck = SettledCheck(look)
    nursery.start_soon(recheck.run)
    waited: list[str] = []

    async def wait(name: str) -> None:
        await recheck.wait()
        waited.append(name)

    recheck.request()
    nursery.start_soon(wait, "first")
    await trio.testing.wait_all_tasks_blocked()
    recheck.request()
    nursery.start_soon(wait, "second")
    await trio.testing.wait_all_tasks_blocked()
    assert (look.begun, waited) == (1, [])
    look.ends.send_nowait(None)
    await trio.testing.wait_all_tasks_blocked()
    assert (look.begun, waited) == (2, ["first"])
    look.ends.send_nowait(None)
    await trio.testing.wait_all_tasks_blocked()
    assert waited == ["first", "second"]


@pytest.mark.logs("settled-check-failed")
async def test_what_goes_wrong_is_told_to_all_until_a_look_succeeds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    look = Look()
    recheck = SettledCheck(look)
    nursery.start_soon(recheck.run)
    recheck.request()
    look.ends.send_nowait(OSError("disk"))
    for _ in range(2):
        with pytest.raises(UserError, match="disk"):
            await recheck.wait()
    autojump_clock.jump(RETRY_S)
    look.ends.send_nowait(None)
    await recheck.wait()
    await recheck.wait()
    assert look.begun == 2
