"""Notice that the kernel has killed a process for want of memory, or has refused to make one.

The kernel counts both, for each control group, or else for the whole machine. A count does not name
a job. But the kernel kills the largest process, so a job is not the one that was hit if each of its
processes was smaller than the mirror, which lives.
"""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from termite.engine.errors import Reason, Retryable
from termite.engine.host.own_cgroup import find_group

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SPARE_TASKS = 64  # near the limit of the machine; the tasks of the job that failed have ended already
PEAK_IS_KEPT = (5, 18)  # in older kernels a killed process may lose its memory before its peak is noted


class CountWatch:
    """A watch of counts in files, each the number behind `name`, which only rise.

    Call `check` at least when the first job starts and when a job has failed. The more often it is
    called, the better it tells for which jobs a count has risen.
    """

    def __init__(self, files: Sequence[Path], name: bytes) -> None:
        """Open the files once, because opening costs as much as reading. Leave out missing ones."""
        self._name = b"\n" + name + b" "
        self._fds: list[int] = []
        for file in files:
            with contextlib.suppress(OSError):  # this kernel or controller does not count it
                self._fds.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        self._count = self._read()
        self._risen_at_s = -math.inf

    def check(self, now_s: float) -> None:
        """Note whether a count has risen since the last call."""
        count = self._read()
        if count != self._count:
            self._count, self._risen_at_s = count, now_s

    def has_risen_since(self, then_s: float) -> bool:
        """Return whether a call of `check` after `then_s` has noted a rise."""
        return self._risen_at_s >= then_s

    def close(self) -> None:
        """Close the files."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def _read(self) -> int:
        total = 0
        for fd in self._fds:
            with contextlib.suppress(OSError):  # ENODEV: the group was removed while we are in it
                _, _, count = (b"\n" + os.pread(fd, 64 * 1024, 0)).partition(self._name)
                total += int(count.split(maxsplit=1)[0]) if count else 0
        return total


class TaskWatch:
    """A watch of the number of tasks on this machine. Call `check` as for counts."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        limits = (Path("/proc/sys/kernel") / name for name in ("threads-max", "pid_max"))
        self._limit = min(int(limit.read_text()) for limit in limits)
        self._full_at_s = -math.inf

    def check(self, now_s: float) -> None:
        """Note whether there is hardly room for another task."""
        if int(os.pread(self._fd, 256, 0).split()[3].partition(b"/")[2]) + SPARE_TASKS >= self._limit:
            self._full_at_s = now_s

    def was_full_since(self, then_s: float) -> bool:
        """Return whether a call of `check` after `then_s` has found no room."""
        return self._full_at_s >= then_s

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Shortages:
    """The shortages of memory and of processes on this machine, as far as they may hit our jobs."""

    def __init__(self) -> None:
        self._killed = CountWatch(_oom_files(), b"oom_kill")
        self._refused = CountWatch(_pids_files(), b"max")
        self._tasks = TaskWatch()
        self._is_peak_kept = _kernel() >= PEAK_IS_KEPT
        self._least_bytes = _own_bytes()  # what this process takes at least, without another system call

    def check(self, now_s: float) -> None:
        """Read the counts: at the start of the first job, when a job has failed, and meanwhile."""
        self._killed.check(now_s)
        self._refused.check(now_s)
        self._tasks.check(now_s)

    def check_success(self, now_s: float, peak_bytes: int) -> None:
        """Read the counts that a job may have raised that has ended with success.

        If all of its processes were small, none of them was killed.
        """
        self._refused.check(now_s)
        if not self._is_peak_kept or peak_bytes >= self._least_bytes:
            self._killed.check(now_s)

    def raise_if_hit(self, began_s: float, peak_bytes: int, *, is_full: bool) -> None:
        """Raise Retryable if a job may have met a want of memory or processes.

        The job began at `began_s`. `peak_bytes` is the peak memory of its largest process.
        `is_full`: its pid 1 could make no more processes when its command had ended. The exit code
        tells nothing: a command may do something else instead, and end with success.
        """
        if is_full or self._refused.has_risen_since(began_s) or self._tasks.was_full_since(began_s):
            raise Retryable(Reason.PROCESSES_FULL)
        if self._killed.has_risen_since(began_s) and not (self._is_peak_kept and peak_bytes < _own_bytes()):
            raise Retryable(Reason.MEMORY_FULL, "the kernel killed a process")

    def close(self) -> None:
        """Close the files with the counts."""
        for watch in (self._killed, self._refused, self._tasks):
            watch.close()


def _oom_files() -> list[Path]:
    """Return the file that counts killed processes: of our group, or else of the machine.

    A group counts a kill of its process by whatever limit: its own, that of a group above, or the
    machine's. Linux 4.13 and later count; on older ones nothing is noticed.
    """
    found = find_group("memory")
    if found is not None:
        # A lease's own group of version 2 has no limit, and counts nothing: the one above does.
        for group in (found[0], *(above for above in found[0].parents if above.is_relative_to(found[1]))):
            for name in ("memory.events", "memory.oom_control"):  # of version 2, of version 1
                if (group / name).exists():
                    return [group / name]
    return [Path("/proc/vmstat")]


def _pids_files() -> list[Path]:
    """Return the files that count refused processes: of our group, and of the groups above it.

    Version 1 counts in the group that wanted a process, version 2 in the one that has the limit.
    """
    found = find_group("pids")
    if found is None:
        return []
    group, top = found
    groups = [group, *(above for above in group.parents if above.is_relative_to(top))]
    return [above / "pids.events" for above in groups]


def _own_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)
