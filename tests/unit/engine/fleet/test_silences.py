"""Test which changes of silent workers are noted, with leases whose connections never speak."""

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from termite.engine.fleet.lease import Lease
from termite.engine.fleet.silences import KEPT_CHANGES, Silence, SilentLeases
from termite.engine.wire.silence_watch import CLOSE_ANSWER_S, CLOSE_SILENCE_S, LinkProgress, SilenceWatch, WatchedLine

SILENT_AFTER_S = CLOSE_SILENCE_S + CLOSE_ANSWER_S

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "termite.engine.fleet.silences")


def lease_with_jobs(worker: str, running: int = 1) -> tuple[Lease, SilenceWatch]:
    lease = Lease(worker, 0, 0.0)
    lease.running = running
    return lease, SilenceWatch(WatchedLine(lambda: True, lambda: None, LinkProgress))


async def test_two_silent_leases_are_one_silent_worker(autojump_clock: MockClock) -> None:
    silences = SilentLeases()
    (first, of_first), (second, of_second) = lease_with_jobs("w", 2), lease_with_jobs("w")
    async with trio.open_nursery() as nursery:
        for lease, watch in ((first, of_first), (second, of_second)):
            nursery.start_soon(silences.watch, lease, watch)
            nursery.start_soon(watch.run)
        (began,) = await silences.wait_beyond(0)
        assert (began.worker, began.step, began.lasted_s) == ("w", Silence.BEGAN, SILENT_AFTER_S)
        await wait_all_tasks_blocked()
        of_first.note_answer()
        await wait_all_tasks_blocked()
        assert set(silences.since_s()) == {"w"} and silences.number == 1
        of_second.note_answer()
        (ended,) = await silences.wait_beyond(1)
        assert ended.step is Silence.ENDED
        assert silences.since_s() == {}
        nursery.cancel_scope.cancel()


async def test_a_lease_that_ends_amid_its_silence_is_lost(autojump_clock: MockClock) -> None:
    silences = SilentLeases()
    lease, watch = lease_with_jobs("w", 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(silences.watch, lease, watch)
        nursery.start_soon(watch.run)
        await silences.wait_beyond(0)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    change = (await silences.wait_beyond(1))[0]
    assert (change.step, change.jobs, change.lasted_s) == (Silence.LOST, 3, SILENT_AFTER_S + 5)
    assert silences.since_s() == {}


async def test_a_late_follower_gets_the_last_changes(autojump_clock: MockClock) -> None:
    silences = SilentLeases()
    for number in range(KEPT_CHANGES):
        lease, watch = lease_with_jobs(f"w{number}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(silences.watch, lease, watch)
            nursery.start_soon(watch.run)
            await silences.wait_beyond(silences.number)
            nursery.cancel_scope.cancel()
    assert silences.number == 2 * KEPT_CHANGES
    assert len(await silences.wait_beyond(0)) == KEPT_CHANGES
    assert [change.worker for change in await silences.wait_beyond(silences.number - 1)] == [f"w{KEPT_CHANGES - 1}"]
