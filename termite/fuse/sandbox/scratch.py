"""Make the directories in which jobs write, and remove them whatever a job has left in them.

One tmpfs holds them all, because mounting one for each job costs as much as the rest of a sandbox.
Another process, `termite-sandbox remove`, removes them. This thread must not do it: moving a
directory takes a lock of the whole file system. Overlayfs holds that lock while a job copies a
directory up and asks the mirror, so neither would ever end.
"""

import contextlib
import ctypes
import itertools
import logging
import math
import os
from pathlib import Path

from termite.engine.host.meminfo import read_memory
from termite.fuse import mirror_calls

# The share of the available memory that jobs may fill with their writes, until the worker has said
# how much the jobs of this lease may. The page cache and the jobs themselves need the other half.
TMPFS_SHARE = 0.5
BYTES_PER_INODE = 8192  # an empty file costs 1 KB of the kernel's memory, which the size does not count
LEAST_BYTES = 16 * 1024**2  # for the mirror's own directories

FULL_BYTES = 1024**2  # free space below this counts as none, because a file system may keep a little back
LOW_BYTES = 128 * 1024**2  # free space below this counts as low; jobs write less between two checks
FEW_INODES = 16  # free inodes below this count as none
MAX_WRITE_BYTES_S = 8 * 1024**3  # all jobs together write no faster, which decides when the next check is due
MIN_CHECK_S, MAX_CHECK_S = 0.02, 0.5  # between two checks

REMOVED_NAMES = 64  # in one message; no name is longer than 60 bytes, so they are less than PIPE_BUF

MS_NOSUID, MS_NODEV, MS_REMOUNT = 2, 4, 32  # of mount(2)

log = logging.getLogger(__name__)


