"""Test that the store is evicted and scrubbed in steps, and that a scrub waits for jobs to end."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from termite.engine.store.store_upkeep import LOOK_S, RETRY_S, SCRUB_BYTES_PER_S, StoreUpkeep


class FakeStore:
    """A store whose work is a given number of steps."""

    def __init__(self) -> None:
        self.evictions: list[float] = []
        self.is_due = True
        self.scrub_steps: list[tuple[float, int]] = []
        self.due: list[list[int]] = []
        self.scrubs = 0
        self.error: OSError | None = None

    def eviction(self) -> Iterator[int]:
        if self.error is not None:
            raise self.error
        self.is_due = False
        self.evictions.append(trio.current_time())
        yield from [0, 0, 1]

    def is_eviction_due(self, now: float) -> bool:
        return self.is_due

    def scrub(self, now: float) -> Iterator[int]:
        self.scrubs += 1
        if self.error is not None:
            raise self.error
        for size_bytes in self.due.pop() if self.due else []:
            self.scrub_steps.append((trio.current_time(), size_bytes))
            yield size_bytes


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


async def next_step(steps: Iterator[int]) -> int | None:
    await trio.lowlevel.checkpoint()
    return next(steps, None)


async def start(nursery: trio.Nursery, store: FakeStore, is_idle: bool = False) -> list[bool]:
    """Start the upkeep, and return a list whose last item says whether no job runs."""
    idle = [is_idle]
    upkeep = StoreUpkeep(store, lambda: idle[-1], next_step)
    nursery.start_soon(upkeep.keep_within_limits)
    nursery.start_soon(upkeep.keep_sound)
    return idle


async def test_an_eviction_is_made_when_it_is_due_but_not_at_once(store: FakeStore, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        await start(nursery, store)
        begin = trio.current_time()
        await trio.sleep(1000)
        assert store.evictions == [begin + LOOK_S]
        store.is_due = True
        await trio.sleep(1.5 * LOOK_S)
        assert len(store.evictions) == 2
        nursery.cancel_scope.cancel()
    assert store.scrubs == 0, "a job runs all the time"


async def test_a_scrub_waits_for_an_idle_moment_and_is_slow(store: FakeStore, autojump_clock: object) -> None:
    size_bytes = 10 * SCRUB_BYTES_PER_S  # ten seconds a step
    store.due = [[size_bytes] * 3]
    async with trio.open_nursery() as nursery:
        idle = await start(nursery, store)
        await trio.sleep(100)
        assert store.scrub_steps == []
        idle.append(True)
        await trio.sleep(LOOK_S + 2)
        idle.append(False)  # in the pause after the first step
        await trio.sleep(100)
        assert len(store.scrub_steps) == 1
        idle.append(True)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    (_, second, third) = (time for time, _ in store.scrub_steps)
    assert third - second >= 10


@pytest.mark.logs("store-upkeep-failed")
async def test_a_disk_that_refuses_ends_no_lease(store: FakeStore, autojump_clock: object) -> None:
    store.error = OSError(5, "Input/output error")
    async with trio.open_nursery() as nursery:
        await start(nursery, store, is_idle=True)
        await trio.sleep(RETRY_S)
        assert store.scrubs == 1, "a scrub is not tried again in this lease"
        store.error = None
        await trio.sleep(RETRY_S)
        nursery.cancel_scope.cancel()
    assert len(store.evictions) == 1
