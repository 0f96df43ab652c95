"""Find memory of a job that no process maps, for the moments in which the machine runs short.

Such memory is in files of memfd_create(2), and in tmpfs that a job has mounted in namespaces of its
own. A look costs some 20 us for each descriptor. A file in flight in a socket, and a segment of
System V that nobody has attached, are not seen.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from termite.fuse.sandbox.job_uses import JobUse

BLOCK_BYTES = 512  # of st_blocks (stat(2))
MAX_DESCRIPTORS = 20_000  # looked at for one job, so that a look ends
MEMFD = "/memfd:"  # with which the links of such descriptors begin (proc(5))
ROLLUP_BYTES = 4096


def unmapped_bytes(use: JobUse, scratch_device: int) -> int:
    """Return how many bytes of memory the job holds that none of its processes maps.

    Files on `scratch_device` do not count, because scratch space has a limit of its own.
    """
    found: dict[tuple[int, int], int] = {}  # by device and inode; a whole tmpfs has the inode 0
    mapped, left = 0, MAX_DESCRIPTORS
    for pid in use.resident:
        found.update(_mounted(pid))
        for fd in _names(f"/proc/{pid}/fd")[: max(left, 0)]:
            left -= 1
            found.update(_memfd(f"/proc/{pid}/fd/{fd}"))
        mapped += _mapped_bytes(pid)
    held = sum(size for (device, _), size in found.items() if device != scratch_device)
    return max(held - mapped, 0)


def _memfd(descriptor: str) -> Iterator[tuple[tuple[int, int], int]]:
    with contextlib.suppress(OSError):  # it was closed, or its process has ended
        if os.readlink(descriptor).startswith(MEMFD):
            status = os.stat(descriptor)
            yield (status.st_dev, status.st_ino), status.st_blocks * BLOCK_BYTES


def _mounted(pid: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield each tmpfs in the mount namespace of a process, with the bytes that are in it."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # it has ended
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("tmpfs "):
            device, place = before.split()[2], before.split()[4]
            major, _, minor = device.partition(":")
            with contextlib.suppress(OSError):
                space = os.statvfs(f"/proc/{pid}/root{_unescaped(place)}")
                yield (os.makedev(int(major), int(minor)), 0), (space.f_blocks - space.f_bfree) * space.f_frsize


def _unescaped(path: str) -> str:
    """Return a path of mountinfo with its spaces, tabs and newlines (proc(5))."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _mapped_bytes(pid: int) -> int:
    """Return the shared memory that the process maps, which the job's look has counted."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
        for line in file.read(ROLLUP_BYTES).splitlines():
            if line.startswith(b"Pss_Shmem:"):
                return int(line.split()[1]) * 1024
    return 0


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
