"""Look for entries that jobs ask for by name, in directories of which they see a part only.

A loader that follows a RUNPATH, an interpreter that reads a `.pth` file, and git that follows
`gitdir:` all look for a name in a private place. If the name were missing without a word, they
would take another file, or go on without it. Therefore a mirror asks for such a name. Directories
and symlinks are shown, so that the look goes on. A file makes the command run on the master's
machine.
"""

import errno
import functools
import os
import stat

import trio

from termite.engine import look_calls
from termite.engine.errors import FsError, Reason, Retryable, TermiteError
from termite.engine.look_errors import GONE
from termite.engine.model import Attr
from termite.engine.paths import components, is_within, split
from termite.engine.tree.logic.temporary_names import is_never_shown, temporary_above
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.logic.visibility import STANDARD_DIRECTORIES, Exports, Visibility
from termite.engine.tree.tools.refused_entries import is_refused_by_rights
from termite.engine.tree.tools.slow_mounts import WatchedMounts
from termite.engine.tree.tree_disk import Disk, LookErrors, look_failed

SLOW_LOOK_S = 2.0  # a server that works answers in less
SLOW_LOOKS = 4  # at the same time: each may hold a thread for as long as a server is silent
SILENT_S = 60.0  # after a silence, during which no look is tried
DIRECTORY_BYTES = 4096  # the size of every directory that jobs see
# The package manager's. Compilers look there for hundreds of names that are missing, and each
# program for /etc/ld.so.preload. What root alone may read there is no part of a build.
_OF_SYSTEM = tuple(f"{top}{name}".encode() for top in ("", "usr/") for name in ("bin", "sbin", "lib", "lib32", "lib64"))
_MORE_OF_SYSTEM = (b"etc", b"usr/include", b"usr/libexec", b"usr/share", b"usr/src")


def is_asked_for(exports: Exports, directory: bytes) -> bool:
    """Return whether mirrors ask for entries that jobs do not see in this directory.

    In a directory of temporary files every job looks for names that are new.
    """
    if exports.is_live(directory) or exports.is_crowded(directory) or exports.opened_above(directory):
        return False
    visibility = exports.visibility(directory)
    if visibility is Visibility.HIDDEN:
        return False
    if visibility is Visibility.WHOLE and not exports.rules(directory).hides_credentials:
        return False
    tops = (*_OF_SYSTEM, *_MORE_OF_SYSTEM, *(top for top in STANDARD_DIRECTORIES if top not in exports.temporary))
    return not any(is_within(directory, top) for top in tops)


def is_within_reach(fd: int, name: bytes, mode: int) -> bool:
    """Return whether this process may use the entry `name` of the open directory `fd` at all.

    `mode` is its st_mode. Raise OSError if a look fails.
    """
    if stat.S_ISDIR(mode):
        return look_calls.has_right(name, os.X_OK, dir_fd=fd)
    return look_calls.has_right(name, os.R_OK, dir_fd=fd) or look_calls.has_right(name, os.X_OK, dir_fd=fd)


class PrivateEntries:
    """The entries that mirrors of one tree ask for."""

    def __init__(self, disk: Disk, exports: Exports, mounts: WatchedMounts) -> None:
        self._disk = disk
        self._exports = exports
        self._mounts = mounts
        self._slow_looks = trio.CapacityLimiter(SLOW_LOOKS)
        self._silent_until_s = 0.0

    async def find(self, path: bytes) -> Attr | None:
        """Return the attributes of a directory or a symlink that jobs were not shown.

        Return None if nothing is there, or nothing that a job may know of. Raise Retryable if it is
        anything else, or if the look fails. No symlink on the way is followed. A place where a look
        may hang is looked at in a thread, for SLOW_LOOK_S at most; one that mounts on demand is
        not. If nobody knows what is there, only a command on the master's machine finds out. Raise
        FsError if the path is malformed.
        """
        components(path)
        directory, _ = split(path)
        if not is_asked_for(self._exports, directory) or self._exports.visibility(path) is Visibility.HIDDEN:
            return None
        if temporary_above(path) and is_never_shown(path):
            return None
        try:
            mounts = self._mounts.now()
        except OSError as error:
            raise look_failed(path, error) from error
        if not mounts.may_hang(path):
            return look_at_entry(self._disk, path)
        if not mounts.is_on_demand(path) and trio.current_time() >= self._silent_until_s:
            with trio.move_on_after(SLOW_LOOK_S):
                look = functools.partial(look_at_entry, self._disk, path)
                return await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._slow_looks)
            self._silent_until_s = trio.current_time() + SILENT_S
        raise Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(path))


def look_at_entry(disk: Disk, path: bytes) -> Attr | None:
    """Return as `PrivateEntries.find`, wherever the path is. This blocks on the disk."""
    directory, name = split(path)
    with LookErrors(path):
        try:
            fd = disk.open_directory(directory, os.O_PATH)
            try:
                st = look_calls.stat(name, dir_fd=fd, follow_symlinks=False)
                target = look_calls.readlink(name, dir_fd=fd) if stat.S_ISLNK(st.st_mode) else b""
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in GONE and not is_refused_by_rights(disk, directory, error):
                raise look_failed(path, error) from error
            return None
    if not stat.S_ISDIR(st.st_mode) and not target:
        raise Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(path))
    size = len(target) if target else DIRECTORY_BYTES
    return Attr(st.st_mode, size, wire_ns(st.st_mtime_ns), target=target)


def refusal_of(disk: Disk, exports: Exports, directory: bytes, error: OSError) -> TermiteError:
    """Return the error for a job that asks for a directory which the master may not list.

    The kernel lets a job look names up if the mode is 0300, and list them if it is 0600. If such a
    directory of the tree is our own, only a command on the master's machine does the same. Return
    LOOK_FAILED if nobody can say whose it is.
    """
    if error.errno in (errno.EACCES, errno.EPERM) and exports.is_live(directory):
        try:
            there = disk.look(directory)
        except OSError as failure:
            return look_failed(directory, failure)
        if there is not None and there.st_uid == os.geteuid():
            return Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(directory))
    return FsError(error.errno or errno.EIO, directory)
