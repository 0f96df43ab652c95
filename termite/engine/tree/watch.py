"""inotify: which names in which directories something happened to.

The kernel queues an event before the system call that caused it returns, so a drained queue means that everything done
before is known. But an event says where to look, never what is there now: the directory that a watch was made for may
have been moved when its events are read.
"""

import errno
import logging
import os
from collections.abc import Callable

from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # it has no stubs

from termite.engine.errors import UserError
from termite.engine.paths import join
from termite.engine.tree.logic.attrs import Events, Touch

# As plain numbers: an operation on the flags themselves takes a microsecond.
WRITTEN = int(flags.MODIFY | flags.CLOSE_WRITE)
ENTRIES = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
OF_DIRECTORY = int(flags.ISDIR)
IGNORED = int(flags.IGNORED)
OVERFLOW = int(flags.Q_OVERFLOW)
MASK = WRITTEN | ENTRIES | flags.ATTRIB | flags.ONLYDIR | flags.EXCL_UNLINK

log = logging.getLogger(__name__)


class Watches:
    """Watched directories by path. `unwatched` are those that could not be: they must be listed at every drain.

    Where not `is_owed` says so, a directory that cannot be watched is not among them: it is looked at again less often.
    """

    def __init__(self, is_owed: Callable[[bytes], bool]) -> None:
        self._is_owed = is_owed
        self._is_limit_told = False
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as e:
            raise UserError(
                f"inotify: {os.strerror(e.errno or 0)}", hint="raise it: sysctl fs.inotify.max_user_instances=1024"
            ) from e
        self.unwatched: set[bytes] = set()
        self._paths: dict[int, bytes] = {}
        self._wds: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._wds)

    def is_watched(self, path: bytes) -> bool:
        return path in self._wds

    def watch(self, path: bytes, fd: int) -> None:
        """From now on events of the directory that is open as `fd` count for `path`."""
        try:
            wd = self._inotify.add_watch(b"/proc/self/fd/%d" % fd, MASK)
        except OSError as e:
            if not self._is_limit_told:
                self._is_limit_told = True
                log.warning(
                    "watch-limit-reached path=%r hint='raise sysctl fs.inotify.max_user_watches' reason=%s", path, e
                )
            self.list_always(path)
            return
        other = self._paths.get(wd)
        if other is not None and other != path:  # a bind mount shows it twice, or it is on its way from there to here
            if self._is_owed(other) and not self._is_owed(path):
                return
            del self._wds[other], self._paths[wd]
            self.list_always(other)
        if self._wds.get(path, wd) != wd:  # the directory of this name is another one now
            self.drop(path)
        self.unwatched.discard(path)
        self._paths[wd] = path
        self._wds[path] = wd

    def list_always(self, path: bytes) -> None:
        """Nothing watches it, as it cannot be read or there are no watches left: try again at every drain, if owed."""
        self.drop(path)
        if self._is_owed(path):
            self.unwatched.add(path)

    def drop(self, path: bytes) -> None:
        self.unwatched.discard(path)
        wd = self._wds.pop(path, None)
        if wd is None:
            return
        del self._paths[wd]
        try:
            self._inotify.rm_watch(wd)
        except OSError as e:
            if e.errno != errno.EINVAL:  # the kernel has dropped it already, with the directory
                raise

    def read_into(self, events: Events) -> None:
        """Add all that is in the queue now."""
        for event in self._inotify.read(timeout=0):
            self._sort_in(event.wd, event.mask, os.fsencode(event.name), events)

    def close(self) -> None:
        self._inotify.close()

    def _sort_in(self, wd: int, mask: int, name: bytes, events: Events) -> None:
        if mask & OVERFLOW:
            events.overflow = True
        path = self._paths.get(wd)
        if path is None:
            return
        if mask & IGNORED:
            del self._paths[wd], self._wds[path]
            events.replaced.add(path)
        elif mask & OF_DIRECTORY and mask & ENTRIES:
            events.replaced.add(join(path, name))
            events.names.setdefault(path, {})
        else:
            touched = events.names.setdefault(path, {})
            if name:
                touched[name] = _worse(touched.get(name, Touch.ATTRIBUTES), _touch(mask))


def _touch(mask: int) -> Touch:
    if mask & WRITTEN:
        return Touch.WRITTEN
    return Touch.UNKNOWN if mask & ENTRIES else Touch.ATTRIBUTES


def _worse(a: Touch, b: Touch) -> Touch:
    for touch in (Touch.WRITTEN, Touch.UNKNOWN):
        if touch in (a, b):
            return touch
    return Touch.ATTRIBUTES
