"""Read a job's upper layer from disk, as entries for `comparison`.

The job is dead, but it may have passed a descriptor of its directories to another job, which goes
on changing them. Therefore everything is opened by descriptor, beneath the upper layer and without
passing a symlink. If a file is not what was listed when its content is read, the whole result is
refused.
"""

import errno
import os
import stat
from collections.abc import Generator, Sequence
from pathlib import Path

from termite.engine.beneath import DIRECTORY, FILE, open_beneath
from termite.engine.errors import NotAtRest, Reason, Retryable
from termite.engine.paths import RESULT_BYTES
from termite.fuse import mirror_calls
from termite.fuse.layers.real_tree import OPAQUE_XATTR, ORIGIN_XATTR
from termite.fuse.view.comparison import Homes, UpperEntry, is_worth_reading

# The kernel returns one of these if a name is gone or has become another kind of file.
MOVED_ERRORS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ESTALE})

# The beginnings of the names of attributes that a job can set, and of those of overlayfs.
OF_JOBS = ("user.", "security.capability", "system.posix_acl_")
OF_OVERLAY = "user.overlay."

ListedName = tuple[bytes, bool]  # a path, and whether the listing says that it is a directory


class UpperLayer:
    """An upper layer in the directory `path`, which has entries. No job can reach `path` itself.

    Every method blocks on the disk. `close` it in the end.
    """

    def __init__(self, path: bytes, listed: list[ListedName]) -> None:
        self._listed = listed
        self._top = mirror_calls.open(path, os.O_RDONLY | DIRECTORY)
        self._device = mirror_calls.fstat(self._top).st_dev

    def close(self) -> None:
        """Close the directory."""
        os.close(self._top)

    def entries(self, homes: Homes) -> Generator[UpperEntry]:
        """Yield the entries, except those in directories that a result never has.

        Parents come first, siblings in the order of their names. Raises NotAtRest if a name goes
        or changes its type in the meantime, and Retryable if a path is too long. Either way the
        job runs once more.
        """
        here: bytes | None = None
        fd = -1  # one open directory is enough, however deep it is
        waiting = self._listed
        path = b""
        try:
            while waiting:
                path, is_directory = waiting.pop()
                parent = path if is_directory else path.rpartition(b"/")[0]
                if parent != here:
                    here, fd = parent, _replace(fd, open_beneath(self._top, parent, DIRECTORY))
                if not is_directory:
                    yield _read_entry(fd, path)
                    continue
                entry = _read_directory(fd, path)
                if is_worth_reading(path, homes):
                    waiting.extend(_list(fd, path))
                yield entry
        except OSError as error:
            raise _error_at(path, error) from error
        finally:
            if fd >= 0:
                os.close(fd)

    def open_file(self, entry: UpperEntry) -> int:
        """Return a descriptor of the file that was listed as `entry`. The caller closes it.

        Raises NotAtRest if another file is there, or if the file was changed.
        """
        try:
            fd = open_beneath(self._top, entry.path, FILE)
        except OSError as error:
            raise _error_at(entry.path, error) from error
        status = mirror_calls.fstat(fd)
        if status.st_dev != self._device or _facts(status) != _facts_of(entry):
            os.close(fd)
            raise not_at_rest(entry.path)
        return fd


def open_upper(path: Path) -> UpperLayer | None:
    """Open an upper layer. Return None if the job has written nothing."""
    name = os.fsencode(path)
    listed = _list(name, b"")
    return UpperLayer(name, listed) if listed else None


def not_at_rest(path: bytes) -> NotAtRest:
    """Return the error for a result whose file at `path` somebody still changes."""
    return NotAtRest(f"{os.fsdecode(path)!r} changed after the job had ended")


def _replace(fd: int, newer: int) -> int:
    if fd >= 0:
        os.close(fd)
    return newer


def _list(directory: bytes | int, path: bytes) -> list[ListedName]:
    """Return the names in a directory, the last one first. Their types are hints only."""
    with mirror_calls.scandir(directory) as found:
        entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
    entries.sort(reverse=True)
    if not path:
        return entries
    if entries and len(path) + 1 + max(len(name) for name, _ in entries) > RESULT_BYTES:
        raise Retryable(Reason.TOO_LARGE, "the job made a path that is too long")
    return [(b"%b/%b" % (path, name), is_directory) for name, is_directory in entries]


def _read_directory(fd: int, path: bytes) -> UpperEntry:
    status = mirror_calls.fstat(fd)
    names = _attributes(fd)
    opaque = OPAQUE_XATTR in names and os.getxattr(fd, OPAQUE_XATTR) == b"y"
    is_retimed = status.st_mtime_ns != status.st_ctime_ns  # the kernel sets both when an entry comes or goes
    facts = _facts(status)
    return UpperEntry(path, *facts, opaque=opaque, retimed=is_retimed, has_attributes=_are_of_job(names))


def _read_entry(fd: int, path: bytes) -> UpperEntry:
    """Return the entry of a file in the directory that is open as `fd`."""
    name = path.rpartition(b"/")[2]
    status = mirror_calls.stat(name, dir_fd=fd, follow_symlinks=False)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise not_at_rest(path)
    # The link in /proc leads to the open directory, wherever that is now.
    names = _attributes(b"/proc/self/fd/%d/%b" % (fd, name)) if stat.S_ISREG(mode) else ()
    return UpperEntry(
        path,
        *_facts(status),
        whiteout=stat.S_ISCHR(mode) and status.st_rdev == 0,
        copied_up=ORIGIN_XATTR in names,
        target=os.readlink(name, dir_fd=fd) if stat.S_ISLNK(mode) else b"",
        has_attributes=_are_of_job(names),
    )


def _facts(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Return what identifies a file and its state, in the order of UpperEntry."""
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, status.st_nlink


def _facts_of(entry: UpperEntry) -> tuple[int, int, int, int, int]:
    return entry.mode, entry.size, entry.mtime_ns, entry.inode, entry.nlink


def _attributes(file: bytes | int) -> Sequence[str]:
    """Return the names of the extended attributes of a file."""
    try:
        return os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise


def _are_of_job(names: Sequence[str]) -> bool:
    """Return whether a job has set one of these attributes. Others are of overlayfs and SELinux."""
    return any(name.startswith(OF_JOBS) and not name.startswith(OF_OVERLAY) for name in names)


def _error_at(path: bytes, error: OSError) -> Exception:
    return not_at_rest(path) if error.errno in MOVED_ERRORS else error
