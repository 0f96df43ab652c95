"""Make directories for one process alone, and remove those of processes that were killed.

A process locks its directory as long as it runs. The kernel takes the lock away when the process
ends, however it ends. Therefore a directory without a lock is a leftover, however young it is. A
process may be between making its directory and locking it. If another process removes the directory
at that moment, the first one makes another.

On a file system without locks nothing is a leftover, because nobody can know.
"""

import fcntl
import itertools
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

log = logging.getLogger(__name__)


@contextmanager
def private_directory(parent: Path) -> Iterator[Path]:
    """Make a locked directory in `parent`, and remove it with all its content at the end.

    Also remove what killed processes have left in `parent`. This blocks on the disk. Raises OSError
    if the directory cannot be made.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(parent, "")
    path, lock = locked_directory(parent, "", 0o700)
    try:
        yield path
    finally:
        remove_tree(path)
        os.close(lock)


def locked_directory(parent: Path, prefix: str, mode: int) -> tuple[Path, int]:
    """Make a directory, and return it with the descriptor that locks it.

    Raise OSError if it cannot be made.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):
            lock = os.open(path, DIRECTORY | os.O_NOFOLLOW)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                os.fchmod(lock, mode)
                return path, lock
            os.close(lock)


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the directories in `parent` that begin with `prefix`, are ours, and have no lock."""
    with suppress(OSError):  # it is gone, or it is no directory of ours to read
        directory = os.open(parent, DIRECTORY)
        try:
            remove_leftovers_in(directory, parent, prefix, os.geteuid())
        finally:
            os.close(directory)


def remove_leftovers_in(parent: int, shown: Path, prefix: str, owner: int) -> None:
    """Do as `remove_leftovers`, for directories that belong to `owner`.

    `parent` is an open directory, and `shown` is its name in the log. Others may write to it: no
    symlink is followed.
    """
    for name in os.listdir(parent):
        if not name.startswith(prefix):
            continue
        with suppress(OSError):  # another process has removed it, or it is none of ours
            lock = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                if os.fstat(lock).st_uid == owner and is_abandoned(lock):
                    log.info("leftover-removed path=%s", shown / name)
                    _empty(lock, shown / name)
                    _remove_empty(name, parent, shown)
            finally:
                os.close(lock)


def is_abandoned(fd: int) -> bool:
    """Lock what is open as `fd`, and return True if no living process had locked it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_tree(path: Path) -> None:
    """Remove `path` with everything that a job may have left in it.

    Directories may be unreadable, or deeper than any path can be. Leftovers are logged. The
    function does not descend: each directory is moved to the top before it is emptied.
    `shutil.rmtree` calls itself for each level, so that a job's deep tree ended the worker. This
    may block for long.
    """
    try:
        top = _open_up(os.fspath(path))
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("leftover-kept path=%s reason=%s", path, error.strerror)
        return
    try:
        _empty(top, path)
    finally:
        os.close(top)
    _remove_empty(os.fspath(path), None, path.parent)


def _remove_empty(name: str, parent: int | None, shown: Path) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        log.warning("leftover-kept path=%s reason=%s", shown / name, error.strerror)


def _empty(top: int, path: Path) -> None:
    """Remove everything in the directory `top`.

    An entry that cannot be removed stays somewhere in it.
    """
    free_names = map(f"removed-{secrets.token_hex(8)}-{{}}".format, itertools.count())
    waiting = _take_out(top, top, free_names)
    while waiting:
        name = waiting.pop()  # the last one, so that as few as possible wait
        try:
            directory = _open_up(name, top)
            try:
                waiting += _take_out(directory, top, free_names)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            log.debug("leftover-kept path=%s name=%s reason=%s", path, name, error.strerror)


def _take_out(directory: int, top: int, free_names: Iterator[str]) -> list[str]:
    """Remove the files in `directory`, and move its directories to `top`.

    Return the names that the directories have in `top`.
    """
    moved = []
    for entry in list(os.scandir(directory)):
        with suppress(OSError):  # another process has removed it
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
            elif directory == top:
                moved.append(entry.name)
            else:
                moved.append(_move_up(entry.name, directory, top, free_names))
    return moved


def _move_up(name: str, directory: int, top: int, free_names: Iterator[str]) -> str:
    free = next(free_names)
    try:
        os.rename(name, free, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:  # moving a directory writes its "..", and so needs its write bit
        os.close(_open_up(name, directory))
        os.rename(name, free, src_dir_fd=directory, dst_dir_fd=top)
    return free


def _open_up(name: str, within: int | None = None) -> int:
    """Open a directory, giving its owner all rights. Raise OSError if `name` is no directory."""
    flags = DIRECTORY | os.O_NOFOLLOW
    here = os.open(name, os.O_PATH | flags, dir_fd=within)
    try:
        if os.fstat(here).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{here}", 0o700)
        return os.open(".", flags, dir_fd=here)
    finally:
        os.close(here)
