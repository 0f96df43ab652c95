"""Slots for commands that run on this machine, one per core.

A local command that starts further commands holds its slot while it waits for them, so these wait for none: otherwise a
few such commands would wait for each other for ever. The holder is the command itself, which has its launcher's pid and
may become a launcher again.
"""

from collections import Counter
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
        self._holders: Counter[int] = Counter()
        self._parent_of = parent_of

    @asynccontextmanager
    async def slot(self, pid: int) -> AsyncIterator[None]:
        """Wait for a slot for what the launcher with this pid will run."""
        if self._is_nested(pid):
            yield
            return
        await self._free.acquire()
        self._holders[pid] += 1
        try:
            yield
        finally:
            self.give_back(pid)

    def take_spare(self, pid: int, reserved: int) -> bool:
        """Take a slot that nobody waits for, if more than `reserved` are free. Nested or not: who gets none need not
        wait."""
        if self._free.value <= reserved:
            return False
        self._free.acquire_nowait()
        self._holders[pid] += 1
        return True

    def give_back(self, pid: int) -> None:
        """What `take_spare` took."""
        self._holders[pid] -= 1
        if not self._holders[pid]:
            del self._holders[pid]
        self._free.release()

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return self.count - self._free.value

    def _is_nested(self, pid: int) -> bool:
        for _ in range(DEPTH):
            if pid in self._holders:
                return True
            if not self._holders or pid <= 1:
                return False
            pid = self._parent_of(pid)
        return False


def parent_of(pid: int) -> int:
    """The parent of a process on this machine."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name in parentheses may contain anything, spaces and parentheses too.
    return int(stat.rpartition(b")")[2].split()[1])
