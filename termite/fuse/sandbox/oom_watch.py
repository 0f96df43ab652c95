"""Watch whether the kernel kills processes of this machine for want of memory.

The kernel's counter does not say which process was killed. A job that failed at that time may have
failed because of it, so it runs once more elsewhere.
"""

import math
import os

_COUNTER = b"\noom_kill "


class OomWatch:
    """The kernel's counter of killed processes, and the time at which it last changed.

    Times are seconds of one clock of the caller. Call `check` when the first job starts and
    whenever a job ends. The more often it is called, the fewer failed jobs run again without need.
    """

    def __init__(self) -> None:
        # The file stays open, because opening it costs as much as reading it. Kernels before Linux
        # 4.13 have no such counter, and it counts as 0.
        self._fd = os.open("/proc/vmstat", os.O_RDONLY | os.O_CLOEXEC)
        self._count = self._read()
        self._killed_at_s = -math.inf

    def check(self, now_s: float) -> None:
        """Note the time if the counter has changed."""
        count = self._read()
        if count != self._count:
            self._count, self._killed_at_s = count, now_s

    def has_killed_since(self, then_s: float) -> bool:
        """Return whether a process was killed at that time or later, as far as `check` has seen."""
        return self._killed_at_s >= then_s

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read(self) -> int:
        _, _, count = os.pread(self._fd, 64 * 1024, 0).partition(_COUNTER)
        return int(count.split(maxsplit=1)[0]) if count else 0
