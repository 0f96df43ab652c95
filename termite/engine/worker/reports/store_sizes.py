"""Measure a worker's stores of contents, for people who look at the worker.

A store may have a million files, so it is measured in a thread, and only if somebody looks. The
users that jobs run as own the stores of a root worker, and may have put links there.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import trio

from termite.engine.beneath import open_beneath
from termite.engine.model import StoreLimits
from termite.engine.private_directories import DIRECTORY
from termite.engine.wire.protocol.fleet_messages import StoreReport
from termite.engine.worker.job_shares import store_limits
from termite.engine.worker.mirror_homes import USER_PREFIX

FIRST_WAIT_S = 1.0  # a reader waits so long for the first sizes
PAUSE_S = 5.0  # between two measurements
PAUSE_SHARE = 50  # and so many times as long as the last one took, so that it takes 2 % of a core
MOST_FILES = 5_000_000  # of one store; a job that has taken over its mirror could make more
SECTOR_BYTES = 512  # the unit of st_blocks
STORE = "cas"


class StoreSizes:
    """The sizes of the stores below `cache`. `users` are those of a root worker, else None."""

    def __init__(self, cache: Path, users: range | None, limits: StoreLimits) -> None:
        self._place = (cache, users, limits)
        self._wanted = trio.Event()
        self._measured = trio.Event()
        self._known: tuple[StoreReport, ...] | None = None

    async def read(self) -> tuple[StoreReport, ...] | None:
        """Return the last known sizes, or None. Wait up to FIRST_WAIT_S for the first ones."""
        self._wanted.set()
        with trio.move_on_after(FIRST_WAIT_S):
            await self._measured.wait()
        return self._known

    async def keep_measuring(self) -> None:
        """Measure whenever somebody has asked, until cancelled."""
        while True:
            await self._wanted.wait()
            started_s = trio.current_time()
            self._known = await trio.to_thread.run_sync(measure_stores, *self._place, abandon_on_cancel=True)
            self._measured.set()
            await trio.sleep(max(PAUSE_S, PAUSE_SHARE * (trio.current_time() - started_s)))
            self._wanted = trio.Event()


def measure_stores(cache: Path, users: range | None, limits: StoreLimits) -> tuple[StoreReport, ...]:
    """Return all stores below `cache`. A store that cannot be read is left out. This blocks."""
    found = []
    for name, own_limits in _names(cache, users, limits):
        with contextlib.suppress(OSError):
            store = _open_store(cache, name)
            try:
                size_bytes, files = _size_of(store)
            finally:
                os.close(store)
            found.append(StoreReport(name or STORE, size_bytes, files, own_limits.max_bytes, own_limits.max_files))
    return tuple(found)


def _names(cache: Path, users: range | None, limits: StoreLimits) -> Iterator[tuple[str, StoreLimits]]:
    """Yield each user that has a cache, with the limits of his store; "" if there are no users."""
    if users is None:
        yield "", limits
        return
    for number, uid in enumerate(users):
        if (cache / f"{USER_PREFIX}{uid}").is_dir():
            yield f"{USER_PREFIX}{uid}", store_limits(limits, number)


def _open_store(cache: Path, user: str) -> int:
    """Open the store of a user without a link on the way, or the worker's own, which may be one."""
    if not user:
        return os.open(cache / STORE, DIRECTORY)
    top = os.open(cache, DIRECTORY)
    try:
        return open_beneath(top, os.fsencode(f"{user}/{STORE}"), DIRECTORY)
    finally:
        os.close(top)


def _size_of(store: int) -> tuple[int, int]:
    """Return the bytes on the disk and the number of files of an open store."""
    size_bytes = files = 0
    for taken_bytes in itertools.islice(_sizes_in(store), MOST_FILES):
        size_bytes += taken_bytes
        files += 1
    return size_bytes, files


def _sizes_in(store: int) -> Iterator[int]:
    for shard in os.listdir(store):
        if len(shard) != 2:
            continue
        with contextlib.suppress(OSError):  # it was removed meanwhile
            directory = open_beneath(store, os.fsencode(shard), DIRECTORY)
            try:
                with os.scandir(directory) as entries:
                    yield from (entry.stat(follow_symlinks=False).st_blocks * SECTOR_BYTES for entry in entries)
            finally:
                os.close(directory)
