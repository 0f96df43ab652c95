"""Lock the records of a tree, which one master writes, and ask whether one does."""

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

LOCK = "lock"  # the name of the file that the writing master has locked
TRIES = 20  # a reader that asks has the lock for some microseconds
PAUSE_S = 0.01  # between two tries


def lock_records(directory: Path) -> int | None:
    """Return the descriptor of the locked file, or None if this file system knows no locks.

    Raise BlockingIOError if another process has locked it. Block for at most a fifth of a second.
    """
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    for left in reversed(range(TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                os.close(fd)
                raise BlockingIOError(errno.EAGAIN, "another master writes the records of this tree") from None
            time.sleep(PAUSE_S)
        except OSError:
            os.close(fd)
            return None
        else:
            break
    return fd


def is_written(directory: Path) -> bool | None:
    """Return whether a master writes records in `directory` now.

    The result is None if that cannot be known, as on a file system without locks.
    """
    try:
        fd = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
    return False
