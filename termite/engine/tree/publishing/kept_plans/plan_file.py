"""Write and read the plan files in `.termite-staging`: one for each master.

A master holds the lock of its file until it ends, however it ends. Nothing is synced to the disk:
a record must outlive the process, not the kernel.
"""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from termite.engine import look_calls
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.redo_plan import (
    ALIGNMENT,
    DONE,
    OUTCOME_AT,
    JobEnd,
    Outcome,
    Record,
    RedoPlan,
    Step,
    newest_record,
    pack_record,
)

PREFIX = b"plan-"
OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # an archive may have brought a FIFO
MAX_PLAN_BYTES = 1 << 30  # two results of 200,000 files with paths of 1 KiB

IsTold = Callable[[], bool]


def boot_id() -> bytes:
    """Return the boot id of the kernel, 36 characters."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()


class PlanFile:
    """The plan file of this master. Methods block as far as the disk does, and raise OSError."""

    def __init__(self, staging: int) -> None:
        """Make and lock the file in the open directory `staging`."""
        self._staging = staging
        self._boot_id = boot_id()
        self._pid = os.getpid()
        self._inode = 0
        self._number = 0
        self._at = self._done_at = self._end = 0
        self._untold: list[tuple[JobEnd, IsTold]] = []
        while True:
            self.label = secrets.token_hex(6).encode()
            self.name = PREFIX + self.label
            self._fd = disk_calls.open(self.name, OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=staging)
            lock(self._fd, wait=True)
            status = look_calls.fstat(self._fd)
            if status.st_nlink:
                self._inode = status.st_ino
                break
            os.close(self._fd)  # it was free for a moment, and another process has removed it

    def begin(self, job: JobEnd, is_told: IsTold, steps: tuple[Step, ...], areas: tuple[bytes, ...] = ()) -> None:
        """Write a record. From now on the job has happened.

        `is_told` returns whether its launcher needs no record any more. `areas` are the directories
        with staged entries besides `.termite-staging`.
        """
        self._untold = [(end, told) for end, told in self._untold if not told()]
        plan = RedoPlan(self._pid, job, steps, tuple(end for end, _ in self._untold), areas, self._inode)
        record = pack_record(self._number + 1, self._boot_id, plan)
        # The record before this one stays whole until this one is.
        at = 0 if len(record) <= self._at else self._end
        if at + len(record) > MAX_PLAN_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        # Nothing may fail after the record is whole: the caller takes an error for "not written".
        end = -(-(at + len(record)) // ALIGNMENT) * ALIGNMENT
        later = self._number + 1, at, at + len(record) - DONE.size, end, [*self._untold, (job, is_told)]
        if disk_calls.pwrite(self._fd, record, at) != len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._number, self._at, self._done_at, self._end, self._untold = later

    def end(self, outcome: Outcome, job: JobEnd, done: int = 0) -> None:
        """Write the outcome of the last record. `job` is how its launcher ends.

        `done` is the number of steps that were carried out, if the plan is given up.
        """
        self._untold[-1] = job, self._untold[-1][1]
        if done:
            disk_calls.pwrite(self._fd, DONE.pack(done), self._done_at)
        disk_calls.pwrite(self._fd, outcome.value, self._at + OUTCOME_AT)

    def close(self) -> bool:
        """Remove the file, unless a launcher may still ask for it. Return whether it is removed."""
        is_needed = any(not told() and is_alive(end.pid) for end, told in self._untold)
        if not is_needed:
            with contextlib.suppress(FileNotFoundError):
                disk_calls.unlink(self.name, dir_fd=self._staging)
        os.close(self._fd)
        return not is_needed


class FoundPlan:
    """The plan file of a master that has ended, which is locked by us."""

    def __init__(self, name: bytes, fd: int) -> None:
        """Read the file. Raise RemoteProtocolError as `newest_record` does."""
        self.name = name
        self.fd = fd
        self.record: Record | None = newest_record(read_whole(fd))

    @property
    def label(self) -> bytes:
        """Return the beginning of the names of everything that its master has staged."""
        return self.name.removeprefix(PREFIX)

    @property
    def is_of_this_boot(self) -> bool:
        """Return whether the kernel has run since the record was written."""
        return self.record is not None and self.record.boot_id == boot_id()

    @property
    def is_where_it_was_written(self) -> bool:
        """Return whether the record was written to this very file.

        A copy of a plan, or one of an archive, is in a file with another inode.
        """
        return self.record is not None and self.record.plan.inode == look_calls.fstat(self.fd).st_ino

    @property
    def written_ns(self) -> int:
        """Return the file system's time at which the record was written, or its outcome."""
        return look_calls.fstat(self.fd).st_mtime_ns

    def end(self, outcome: Outcome, done: int = 0) -> None:
        """Write the outcome, and how many steps were carried out if the plan is given up."""
        assert self.record is not None, "there is a record"
        if done:
            disk_calls.pwrite(self.fd, DONE.pack(done), self.record.done_at)
        disk_calls.pwrite(self.fd, outcome.value, self.record.at + OUTCOME_AT)


def lock(fd: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed. Return False if another process has locked it.

    A file system without locks counts as locked by us.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def plan_names(staging: int) -> list[bytes]:
    """Return the names of all plan files in the open directory `staging`."""
    return sorted(name for name in map(os.fsencode, look_calls.listdir(staging)) if name.startswith(PREFIX))


def read_whole(fd: int) -> bytes:
    """Return the whole content of an open file."""
    return look_calls.pread(fd, look_calls.fstat(fd).st_size, 0)


def is_alive(pid: int) -> bool:
    """Return whether a process has this pid and has not ended. Return False for 0: unknown.

    In a container whose first process reaps no children, a killed one remains as a zombie.
    """
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and belongs to another user
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True  # /proc hides the processes of other users
    return not status.rpartition(b")")[2].startswith(b" Z")  # the name before it may have any bytes
