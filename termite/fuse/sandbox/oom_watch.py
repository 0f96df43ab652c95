"""Whether the kernel has killed a process of this machine for want of memory.

It does not say whose: a job that failed while that happened may have failed because of it, and is tried elsewhere.
"""

import math
import os

_NAME = b"\noom_kill "


class OomWatch:
    """`look` at least when the first job starts and when a job ends; more often tells better whose fault it was not."""

    def __init__(self) -> None:
        # Kept open: opening it costs as much as reading it. Linux 4.13 and later count; what is older says nothing.
        self._fd = os.open("/proc/vmstat", os.O_RDONLY | os.O_CLOEXEC)
        self._count = self._read()
        self._killed_at_s = -math.inf

    def look(self, now_s: float) -> None:
        count = self._read()
        if count != self._count:
            self._count, self._killed_at_s = count, now_s

    def has_killed_since(self, then_s: float) -> bool:
        return self._killed_at_s >= then_s

    def close(self) -> None:
        os.close(self._fd)

    def _read(self) -> int:
        _, _, count = os.pread(self._fd, 64 * 1024, 0).partition(_NAME)
        return int(count.split(maxsplit=1)[0]) if count else 0
