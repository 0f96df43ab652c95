"""Stage results in `.termite-staging` of the writable root until all results of a job are complete.

The directory is on the same file system as most of the tree, so that one rename makes a finished
file visible. Results for other file systems are staged there (areas.py). The file system's own
clock is read here as well.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from errno import EACCES
from pathlib import Path

from termite.engine import look_calls
from termite.engine.beneath import FILE
from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.model import Digest
from termite.engine.paths import join
from termite.engine.sparse_content import ContentHash, copy_pieces, is_sparse_file
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.visibility import STAGING
from termite.engine.tree.publishing.kept_plans.discard_note import NOTE, DiscardNote
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile
from termite.engine.tree.tree_disk import FsErrors, remove_beneath
from termite.engine.tree.volumes import volume_of

NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
COPY_BYTES = 1 << 30  # for one copy_file_range
BLOCK_BYTES = 1 << 20  # for one read and write
CLOCK = b"now"
IGNORE = b".gitignore"  # so that `git status` does not show the directory
IGNORE_ALL = b"*\n"

log = logging.getLogger(__name__)


class Staging:
    """The staging directory of one master, without leftovers at the start and gone after `close`.

    Methods block, and raise OSError if the disk refuses. Staged files are named by one name, as
    `reserve` returns it. All names of one master begin with the label of its plan file. `recorded`
    are the directories in which this master has made areas. `earlier` are the plan files of earlier
    masters for which a launcher may ask. `discarded` are the lost results of killed masters, of
    which the user must hear.
    """

    def __init__(self, writable_root: bytes) -> None:
        """Make the directory. Raise UserError if that fails.

        The plans of killed masters are finished first (redo.py), and their leftovers removed.
        """
        self.path = Path(os.fsdecode(b"/" + writable_root)) / os.fsdecode(STAGING)
        self._top = look_calls.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fd, self.plan = _open_with_plan(self._top)
            self.volume = volume_of(self.fd)
            self._clock = _make_new(CLOCK, self.fd)
        except OSError as e:
            os.close(self._top)
            raise UserError(f"{self.path}: {e.strerror}", hint="results are staged there") from e
        self.recorded: set[bytes] = set()
        self.earlier: frozenset[bytes] = frozenset()
        self.discarded = DiscardNote(self.fd)
        self._count = 0
        self._top_path = b"/" + writable_root
        self._top_status = look_calls.fstat(self._top)

    def now_ns(self) -> int:
        """Return the file system's own time: the mtime of a file that is written at this moment.

        Raise FsError.
        """
        with FsErrors(b""):
            disk_calls.utime(self._clock)
            return look_calls.fstat(self._clock).st_mtime_ns

    @property
    def is_in_place(self) -> bool:
        """True if the path of the writable root leads to the directory that this master has opened.

        Otherwise the tree was moved or removed, and steps by path would change another one.
        """
        try:
            return os.path.samestat(look_calls.stat(self._top_path), self._top_status)
        except OSError:
            return False

    def reserve(self, area: int = 0) -> bytes:
        """Return a new name in the area of this number (areas.py), without making anything."""
        self._count += 1
        if area:
            return b"%b.%d.%d" % (self.plan.label, self._count, area)
        return b"%b.%d" % (self.plan.label, self._count)

    def discard(self, name: bytes, area: int = -1) -> None:
        """Remove a staged entry, but leave it to `close` if the disk refuses.

        `area` is the open directory with the entry; the default is our own. An error after a
        job was published must not look like a failure of the job.
        """
        try:
            remove_beneath(self.fd if area < 0 else area, name)
        except OSError as e:
            log.warning("staging-not-emptied name=%r reason=%s", name, e)

    def free_bytes(self) -> int:
        """Return how much space is left for a user without privilege."""
        with FsErrors(b""):
            space = look_calls.fstatvfs(self.fd)
        return space.f_bavail * space.f_frsize

    def close(self) -> None:
        """Remove the directory with everything in it.

        If a launcher may still ask how its job has ended, the plan file stays, and the launcher
        removes it. The `earlier` plans stay, too, and a note that nobody has read.
        """
        os.close(self._clock)
        earlier = self.earlier.intersection(map(os.fsencode, look_calls.listdir(self.fd)))  # others remove theirs
        kept = earlier if self.plan.close() else earlier | {self.plan.name}
        if self.discarded.is_left():
            kept |= {NOTE}
        if kept:
            kept |= {IGNORE}
        remove_beneath(self._top, STAGING, STAGING, {join(STAGING, name) for name in kept})
        os.close(self.fd)
        os.close(self._top)


class StagedWriter:
    """A staged file whose content comes in pieces.

    `discard` is always allowed, and removes a finished file as well. Methods raise FsError if the
    disk refuses; the command then runs here.
    """

    def __init__(self, staging: Staging) -> None:
        """Make the empty file."""
        self._staging = staging
        self._name = staging.reserve()
        self._state = ContentHash()
        self._has_holes = False
        self._fd = -1
        with FsErrors(b""):
            self._fd = disk_calls.open(self._name, NEW, 0o600, dir_fd=staging.fd)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append a piece of the content."""
        self._state.update(chunk)
        with FsErrors(b""):
            write_all(self._fd, chunk)

    def skip(self, length: int) -> None:
        """Append a hole of so many zeros."""
        self._state.skip(length)
        self._has_holes = True
        with FsErrors(b""):
            os.lseek(self._fd, length, os.SEEK_CUR)

    def finish(self, expected: Digest) -> Path:
        """End the content and return the path of the staged file, for `publish`.

        Raise RemoteProtocolError if the content has another digest; the file is removed then, and
        the worker's connection must be dropped.
        """
        path, digest = self.end()
        if digest != expected:
            self.discard()
            raise RemoteProtocolError(f"content does not have the digest {expected.sha256.hex()}")
        return path

    def end(self) -> tuple[Path, Digest]:
        """End the content, and return the path of the staged file and its digest."""
        if self._has_holes:
            with FsErrors(b""):
                disk_calls.ftruncate(self._fd, self._state.size)
        with FsErrors(b""):
            self._close()
        return self._staging.path / os.fsdecode(self._name), self._state.digest()

    def discard(self) -> None:
        """Remove the file, finished or not."""
        with suppress(OSError):  # the content is not used
            self._close()
        self._staging.discard(self._name)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1  # an error of close frees the descriptor as well
        if fd >= 0:
            disk_calls.close(fd)


