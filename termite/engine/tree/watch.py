"""Watch directories by inotify, and collect the names to which something happened.

The kernel queues an event before the system call that caused it returns. If the queue has been
drained, everything done before is known. But an event only names a place to check. The watched
directory may have been moved by the time its events are read.

Other programs change *crowded* directories, such as /tmp, all the time. They have a queue of their
own: if it overflows while nobody builds, only they are listed again. In a crowded directory, a
write is reported when the file is closed.
"""

import errno
import fcntl
import logging
import os
import struct
import sys
import termios
import time
from collections.abc import Callable

from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # it has no stubs

from termite.engine import look_calls
from termite.engine.errors import Reason, Retryable, UserError
from termite.engine.paths import join
from termite.engine.tree.logic.attrs import Events, Touch, worst_touch

# These are plain integers because an operation on the enum flags takes a microsecond.
WRITTEN = int(flags.MODIFY | flags.CLOSE_WRITE)
ENTRIES = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
OF_DIRECTORY = int(flags.ISDIR)
IGNORED = int(flags.IGNORED)
OVERFLOW = int(flags.Q_OVERFLOW)
MASK = WRITTEN | ENTRIES | flags.ATTRIB | flags.ONLYDIR | flags.EXCL_UNLINK
CROWDED_MASK = int(MASK) & ~int(flags.MODIFY)

# A worker may ask for all directories that it may see. Half of the user's watches stay for the tree
# and for other programs.
SETTLED_PART = 2
_MAX_WATCHES = "/proc/sys/fs/inotify/max_user_watches"
_EVENT = struct.Struct("=iIII")  # struct inotify_event of inotify(7), which a padded name follows
_NOTHING = bytes(4)

log = logging.getLogger(__name__)


class _Queue:
    """A queue of the kernel with the events of directories, which are known by watch numbers."""

    def __init__(self) -> None:
        """Raise UserError if the user has no inotify instance left."""
        try:
            self.inotify = INotify(nonblocking=True)
        except OSError as e:
            raise UserError(
                f"inotify: {os.strerror(e.errno or 0)}", hint="as root: sysctl -w fs.inotify.max_user_instances=1024"
            ) from e
        self.paths: dict[int, bytes] = {}


