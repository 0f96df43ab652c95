"""Open and remove files by their paths in a tree, without following any symlink.

engine/beneath.py has the calls for one open directory, on which this module stands. Workers name
paths, and a job may have left a symlink anywhere. `Exports` decides about a path by its names
alone, so the path must lead where its names say.
"""

import contextlib
import os
import stat
from collections.abc import Container
from errno import EEXIST, EIO, EISDIR, ENOTEMPTY, EPERM

from termite.engine import look_calls
from termite.engine.beneath import DIRECTORY, FILE
from termite.engine.errors import FsError, Reason, Retryable
from termite.engine.look_errors import is_answer
from termite.engine.paths import components, join
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.times import wire_ns

# With these unlink refuses a directory: the first is that of Linux, the second that of POSIX.
NOT_A_FILE = (EISDIR, EPERM)


class Disk:
    """The files below the directory `top`, to which all paths are relative.

    Methods raise FsError(EINVAL) for a malformed path, else OSError. The errno is ENOTDIR if a
    symlink stands in the place of a directory, and ELOOP if it stands in the place of a file.
    """

    def __init__(self, top: bytes) -> None:
        """Open `top`, a path of our own disk. Raise OSError if that fails."""
        self._top = look_calls.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the descriptor of `top`; fds that were returned stay open."""
        os.close(self._top)

    def open_directory(self, path: bytes, flags: int = os.O_RDONLY) -> int:
        """Return an fd for the caller to close. With O_PATH we need not be able to list it."""
        return self._open(path, flags | DIRECTORY)

    def look(self, path: bytes) -> os.stat_result | None:
        """Return what is at a path, or None if nothing is, or if the disk refuses to say."""
        try:
            return self.status(path)
        except OSError as error:
            if not is_answer(error):
                raise
            return None

    def status(self, path: bytes) -> os.stat_result:
        """Return what is at a path. Raise OSError if nothing is, or if nobody can say."""
        fd = self._open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return look_calls.fstat(fd)
        finally:
            os.close(fd)

    def own_mode(self, path: bytes) -> int | None:
        """Return the st_mode of what is at a path, or None if it is not ours, or nobody knows."""
        with contextlib.suppress(OSError):  # the caller has an error of its own to report
            if (there := self.look(path)) is not None and there.st_uid == os.geteuid():
                return there.st_mode
        return None

    def open_file(self, path: bytes) -> int:
        """Return an fd for reading, for the caller to close.

        The caller must check the type of the opened file. If a FIFO has taken its place, this does
        not wait for a writer.
        """
        return self._open(path, FILE)

    def _open(self, path: bytes, flags: int) -> int:
        components(path)  # they are names
        return look_calls.open_beneath(self._top, path, flags)


class PlanDisk(Disk):
    """The files that a plan names: below `top`, or below / if a path begins with a slash."""

    def __init__(self, top: bytes) -> None:
        super().__init__(top)
        self._machine = Disk(b"/")

    def close(self) -> None:
        """Close the descriptors of `top` and of /."""
        self._machine.close()
        super().close()

    def _open(self, path: bytes, flags: int) -> int:
        if path.startswith(b"/"):
            return self._machine._open(path[1:], flags)
        return super()._open(path, flags)


class FsErrors:
    """Raise FsError for an OSError in the block, so that the job that named the path fails.

    This is a class, as is LookErrors, because a generator takes three times as long, and each job
    enters ten such blocks.
    """

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise FsError(error.errno or EIO, self._path) from error


class LookErrors:
    """Raise Retryable for an OSError in the block that does not say what is at `path`.

    The job that needs to know may then succeed later, or locally. Pass on an OSError that says it.
    """

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not is_answer(error):
            raise look_failed(self._path, error) from error


def look_failed(path: bytes, error: OSError) -> Retryable:
    """Return the error for the scheduler: the state of `path` is unknown, and no worker did it."""
    name = "/" + os.fsdecode(path)
    return Retryable(Reason.LOOK_FAILED, f"{name!r}: {os.strerror(error.errno or EIO)}")


def remove_beneath(dir_fd: int, name: bytes, path: bytes = b"", kept: Container[bytes] = ()) -> bool:
    """Remove the entry `name` of an open directory, and everything below it but `kept` paths.

    Return whether it is gone. `path` is its path in the tree, which is only needed for `kept`. A
    directory that its owner may not write is made writable first, because the job that removed it
    had to do that as well. Raise OSError at the first entry that cannot be removed.
    """
    try:
        disk_calls.unlink(name, dir_fd=dir_fd)
        return True
    except FileNotFoundError:
        return True
    except OSError as e:
        if e.errno not in NOT_A_FILE:
            raise
    fd = _open_to_empty(dir_fd, name)
    try:
        for child in map(os.fsencode, look_calls.listdir(fd)):
            below = join(path, child)
            if below not in kept:
                remove_beneath(fd, child, below, kept)
    finally:
        os.close(fd)
    try:
        disk_calls.rmdir(name, dir_fd=dir_fd)
    except OSError as e:
        if e.errno not in (ENOTEMPTY, EEXIST):
            raise
        return False
    return True


def set_attributes(name: bytes, dir_fd: int, mode: int, mtime_ns: int) -> None:
    """Set permissions and mtime of the entry `name` of an open directory.

    A symlink is never followed. If the entry is not of the type that `mode` has, do nothing. Raise
    OSError if it is missing.
    """
    fd = look_calls.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if not stat.S_ISLNK(mode):
            set_attributes_of(fd, b"/proc/self/fd/%d" % fd, mode, mtime_ns)
        elif stat.S_ISLNK(look_calls.fstat(fd).st_mode):
            disk_calls.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
    finally:
        os.close(fd)


def set_attributes_of(fd: int, itself: int | bytes, mode: int, mtime_ns: int) -> None:
    """Do as `set_attributes` for an open entry. `itself` is `fd` again, or a path that leads to it.

    With O_PATH it must be the path.
    """
    st = look_calls.fstat(fd)
    if stat.S_IFMT(st.st_mode) != stat.S_IFMT(mode):
        return
    if st.st_mode != mode:
        disk_calls.chmod(itself, stat.S_IMODE(mode))
    if wire_ns(st.st_mtime_ns) != mtime_ns:  # a time that no message says stays as it is
        disk_calls.utime(itself, ns=(st.st_atime_ns, mtime_ns))


def _open_to_empty(dir_fd: int, name: bytes) -> int:
    """Open a directory to list and empty it, after its owner was given the permissions for that."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    st = look_calls.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISDIR(st.st_mode) and st.st_mode & 0o700 != 0o700:
        set_attributes(name, dir_fd, st.st_mode | 0o700, st.st_mtime_ns)
    return look_calls.open(name, flags, dir_fd=dir_fd)