class Scratch:
    """The scratch space of a lease in the directory `root`; each running job has a directory in it.

    A job's directory has `upper`, `work` and `root` in it, as termite-sandbox wants them.
    `binary` is that program. `remover_pid` is the pid of the remover process, or -1.
    """

    def __init__(self, binary: Path, root: Path) -> None:
        self._binary = binary
        self._root = root
        self._made = itertools.count(1)
        self._unwanted: list[Path] = []
        self._low_at_s = self._full_at_s = -math.inf
        self.room_bytes = 0  # that was free at the last look
        self._inode_room_bytes: float = math.inf  # what the free inodes stand for
        self._is_tmpfs = False
        self._size_bytes = self._wanted_bytes = 0  # of the tmpfs; 0: as it was mounted
        self._remover = self.remover_pid = -1  # `_remover` is the pipe that takes the names

    def mount_tmpfs(self) -> bool:
        """Hold everything in memory from now on.

        Return False, and leave the directory on disk, if the kernel cannot do that. Raises OSError
        if the memory's size is not known.
        """
        size = int(read_memory("MemAvailable") * TMPFS_SHARE)
        if not size:  # the kernel would take that for no limit
            raise OSError("no MemAvailable in /proc/meminfo")
        options = f"size={size},nr_inodes={size // BYTES_PER_INODE},mode=0700"
        try:
            _mount(b"tmpfs", self._root, MS_NOSUID | MS_NODEV, options.encode())
        except OSError as error:
            log.warning("scratch-on-disk reason=%r", f"tmpfs cannot be mounted: {error.strerror}")
            return False
        try:
            os.setxattr(self._root, "user.termite", b"")
        except OSError:
            # Overlayfs keeps its marks in user xattrs, which tmpfs does not have before Linux 6.6.
            log.warning(
                "scratch-on-disk reason=%r", "this kernel's tmpfs has no user xattrs (they came with Linux 6.6)"
            )
            _unmount(self._root)
            return False
        self._is_tmpfs = True
        return True

    def set_size(self, size_bytes: int) -> None:
        """Let all jobs of this lease together write so much to memory.

        If more is in use, the size is at first just that, and shrinks with what is in use.
        """
        if self._is_tmpfs:
            self._wanted_bytes = max(size_bytes, LEAST_BYTES)
            self._resize()

    def make_job_directory(self) -> Path:
        """Make the empty directories for a job. Return the one that holds them. Raises OSError."""
        name = f"{self._root}/job-{next(self._made)}"
        mirror_calls.mkdir(name, 0o700)
        try:
            for part in ("upper", "work", "root"):
                mirror_calls.mkdir(f"{name}/{part}", 0o755)
        except OSError:
            self.remove_later(Path(name))
            raise
        return Path(name)

    def make_directory(self, name: str) -> Path:
        """Make a directory that belongs to no job. Raises OSError."""
        path = self._root / name
        mirror_calls.mkdir(path, 0o700)
        return path

    def size_bytes(self) -> int:
        """Return the size of the file system that holds the scratch space."""
        room = mirror_calls.statvfs(self._root)
        return room.f_blocks * room.f_frsize

    def remove_later(self, path: Path) -> None:
        """Queue a directory that was made here for the next `clear_up`. Does not block."""
        self._unwanted.append(path)

    def clear_up(self) -> None:
        """Hand the queued directories to the remover. Does not wait until they are gone.

        If the remover is busy or cannot start, they stay queued for the next call.
        """
        while self._unwanted:
            if self._remover < 0 and not self._start_remover():
                return
            names = [os.fsencode(path.relative_to(self._root)) + b"\0" for path in self._unwanted[:REMOVED_NAMES]]
            try:
                mirror_calls.write(self._remover, b"".join(names))  # all or nothing, because it is less than PIPE_BUF
            except BlockingIOError:
                return  # its pipe is full
            except BrokenPipeError:
                log.warning("scratch-remover-died pid=%d", self.remover_pid)
                self.close()
                return
            del self._unwanted[: len(names)]

    def close(self) -> None:
        """End the remover. This blocks until it has removed all that `clear_up` has named."""
        if self._remover >= 0:
            os.close(self._remover)
            self._remover = -1
            with contextlib.suppress(ChildProcessError):  # the mirror, as pid 1, may have reaped it already
                os.waitpid(self.remover_pid, 0)

    def is_full(self) -> bool:
        """Return whether a job may be refused space now.

        Its files may be cut off then, even if it ends with success.
        """
        return self._free_bytes() < FULL_BYTES

    def check_space(self, now_s: float) -> float:
        """Note whether little or no space is free. Return the seconds until the next call is due.

        Call this while jobs run, and when one ends.
        """
        if self._size_bytes != self._wanted_bytes:
            self._resize()
        free_bytes = self.room_bytes = self._free_bytes()
        if free_bytes < LOW_BYTES:
            self._low_at_s = now_s
        if free_bytes < FULL_BYTES:
            self._full_at_s = now_s
        least_bytes = min(free_bytes, self._inode_room_bytes)
        return min(max(MIN_CHECK_S, (least_bytes - LOW_BYTES) / MAX_WRITE_BYTES_S), MAX_CHECK_S)

    def was_low_since(self, then_s: float) -> bool:
        """Return whether a job that failed since then may have failed for want of space.

        Space may be free again by now, because a compiler removes a file that it could not finish.
        """
        return self._low_at_s >= then_s

    def was_full_since(self, then_s: float) -> bool:
        """Return whether a job may have been refused space since then.

        A job may remove what was cut off, do something else instead, and end with success.
        """
        return self._full_at_s >= then_s

    def may_have_filled(self, began_s: float, room_bytes: int, written_bytes: int) -> bool:
        """Return whether a job may have used up the space that was free when it began.

        It may have removed everything between two looks. A job that wrote less has not done that
        alone. Bytes that a job writes to pipes count, too. But a job that found much space cannot
        fill it between two looks: one of them has seen that little was left.
        """
        if not written_bytes or written_bytes < room_bytes - FULL_BYTES:
            return False
        return room_bytes < LOW_BYTES or self.was_low_since(began_s - MAX_CHECK_S)

    def _resize(self) -> None:
        room = mirror_calls.statvfs(self._root)
        size_bytes = max(self._wanted_bytes, (room.f_blocks - room.f_bfree) * room.f_frsize)
        inodes = max(size_bytes // BYTES_PER_INODE, room.f_files - room.f_ffree)
        options = f"size={size_bytes},nr_inodes={inodes}"
        try:
            _mount(b"tmpfs", self._root, MS_REMOUNT | MS_NOSUID | MS_NODEV, options.encode())
        except OSError:  # more is in use by now: `check_space` tries again
            return
        self._size_bytes = size_bytes

    def _free_bytes(self) -> int:
        room = mirror_calls.statvfs(self._root)
        counts_inodes = room.f_files != 0  # btrfs counts none
        has_inodes = not counts_inodes or room.f_ffree >= FEW_INODES
        self._inode_room_bytes = room.f_ffree * BYTES_PER_INODE if counts_inodes else math.inf
        return room.f_bavail * room.f_frsize if has_inodes else 0

    def _start_remover(self) -> bool:
        theirs, ours = mirror_calls.pipe()
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
