"""Count the descriptors of this process, so that newcomers are refused before they run out.

A daemon that runs out of descriptors fails jobs in the middle. Therefore some stay in reserve for
the jobs that run, and whoever comes when only the reserve is left is refused with a clear reason.
"""

import os
import resource
from pathlib import Path

_OWN = Path("/proc/self/fd")
MOST_IN_RESERVE = 64
SHARE_IN_RESERVE = 4  # of a low limit: one in so many


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit.

    Each launcher needs descriptors, a build may start thousands, and the usual limit is 1024.
    Commands do not inherit the raised limit: jobs on workers get the limit of their launcher.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int:
    """Return the number of files that this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_files() -> int:
    """Return the number of files that this process has open."""
    # Linux 6.2 and later count them; older kernels show a size of 0.
    return os.stat(_OWN).st_size or len(os.listdir(_OWN))


class Descriptors:
    """The descriptors of this process, counted only as often as necessary."""

    def __init__(self) -> None:
        self._left = 0  # so many newcomers fit before the descriptors must be counted again

    def has_room(self, needed: int = 1) -> bool:
        """Return whether a newcomer may use `needed` descriptors; if so, they count as used."""
        if self._left < needed:
            self._left = free_beside_reserve()
        if self._left < needed:
            return False
        self._left -= needed
        return True


def free_beside_reserve() -> int:
    """Return how many descriptors are free beside the reserve, at least 0."""
    limit = file_limit()
    return max(limit - _reserve(limit) - open_files(), 0)


def has_half_the_reserve() -> bool:
    """Return whether the jobs that run still have half of the reserve."""
    limit = file_limit()
    return limit - open_files() > _reserve(limit) // 2


def _reserve(limit: int) -> int:
    return min(MOST_IN_RESERVE, limit // SHARE_IN_RESERVE)


def shortage_text() -> str:
    """Return the numbers for a message about a shortage."""
    return f"{open_files()} of {file_limit()} files are open (ulimit -n)"
