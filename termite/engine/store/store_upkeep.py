"""Keep the store within its limits, and its blobs sound, while jobs run.

Both need little at a time: each step takes a few milliseconds of a thread, and then there is a
pause.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import trio

LOOK_S = 5.0  # between two checks whether an eviction is due, or a scrub can go on
RETRY_S = 600.0  # from an eviction that the disk refused to the next one
EVICTION_PAUSE_S = 0.02  # a step takes some 3 ms: 15 % of a core, and 45 s for a million files
SCRUB_BYTES_PER_S = 16 * 1024**2  # 1 % of a core, and 20 GiB in 22 minutes without a job

log = logging.getLogger(__name__)


class Upkept(Protocol):
    """The store, or what stands for it in tests."""

    def eviction(self) -> Iterator[int]:
        """Remove the least recently used blobs in steps."""
        ...

    def is_eviction_due(self, now: float) -> bool:
        """Return whether an eviction is due."""
        ...

    def scrub(self, now: float) -> Iterator[int]:
        """Read what is due again in steps, and yield the bytes of each."""
        ...


async def next_step_in_thread(steps: Iterator[int]) -> int | None:
    """Make one step in a thread. Return None if there is none left."""
    return await trio.to_thread.run_sync(next, steps, None)


class StoreUpkeep:
    """The upkeep of one store. `is_idle` says whether no job runs.

    `next_step` is replaced in tests whose clock knows nothing of threads.
    """

    def __init__(
        self,
        store: Upkept,
        is_idle: Callable[[], bool],
        next_step: Callable[[Iterator[int]], Awaitable[int | None]] = next_step_in_thread,
    ) -> None:
        self._store = store
        self._is_idle = is_idle
        self._next_step = next_step

    async def keep_within_limits(self) -> None:
        """Evict until cancelled, whenever the store says that it is due.

        The first check comes after a while, so that the first jobs of a lease have no company.
        """
        while True:
            await _wait_until(lambda: self._store.is_eviction_due(time.time()))
            try:
                steps = self._store.eviction()
                while True:
                    if await self._next_step(steps) is None:
                        break
                    await trio.sleep(EVICTION_PAUSE_S)
            except OSError as error:
                log.warning("store-upkeep-failed task=eviction reason=%r", str(error))
                await trio.sleep(RETRY_S)

    async def keep_sound(self) -> None:
        """Scrub while no job runs, until cancelled or the disk refuses."""
        while True:
            await _wait_until(self._is_idle)
            try:
                steps = self._store.scrub(time.time())
                while (size_bytes := await self._next_step(steps)) is not None:
                    await trio.sleep(size_bytes / SCRUB_BYTES_PER_S)
                    if not self._is_idle():
                        await _wait_until(self._is_idle)
            except OSError as error:
                log.warning("store-upkeep-failed task=scrub reason=%r", str(error))
                return


async def _wait_until(holds: Callable[[], bool]) -> None:
    while True:
        await trio.sleep(LOOK_S)
        if holds():
            return