def discard_all(writers: Iterable[StagedWriter]) -> None:
    """Remove what was written and not published."""
    for writer in writers:
        writer.discard()


def open_staging(top: int, *, is_made: bool) -> int:
    """Return an fd of the staging directory in the open directory `top`. `is_made`: make it first.

    One that stands there may be of an archive, with anything in it: it is closed to other users.
    Raise OSError, PermissionError if it is another user's.
    """
    if is_made:
        try:
            disk_calls.mkdir(STAGING, 0o700, dir_fd=top)
        except FileExistsError:
            if not stat.S_ISDIR(look_calls.stat(STAGING, dir_fd=top, follow_symlinks=False).st_mode):
                disk_calls.unlink(STAGING, dir_fd=top)
                disk_calls.mkdir(STAGING, 0o700, dir_fd=top)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = look_calls.open(STAGING, flags, dir_fd=top)
    try:
        status = look_calls.fstat(fd)
        if is_made and status.st_uid != os.geteuid():
            raise PermissionError(EACCES, "another user has made it")
        if is_made and stat.S_IMODE(status.st_mode) != 0o700:
            disk_calls.fchmod(fd, 0o700)
    except OSError:
        os.close(fd)
        raise
    return fd


def hide_from_git(directory: int) -> None:
    """Write a `.gitignore` to an open directory, so that `git status` does not list the directory.

    This must be the first file in it. Anything else of that name is replaced, and never written
    to: an archive may have brought a link or a FIFO. Raise OSError.
    """
    with suppress(FileNotFoundError):
        there = look_calls.stat(IGNORE, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(there.st_mode) and there.st_size == len(IGNORE_ALL):
            return
    fd = _make_new(IGNORE, directory)
    try:
        write_all(fd, IGNORE_ALL)
    finally:
        os.close(fd)


def _make_new(name: bytes, directory: int) -> int:
    """Make an empty file in place of whatever stands there, and return its fd. Raise OSError."""
    while True:
        try:
            return disk_calls.open(name, NEW, 0o600, dir_fd=directory)
        except FileExistsError:
            remove_beneath(directory, name)


def _open_with_plan(top: int) -> tuple[int, PlanFile]:
    """Make the staging directory and our plan file in it.

    Another process that removes what a killed master left may remove the directory between the two.
    It is made again then.
    """
    while True:
        staging = open_staging(top, is_made=True)
        try:
            hide_from_git(staging)
            plan = PlanFile(staging)
            hide_from_git(staging)  # the other process has removed this file first
            return staging, plan
        except FileNotFoundError:
            os.close(staging)


def stage_content(area: int, name: bytes, content: bytes, mode: int, times_ns: tuple[int, int]) -> os.stat_result:
    """Write a whole new file to an open directory, with atime and mtime. Raise OSError."""
    fd = disk_calls.open(name, NEW, 0o600, dir_fd=area)
    try:
        try:
            write_all(fd, content)
            disk_calls.fchmod(fd, mode)
            disk_calls.utime(fd, ns=times_ns)
            return look_calls.fstat(fd)
        finally:
            disk_calls.close(fd)
    except BaseException:
        remove_beneath(area, name)
        raise


def stage_copy(area: int, name: bytes, source: int) -> None:
    """Copy an open file to a new file in an open directory. Blocks may be shared. Raise OSError."""
    target = disk_calls.open(name, NEW, 0o600, dir_fd=area)
    try:
        try:
            copy_content(source, target)
        finally:
            disk_calls.close(target)
    except BaseException:
        remove_beneath(area, name)
        raise


def stage_copy_of(area: int, name: bytes, source: bytes, source_fd: int) -> None:
    """Copy the file `source` of the open directory `source_fd` to a new file in another one.

    Raise OSError, EINVAL if `source` is no regular file. A worker may say that a FIFO is one: the
    master would wait for a writer for ever.
    """
    fd = look_calls.open(source, FILE, dir_fd=source_fd)
    try:
        if not stat.S_ISREG(look_calls.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        stage_copy(area, name, fd)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all bytes to an fd. Raise OSError."""
    view = memoryview(content)
    while view:
        view = view[disk_calls.write(fd, view) :]


def copy_content(source: int, target: int) -> None:
    """Copy the whole content of one fd to another, inside the kernel if possible. Raise OSError.

    Holes stay holes.
    """
    if is_sparse_file(look_calls.fstat(source)):
        copy_pieces(source, target, disk_calls.write)
        return
    offset = 0
    try:
        while copied := disk_calls.copy_file_range(source, target, COPY_BYTES, offset_src=offset):
            offset += copied
    except OSError as e:
        if e.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        while block := look_calls.pread(source, BLOCK_BYTES, offset):
            write_all(target, block)
            offset += len(block)
