"""Watch the place at which launchers find a master: the path of its socket, in the top of the tree.

A tree may be moved, removed or replaced while its master idles. Then the path belongs to the next
master, and this one can no longer serve anybody.
"""

import contextlib
import enum
import os
import stat
from errno import ELOOP, ENOENT, ENOTDIR
from pathlib import Path
from types import TracebackType

import trio
from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # it has no stubs

READ_BYTES = 64 * 1024
_GONE = frozenset({ENOENT, ENOTDIR, ELOOP})  # any other error says nothing about what is there
_MOVED = int(flags.MOVE_SELF | flags.ONLYDIR)
# While the socket is bound, the kernel reports the loss of its name as a change of its attributes.
_UNLINKED = int(flags.ATTRIB | flags.MOVE_SELF | flags.DONT_FOLLOW)


class Whereabouts(enum.Enum):
    """The result of a look at the place of a socket."""

    IN_PLACE = enum.auto()
    SOCKET_GONE = enum.auto()  # the tree is in its place
    TREE_GONE = enum.auto()  # it was moved, removed or replaced


class SocketPlace:
    """The place of a socket that was just made at `path`, whose directory has no symlink in it.

    The directory stays open, so that its number cannot be given to another one.
    `outside` is a descriptor of the directory from outside of our mount namespace, or -1.
    """

    def __init__(self, path: Path, outside: int = -1) -> None:
        """Raise OSError if the directory cannot be opened."""
        self._path = path
        self._outside = outside
        self._outer_path = _path_of(outside)
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = _socket_number(path.name, self._directory)
        self._inotify = _watch(path)

    def look(self) -> Whereabouts:
        """Look at the disk, and block meanwhile.

        If the look fails, everything counts as in place.
        """
        try:
            if not os.path.samestat(os.stat(self._path.parent), os.fstat(self._directory)):
                return Whereabouts.TREE_GONE
            # A symlink in the place of a moved tree leads to it, but no result is written through
            # one.
            if os.path.realpath(self._path.parent) != str(self._path.parent):
                return Whereabouts.TREE_GONE
            if _path_of(self._outside) != self._outer_path:
                return Whereabouts.TREE_GONE
        except OSError as error:
            return Whereabouts.TREE_GONE if error.errno in _GONE else Whereabouts.IN_PLACE
        try:
            is_ours = _socket_number(self._path.name, self._directory) == self._socket
        except OSError:
            return Whereabouts.IN_PLACE
        return Whereabouts.IN_PLACE if is_ours else Whereabouts.SOCKET_GONE

    async def wait_for_event(self) -> None:
        """Wait until something has happened for which a look is worth while.

        Other machines cause no event, and a kernel that refuses watches reports none.
        """
        if self._inotify is None:
            await trio.sleep_forever()
            return
        await trio.lowlevel.wait_readable(self._inotify.fd)
        with contextlib.suppress(BlockingIOError):
            os.read(self._inotify.fd, READ_BYTES)

    def __enter__(self) -> "SocketPlace":
        return self

    def __exit__(self, _: object, __: object, ___: TracebackType | None) -> None:
        os.close(self._directory)
        if self._inotify is not None:
            self._inotify.close()


def _path_of(directory: int) -> str:
    """Return the present path of an open directory, "" for -1. Raise OSError."""
    return os.readlink(f"/proc/self/fd/{directory}") if directory >= 0 else ""


def _socket_number(name: str, directory: int) -> int:
    """Return the inode of a socket in an open directory, or 0 if there is none."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return status.st_ino if stat.S_ISSOCK(status.st_mode) else 0


def _watch(path: Path) -> INotify | None:
    """Watch a socket, its directory and all directories above. Return None without inotify."""
    try:
        inotify = INotify(nonblocking=True)
    except OSError:  # the user has no instance left
        return None
    for watched, mask in ((path, _UNLINKED), *((directory, _MOVED) for directory in path.parents)):
        with contextlib.suppress(OSError):  # the user may not read it, or has no watch left
            inotify.add_watch(bytes(watched), mask)
    return inotify