class Watches:
    """Watched directories by path.

    `is_volatile` returns whether a path may change in the midst of a build. Volatile directories
    that could not be watched are in `unwatched` and must be listed at every drain. Others that
    could not be watched are not in it; a re-check covers them. `is_crowded` returns whether other
    programs change a directory all the time. `read_at_ns` is the time at which the queues were read
    last, 0 before that.
    """

    def __init__(
        self, is_volatile: Callable[[bytes], bool], is_crowded: Callable[[bytes], bool] = lambda path: False
    ) -> None:
        """Raise UserError if the user has no inotify instance left."""
        self._is_volatile = is_volatile
        self._is_crowded = is_crowded
        self._is_limit_reported = False
        self.read_at_ns = 0
        self._queue = _Queue()
        self._crowd: _Queue | None = None  # made for the first crowded directory
        self._most_settled = _most_watches() // SETTLED_PART
        self.unwatched: set[bytes] = set()
        self._wds: dict[bytes, tuple[_Queue, int]] = {}

    def __len__(self) -> int:
        return len(self._wds)

    @property
    def is_limited(self) -> bool:
        """True if the kernel has refused a watch, so that not all changes are reported."""
        return self._is_limit_reported

    def is_watched(self, path: bytes) -> bool:
        """Return whether a watch reports events of the directory under this path."""
        return path in self._wds

    def watch(self, path: bytes, fd: int) -> None:
        """Report events of the directory that is open as `fd` under `path` from now on.

        If the kernel refuses the watch, log the first such refusal and call `list_always`. If the
        same directory is watched under another path, one of the two paths loses the watch.
        """
        is_crowded = self._is_crowded(path)
        queue = self._crowd_queue() if is_crowded else self._queue
        try:
            if len(self._wds) >= self._most_settled and not self._is_volatile(path):
                raise OSError(errno.ENOSPC, "the rest is for other programs")
            wd = queue.inotify.add_watch(b"/proc/self/fd/%d" % fd, CROWDED_MASK if is_crowded else MASK)
        except OSError as e:
            if e.errno != errno.EACCES and not self._is_limit_reported:
                self._is_limit_reported = True
                log.warning(
                    "watch-limit-reached path=%r hint='raise sysctl fs.inotify.max_user_watches' reason=%s", path, e
                )
            self.list_always(path)
            return
        other = queue.paths.get(wd)
        if other is not None and other != path:  # a bind mount shows it twice, or it is being moved
            if self._is_volatile(other) and not self._is_volatile(path):
                return
            del self._wds[other], queue.paths[wd]
            self.list_always(other)
        if self._wds.get(path, (queue, wd)) != (queue, wd):  # another directory has got this name
            self.drop(path)
        self.unwatched.discard(path)
        queue.paths[wd] = path
        self._wds[path] = queue, wd

    def list_always(self, path: bytes) -> None:
        """Record that a directory has no watch. A volatile one is listed again at every drain.

        This is for a directory that cannot be read, or for which no watch is left.
        """
        self.drop(path)
        if self._is_volatile(path):
            self.unwatched.add(path)

    def drop(self, path: bytes) -> None:
        """Remove the watch of a path, if any, and no longer list it at every drain."""
        self.unwatched.discard(path)
        found = self._wds.pop(path, None)
        if found is None:
            return
        queue, wd = found
        del queue.paths[wd]
        try:
            queue.inotify.rm_watch(wd)
        except OSError as e:
            if e.errno != errno.EINVAL:  # the kernel has dropped it already, with the directory
                raise

    def read_into(self, events: Events) -> None:
        """Move all events that are in the queues now to `events`. Do not wait for more.

        Raise Retryable if a queue cannot be read.
        """
        self.read_at_ns = time.time_ns()
        self._read_queue(self._queue, events)
        if self._crowd is not None:
            self._read_queue(self._crowd, events)

    def close(self) -> None:
        """Close inotify, which drops every watch."""
        self._queue.inotify.close()
        if self._crowd is not None:
            self._crowd.inotify.close()

    def _crowd_queue(self) -> _Queue:
        """Return the queue of crowded directories.

        If the user has no instance left, they share the other one.
        """
        if self._crowd is None:
            try:
                self._crowd = _Queue()
            except UserError:
                return self._queue
        return self._crowd

    def _read_queue(self, queue: _Queue, events: Events) -> None:
        fd = queue.inotify.fd
        length = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, _NOTHING), sys.byteorder)
        if not length:
            return  # in most cases; each job asks three times
        try:
            content = look_calls.read(fd, length)
        except OSError as error:
            raise Retryable(Reason.LOOK_FAILED, f"inotify: {os.strerror(error.errno or 0)}") from error
        at = 0
        while at < len(content):
            wd, mask, _, name_length = _EVENT.unpack_from(content, at)
            at += _EVENT.size + name_length
            if mask & OVERFLOW:
                self._note_overflow(queue, events)
            self._sort_in(queue, wd, mask, content[at - name_length : at].partition(b"\0")[0], events)

    def _note_overflow(self, queue: _Queue, events: Events) -> None:
        if queue is not self._crowd:
            events.overflow = True
            return
        log.info("watch-overflow-crowded directories=%d", len(queue.paths))
        events.relisted.update(queue.paths.values())

    def _sort_in(self, queue: _Queue, wd: int, mask: int, name: bytes, events: Events) -> None:
        path = queue.paths.get(wd)
        if path is None:
            return
        if mask & IGNORED:
            del queue.paths[wd], self._wds[path]
            events.replaced.add(path)
        elif mask & OF_DIRECTORY and mask & ENTRIES:
            events.replaced.add(join(path, name))
            events.names.setdefault(path, {})
            events.own.add(path)
        else:
            touched = events.names.setdefault(path, {})
            if name:
                touched[name] = worst_touch(touched.get(name, Touch.ATTRIBUTES), _touch(mask))
            else:
                events.own.add(path)


def _touch(mask: int) -> Touch:
    if mask & WRITTEN:
        return Touch.WRITTEN
    return Touch.UNKNOWN if mask & ENTRIES else Touch.ATTRIBUTES


def _most_watches() -> int:
    """Return how many directories a user may watch."""
    try:
        with open(_MAX_WATCHES) as file:
            return int(file.read())
    except OSError:
        return sys.maxsize
