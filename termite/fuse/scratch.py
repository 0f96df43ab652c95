"""The directories in which jobs write: made, and removed whatever a job has left in them.

One tmpfs holds them all, because mounting one per job costs as much as the rest of a sandbox. Removal never goes down a
path: a directory is moved to the top before its turn comes, so trees deeper than any path can be are nothing special.
"""

import ctypes
import itertools
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import trio

# What jobs may fill with their writes. The page cache of the inputs, and the jobs themselves, need the other half.
TMPFS_SHARE = 0.5

MOMENT_S = 0.05

MS_NOSUID, MS_NODEV = 2, 4

log = logging.getLogger(__name__)


class Scratch:
    """Below `root` one directory for each running job, with `upper`, `work` and `root` in it for termite-sandbox."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = itertools.count(1)
        self._discarded = itertools.count()
        self._of_jobs: dict[int, Path] = {}
        self._unwanted: list[Path] = []

    def mount_tmpfs(self) -> bool:
        """Hold everything in memory from now on. False, and nothing done, where the kernel cannot do that."""
        size = int(_available_memory_bytes() * TMPFS_SHARE)
        try:
            _mount(b"tmpfs", self._root, MS_NOSUID | MS_NODEV, f"size={size},mode=0700".encode())
        except OSError as error:
            log.warning("scratch.on_disk reason=%r", f"tmpfs cannot be mounted: {error.strerror}")
            return False
        try:
            os.setxattr(self._root, "user.termite", b"")
        except OSError:
            # Linux before 6.6: overlayfs marks what it needs to know with user xattrs, which tmpfs then does not have.
            log.warning(
                "scratch.on_disk reason=%r", "this kernel's tmpfs has no user xattrs (they came with Linux 6.6)"
            )
            _unmount(self._root)
            return False
        return True

    def make(self, job: int) -> Path:
        """New empty directories for a job. One that is tried again here gets others: the first may still be there."""
        path = self._of_jobs[job] = self._root / f"{job}-{next(self._made)}"
        os.mkdir(path, 0o700)
        for name in ("upper", "work", "root"):
            os.mkdir(path / name, 0o755)
        return path

    def discard(self, job: int) -> None:
        """Remove all that a job has written, in the background.

        Never here: to move a directory takes a lock of the whole file system. Overlayfs holds it for another job that
        copies a directory up, while it asks the mirror, which is this thread: neither would ever go on.
        """
        path = self._of_jobs.pop(job, None)
        if path is not None:
            self.remove_later(path)

    def directory(self, name: str) -> Path:
        """A new directory for something else than a job."""
        path = self._root / name
        os.mkdir(path, 0o700)
        return path

    def size_bytes(self) -> int:
        """Of the file system."""
        room = os.statvfs(self._root)
        return room.f_blocks * room.f_frsize

    def remove_later(self, path: Path) -> None:
        """Remove what was made, in the background: one thread for all that comes within a moment."""
        self._unwanted.append(path)
        if len(self._unwanted) == 1:
            trio.lowlevel.start_thread_soon(self._remove_unwanted, lambda _: None)

    def _remove_unwanted(self) -> None:
        time.sleep(MOMENT_S)
        unwanted, self._unwanted = self._unwanted, []
        for path in unwanted:
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Remove what was made, and wait for it: not in the mirror's own thread."""
        _take(self._remove(os.fsencode(path)))

    def is_full(self) -> bool:
        """Whether a job that failed may have failed for want of space."""
        room = os.statvfs(self._root)
        has_inodes = room.f_files == 0 or room.f_ffree >= 16  # btrfs counts none
        return room.f_bavail * room.f_frsize < 1024 * 1024 or not has_inodes

    def _remove(self, directory: bytes) -> Iterator[None]:
        """One step per entry removed or moved."""
        waiting = [directory]
        while waiting:
            directory = waiting.pop()
            for entry in _list_whatever_its_mode(directory):
                if entry.is_dir(follow_symlinks=False):
                    top = os.fsencode(self._root / f"discarded-{next(self._discarded)}")
                    _move_whatever_its_mode(entry.path, top)
                    waiting.append(top)
                else:
                    os.unlink(entry.path)
                yield
            os.rmdir(directory)
            yield


def _take(steps: Iterator[None]) -> None:
    """What cannot be removed costs space, never a job."""
    try:
        for _ in steps:
            pass
    except FileNotFoundError:
        pass  # no sandbox was made for this job
    except OSError as error:
        log.warning("scratch.not_removed path=%r reason=%r", error.filename, error.strerror)


def _list_whatever_its_mode(directory: bytes) -> list[os.DirEntry[bytes]]:
    # Reading the list whole, because entries are removed while it is walked; and removing them needs all three bits.
    if stat.S_IMODE(os.lstat(directory).st_mode) & 0o700 != 0o700:
        os.chmod(directory, 0o700)
    with os.scandir(directory) as entries:
        return list(entries)


def _move_whatever_its_mode(path: bytes, to: bytes) -> None:
    try:
        os.rename(path, to)
    except PermissionError:  # moving a directory writes its "..", and so needs its write bit
        os.chmod(path, 0o700)
        os.rename(path, to)


def _available_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("no MemAvailable in /proc/meminfo")


def _mount(fstype: bytes, target: Path, flags: int, options: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(fstype, os.fsencode(target), fstype, ctypes.c_ulong(flags), options):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), str(target))


def _unmount(target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(target), 0):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), str(target))
