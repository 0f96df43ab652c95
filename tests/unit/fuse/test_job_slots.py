"""A lease without slots gives its jobs back, and keeps those that run."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from termite.engine.errors import Reason, Retryable
from termite.fuse.job_slots import JobSlots


async def test_jobs_that_wait_are_given_back_when_the_slots_go_and_running_ones_end_well() -> None:
    slots, ended, given_back = JobSlots(), list[int](), list[Reason]()
    release = trio.Event()

    async def job(number: int) -> None:
        try:
            async with slots:
                await release.wait()
                ended.append(number)
        except Retryable as error:
            given_back.append(error.reason)

    slots.set_count(2)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(job, number)
        await wait_all_tasks_blocked()
        slots.set_count(0)
        nursery.start_soon(job, 9)
        await wait_all_tasks_blocked()
        assert given_back == [Reason.WORKER_BUSY] * 2
        slots.set_count(1)
        nursery.start_soon(job, 10)
        await wait_all_tasks_blocked()
        assert len(given_back) == 2
        release.set()
    assert len(ended) == 3 and 10 in ended


async def test_a_lease_that_was_not_granted_runs_nothing() -> None:
    with pytest.raises(Retryable):
        async with JobSlots():
            raise AssertionError
