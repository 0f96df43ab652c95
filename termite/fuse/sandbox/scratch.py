"""The directories in which jobs write: made, and removed whatever a job has left in them.

One tmpfs holds them all, because mounting one per job costs as much as the rest of a sandbox. Removing is the work of
a process, `termite-sandbox remove`. It must not be done in this thread: to move a directory takes a lock of the
whole file system. Overlayfs holds it for a job that copies a directory up, while it asks the mirror: neither would end.
"""

import contextlib
import ctypes
import itertools
import logging
import math
import os
from pathlib import Path

# What jobs may fill with their writes. The page cache of the inputs, and the jobs themselves, need the other half.
TMPFS_SHARE = 0.5

FULL_BYTES = 1024**2  # a file system may keep a little back
LOW_BYTES = 128 * 1024**2  # more than jobs write between two looks
FASTEST_BYTES_S = 8 * 1024**3  # nor do all of them write faster, which decides when the next look is due
LOOK_S, LOOK_LONGEST_S = 0.02, 0.5

REMOVED_AT_ONCE = 64  # names, of which none is longer than sixty bytes: together less than PIPE_BUF

MS_NOSUID, MS_NODEV = 2, 4

log = logging.getLogger(__name__)


class Scratch:
    """Below `root` one directory for each running job, with `upper`, `work` and `root` in it for termite-sandbox.

    `binary`: that program.
    """

    def __init__(self, binary: Path, root: Path) -> None:
        self._binary = binary
        self._root = root
        self._made = itertools.count(1)
        self._unwanted: list[Path] = []
        self._low_at_s = -math.inf
        self._remover = self.remover_pid = -1  # where its names go

    def mount_tmpfs(self) -> bool:
        """Hold everything in memory from now on. False, and nothing done, where the kernel cannot do that."""
        size = int(_available_memory_bytes() * TMPFS_SHARE)
        try:
            _mount(b"tmpfs", self._root, MS_NOSUID | MS_NODEV, f"size={size},mode=0700".encode())
        except OSError as error:
            log.warning("scratch-on-disk reason=%r", f"tmpfs cannot be mounted: {error.strerror}")
            return False
        try:
            os.setxattr(self._root, "user.termite", b"")
        except OSError:
            # Linux before 6.6: overlayfs marks what it needs to know with user xattrs, which tmpfs then does not have.
            log.warning(
                "scratch-on-disk reason=%r", "this kernel's tmpfs has no user xattrs (they came with Linux 6.6)"
            )
            _unmount(self._root)
            return False
        return True

    def make(self) -> Path:
        """New empty directories for a job."""
        name = f"{self._root}/job-{next(self._made)}"
        os.mkdir(name, 0o700)
        try:
            for part in ("upper", "work", "root"):
                os.mkdir(f"{name}/{part}", 0o755)
        except OSError:
            self.remove_later(Path(name))
            raise
        return Path(name)

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
        """Remove what was made here, at the next `clear_up`."""
        self._unwanted.append(path)

    def clear_up(self) -> None:
        """Have everything removed that is not wanted any more. It takes a while, but nobody has to wait for it."""
        while self._unwanted:
            if self._remover < 0 and not self._start_remover():
                return
            names = [os.fsencode(path.relative_to(self._root)) + b"\0" for path in self._unwanted[:REMOVED_AT_ONCE]]
            try:
                os.write(self._remover, b"".join(names))  # all or nothing, because it is less than PIPE_BUF
            except BlockingIOError:
                return  # it has enough to do
            except BrokenPipeError:
                log.warning("scratch-remover-died pid=%d", self.remover_pid)
                self.close()
                return
            del self._unwanted[: len(names)]

    def close(self) -> None:
        """Wait until everything is removed that `clear_up` has named."""
        if self._remover >= 0:
            os.close(self._remover)
            self._remover = -1
            with contextlib.suppress(ChildProcessError):  # the mirror, as pid 1, may have reaped it already
                os.waitpid(self.remover_pid, 0)

    def is_full(self) -> bool:
        """Whether a job may just have been refused space. What it wrote may be cut off, even if it does not say so."""
        return self._free_bytes() < FULL_BYTES

    def look(self, now_s: float) -> float:
        """Note whether there is little space. To be called while jobs run, and when one ends; in how many seconds it
        must be called again."""
        free_bytes = self._free_bytes()
        if free_bytes < LOW_BYTES:
            self._low_at_s = now_s
        return min(max(LOOK_S, (free_bytes - LOW_BYTES) / FASTEST_BYTES_S), LOOK_LONGEST_S)

    def was_low_since(self, then_s: float) -> bool:
        """Whether a job that failed may have failed for want of space. There may be space again: a compiler removes
        what it could not write whole."""
        return self._low_at_s >= then_s

    def _free_bytes(self) -> int:
        room = os.statvfs(self._root)
        has_inodes = room.f_files == 0 or room.f_ffree >= 16  # btrfs counts none
        return room.f_bavail * room.f_frsize if has_inodes else 0

    def _start_remover(self) -> bool:
        theirs, ours = os.pipe()
        try:
            self.remover_pid = os.posix_spawn(
                self._binary,
                [b"termite-sandbox", b"remove", os.fsencode(self._root)],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 0)],
                setsid=True,
            )
        except OSError as error:
            log.warning("scratch-not-removed reason=%r", str(error))
            os.close(ours)
            return False
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._remover = ours
        return True


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
