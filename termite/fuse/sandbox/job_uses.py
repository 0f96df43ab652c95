"""Find out how many processes and how much memory each job of a lease has, from /proc.

Each process costs some 10 us. The memory is at first the sum of what the processes have mapped,
which counts shared pages several times. The exact number costs milliseconds, so it is only asked
for if the sum is suspicious.

Memory that no process maps is looked for when the machine runs short. It is in files of
memfd_create(2), and in tmpfs that a job has mounted in namespaces of its own. The look costs some
20 us for each descriptor. A file in flight in a socket, and a segment of System V that nobody has
attached, are not seen.
"""

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from termite.engine.paths import parse_mount_lines

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STAT_BYTES = 1024  # of /proc/PID/stat: 52 numbers and a name of 64 bytes at most

BLOCK_BYTES = 512  # of st_blocks (stat(2))
UNMAPPED_LOOK_S = 0.2  # at most for one job, which may have many descriptors and mounts
MOUNTS_BYTES = 256 * 1024  # of a list of mounts; that of a usual container has 10 KiB
MEMFD = "/memfd:"  # with which the links of such descriptors begin (proc(5))
ROLLUP_BYTES = 4096  # of /proc/PID/smaps_rollup

# Fields of /proc/PID/stat behind the name of the program (proc(5))
PARENT, THREADS, RESIDENT_PAGES = 1, 17, 21


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """The parent of a process, the number of its threads, and the memory that it has mapped."""

    parent: int
    threads: int
    memory_bytes: int


@dataclass(slots=True)
class JobUse:
    """The processes with their threads, and the memory, of a job. Its pid 1 does not count."""

    processes: int = 0
    memory_bytes: int = 0
    resident: dict[int, int] = field(default_factory=dict)  # bytes of each process

    def settle(self, limit_bytes: float, unmapped_bytes: int) -> None:
        """Make the memory exact if it seems to be more than a limit, and add what is not mapped."""
        if self.memory_bytes + unmapped_bytes > limit_bytes:
            self.memory_bytes = exact_memory_bytes(self)
        self.memory_bytes += unmapped_bytes


def read_uses(inits: Collection[int]) -> dict[int, JobUse]:
    """Return what jobs have now, by the pid of their pid 1, as it is seen from here."""
    return sum_uses(_read_processes(), inits)


def sum_uses(processes: dict[int, ProcessUse], inits: Collection[int]) -> dict[int, JobUse]:
    """Return what the descendants of each of `inits` have. An orphan is a child of its pid 1."""
    uses = {init: JobUse() for init in inits}
    owner: dict[int, int] = {init: init for init in inits}
    for pid, process in processes.items():
        path: list[int] = []
        above = pid
        while above not in owner and above in processes and len(path) <= len(processes):
            path.append(above)
            above = processes[above].parent
        init = owner.get(above, 0)
        owner.update(dict.fromkeys(path, init))
        if init and pid != init:
            use = uses[init]
            use.processes += process.threads
            use.memory_bytes += process.memory_bytes
            use.resident[pid] = process.memory_bytes
    return uses


def parse_stat(stat: bytes) -> ProcessUse:
    """Return what the text of /proc/PID/stat says. Raises ValueError or IndexError.

    The name of the program may contain anything, also parentheses and spaces.
    """
    fields = stat[stat.rindex(b")") + 1 :].split()
    return ProcessUse(int(fields[PARENT]), int(fields[THREADS]), int(fields[RESIDENT_PAGES]) * PAGE_BYTES)


def exact_memory_bytes(use: JobUse) -> int:
    """Return the memory of a job, to which a page that N processes share contributes 1/N.

    A process that does not let us read its share counts with all that it has mapped.
    """
    return sum(_proportional_bytes(pid, resident_bytes) for pid, resident_bytes in use.resident.items())


def _proportional_bytes(pid: int, resident_bytes: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            rollup = file.read(4096)
    except PermissionError:
        return resident_bytes
    except OSError:  # it has ended
        return 0
    for line in rollup.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read_processes() -> dict[int, ProcessUse]:
    processes = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # it has ended, or descriptors are short: the next look sees it
                continue
            try:
                processes[int(name)] = parse_stat(os.read(fd, STAT_BYTES))
            except (OSError, ValueError, IndexError):
                pass  # it ended while it was read
            finally:
                os.close(fd)
    return processes


def unmapped_bytes(use: JobUse, scratch_device: int) -> int:
    """Return how many bytes of memory the job holds that none of its processes maps.

    Files on `scratch_device` do not count, because scratch space has a limit of its own. Call this
    in a thread of its own: names of the job may lead to the mirror, which has to answer meanwhile.
    """
    found: dict[tuple[int, int], int] = {}  # by device and inode; a whole tmpfs has the inode 0
    seen: set[int] = set()
    mapped, until_s = 0, time.monotonic() + UNMAPPED_LOOK_S
    for pid in use.resident:
        if (space := _inode(f"/proc/{pid}/ns/mnt")) not in seen:
            seen.add(space)
            found.update(_mounted(pid, until_s))
        for fd in _names(f"/proc/{pid}/fd"):
            found.update(_memfd(f"/proc/{pid}/fd/{fd}"))
            if time.monotonic() > until_s:
                break
        mapped += _mapped_bytes(pid)
    held = sum(size for (device, _), size in found.items() if device != scratch_device)
    return max(held - mapped, 0)


def _memfd(descriptor: str) -> Iterator[tuple[tuple[int, int], int]]:
    with contextlib.suppress(OSError):  # it was closed, or its process has ended
        if os.readlink(descriptor).startswith(MEMFD):
            status = os.stat(descriptor)
            yield (status.st_dev, status.st_ino), status.st_blocks * BLOCK_BYTES


def _mounted(pid: int, until_s: float) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield each tmpfs in the mount namespace of a process, with the bytes that are in it."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            text = file.read(MOUNTS_BYTES)
    except OSError:  # it has ended
        return
    for mount in parse_mount_lines(text):
        if mount.kind == b"tmpfs" and time.monotonic() < until_s:
            major, _, minor = mount.device.partition(b":")
            with contextlib.suppress(OSError):  # it was unmounted, or the process has ended
                space = os.statvfs(b"/proc/%d/root%b" % (pid, mount.point))
                yield (os.makedev(int(major), int(minor)), 0), (space.f_blocks - space.f_bfree) * space.f_frsize


def _mapped_bytes(pid: int) -> int:
    """Return the shared memory that the process maps, which the job's look has counted."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file,
    ):  # the process has ended
        for line in file.read(ROLLUP_BYTES).splitlines():
            if line.startswith(b"Pss_Shmem:"):
                return int(line.split()[1]) * 1024
    return 0


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
