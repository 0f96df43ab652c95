"""Wait until descriptors can be read or written.

`select.select` fails for a descriptor above 1023, and a caller may leave us that many open ones.
"""

import select
from collections.abc import Iterable


def wait_until_readable(fds: Iterable[int], limit_s: float | None = None) -> list[int]:
    """Return those of `fds` that can be read, are at their end or have an error.

    The list is empty only if that was true of none within `limit_s` seconds (None: no limit). A pid
    descriptor can be read as soon as its process has ended.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if limit_s is None else limit_s * 1000)]


def wait_until_writable(fd: int) -> None:
    """Return when `fd` can be written, or has an error."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
