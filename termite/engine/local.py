"""Slots for commands that run on this machine, one per core.

A local command that starts further commands holds its slot while it waits for them, so these take none: otherwise a few
such commands would wait for each other for ever.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

DEPTH = 256  # of ancestors; deeper nesting than any build has, and an end for a walk that would have none


class LocalSlots:
    """`parent_of` gives the parent of a process, 0 where it has none or is gone."""

    def __init__(self, count: int, parent_of: Callable[[int], int]) -> None:
        self.count = count
        self._free = trio.Semaphore(count)
        self._holders: set[int] = set()
        self._parent_of = parent_of

    @asynccontextmanager
    async def slot(self, pid: int) -> AsyncIterator[None]:
        """Wait for a slot for what the launcher with this pid will run."""
        if self._is_nested(pid):
            yield
            return
        async with self._free:
            self._holders.add(pid)
            try:
                yield
            finally:
                self._holders.discard(pid)

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return len(self._holders)

    def _is_nested(self, pid: int) -> bool:
        for _ in range(DEPTH):
            if not self._holders or pid <= 1:
                return False
            pid = self._parent_of(pid)
            if pid in self._holders:
                return True
        return False


def parent_of(pid: int) -> int:
    """The parent of a process on this machine."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name in parentheses may contain anything, spaces and parentheses too.
    return int(stat.rpartition(b")")[2].split()[1])
