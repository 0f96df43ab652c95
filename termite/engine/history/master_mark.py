"""Mark a master in the records of its builds, and ask whether that master has ended.

A lock says so at once (`writing_lock`), but some file systems know no locks.
"""

import os
from functools import lru_cache
from pathlib import Path

from termite.engine.history.logic.job_record import MasterMark

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START = 0, 19  # fields of /proc/PID/stat behind the name of the program (proc(5))
_ENDED = "ZX"


def own_mark() -> MasterMark | None:
    """Return the mark of this process, or None if the system does not say all of it."""
    try:
        host, boot, pids = _machine()
        _, start = _stat(os.getpid())
    except (OSError, ValueError, IndexError):
        return None
    return MasterMark(host, boot, pids, os.getpid(), start)


def has_ended(mark: MasterMark | None) -> bool:
    """Return whether a master is known to have ended.

    The result is False if that cannot be known from here: the master was on another machine, or in
    another container.
    """
    try:
        host, boot, pids = _machine()
    except (OSError, ValueError):
        return False
    if mark is None or mark.host != host:
        return False
    if mark.boot != boot:  # the machine was started anew
        return True
    if mark.pids != pids:
        return False
    try:
        state, start = _stat(mark.pid)
    except OSError:
        return True
    except (ValueError, IndexError):
        return False
    return state in _ENDED or start != mark.start


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str, int]:
    """Return the host, its boot id, and the number of the namespace of process ids."""
    return os.uname().nodename, _BOOT_ID.read_text().strip(), os.stat("/proc/self/ns/pid").st_ino


def _stat(pid: int) -> tuple[str, int]:
    """Return the state of a process, and when it was started, in ticks since the boot."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[_STATE], int(fields[_START])
