"""Hold the directories in which one job's results are placed open, and what entries inherit there.

A new entry gets the group of a directory with the set-group-id bit, and rights from a default
access control list. A file that was written in place keeps its owner, its group and its list. The
kernel does neither for a staged entry, because that stands in another directory at first.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from termite.engine import look_calls
from termite.engine.errors import Reason, Retryable
from termite.engine.look_errors import GONE
from termite.engine.model import Attr, Change
from termite.engine.paths import from_root_down, is_within, split
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.access_lists import ACCESS_LIST, DEFAULT_LIST, granted, requested_mode
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.tree_disk import Disk

MOST_MOVED = 20_000  # entries of a directory that was moved; each costs 5 us
_KEPT = ("user.", "trusted.", "security.capability", ACCESS_LIST, DEFAULT_LIST)


class TargetDirectories:
    """The open directories of one job, by path of the tree. Methods raise OSError."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._fds: dict[bytes, int] = {}
        self._paths: set[bytes] = set()  # directories that are open with O_PATH
        self._found: dict[bytes, os.stat_result] = {}

    def open(self, path: bytes) -> int:
        """Return an fd of a directory, which stays open until `close` or `forget`.

        If we may not list the directory, it is open with O_PATH.
        """
        fd = self._fds.get(path)
        if fd is None:
            try:
                fd = self._disk.open_directory(path)
            except PermissionError:
                fd = self._disk.open_directory(path, os.O_PATH)
                self._paths.add(path)
            self._fds[path] = fd
        return fd

    def itself(self, path: bytes) -> int | bytes:
        """Return an argument by which system calls reach a directory that is open.

        An fd is three times as fast as a path, but not with O_PATH.
        """
        fd = self._fds[path]
        return fd if path not in self._paths else b"/proc/self/fd/%d" % fd

    def opened(self, path: bytes) -> int | None:
        """Return the fd of a directory that is open already, or None."""
        return self._fds.get(path)

    def stands(self, path: bytes) -> bool:
        """Return whether a directory is open, and was not removed since."""
        fd = self._fds.get(path)
        try:
            return fd is not None and look_calls.fstat(fd).st_nlink > 0
        except OSError:  # a network file system may say so
            return False

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the open parent directory of a path, and the name in it."""
        if not path:
            return self.open(path), b"."
        parent, name = split(path)
        return self.open(parent), name

    def look(self, path: bytes) -> os.stat_result | None:
        """Return the entry at a path, or None if there is none."""
        try:
            parent, name = self.parent(path)
            return look_calls.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return None

    def look_at_directory(self, path: bytes) -> os.stat_result | None:
        """Return the same, if the path may be that of an open directory."""
        fd = self.opened(path)
        return self.look(path) if fd is None else look_calls.fstat(fd)

    def found(self, path: bytes) -> os.stat_result:
        """Return the directory as it was at the first call."""
        st = self._found.get(path)
        if st is None:
            st = self._found[path] = look_calls.fstat(self.open(path))
        return st

    def is_locked(self, path: bytes) -> bool:
        """Return whether we own a directory, but may not make entries in it.

        A job may have made the directory writable and then read-only again, as go's module cache
        does.
        """
        if look_calls.has_right(b".", os.W_OK | os.X_OK, dir_fd=self.open(path)):
            return False
        return self.found(path).st_uid == os.geteuid()

    def unlock(self, path: bytes) -> None:
        """Give ourselves all permissions for a directory."""
        mode = look_calls.fstat(self.open(path)).st_mode
        disk_calls.chmod(self.itself(path), stat.S_IMODE(mode) | 0o700)

    def forget(self, path: bytes) -> None:
        """Close and forget a directory that is being removed, and all below it."""
        for below in [p for p in self._fds if is_within(p, path)]:
            os.close(self._fds.pop(below))
            self._paths.discard(below)
        for below in [p for p in self._found if is_within(p, path)]:
            del self._found[below]

    def close(self) -> None:
        """Close all fds."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._paths.clear()


@dataclass(frozen=True, slots=True)
class Access:
    """The group and the default list of a directory; -1 and b"" mean that there is none."""

    gid: int
    acl: bytes


NONE = Access(-1, b"")


class InheritedAccess:
    """The access that one job's results inherit. Methods block, and raise OSError.

    They raise Retryable, with which the command runs on this machine, in two cases. A default list
    would have replaced the umask, and the job may have set a mode or the umask. Or an entry of
    another user or group was replaced or moved, because the new one may have to belong to that one.
    Only a tree that `is_mixed` has such entries.

    `replaced` are paths that are removed before anything is placed. `umask` is that of the job, and
    `may_set_modes` returns whether its command may set modes itself.
    """

    def __init__(
        self,
        directories: TargetDirectories,
        replaced: Collection[bytes],
        umask: int,
        may_set_modes: Callable[[], bool],
        *,
        is_mixed: bool = False,
    ) -> None:
        self._directories = directories
        self._replaced = frozenset(replaced)
        self._umask = umask
        self._may_set_modes = may_set_modes
        self._is_mixed = is_mixed
        self._of: dict[bytes, Access] = {}

    def mode_of(self, change: Change, attr: Attr) -> int:
        """Return the mode of a new entry at its place."""
        if stat.S_ISLNK(attr.mode) or _is_in_place(change):
            return attr.mode
        access = self._access(split(change.path)[0])
        mode = attr.mode
        if access.acl:
            _, mode = granted(access.acl, self._requested(change.path, mode))
        return mode | stat.S_ISGID if access.gid >= 0 and stat.S_ISDIR(mode) else mode

    def apply(self, change: Change, attr: Attr, name: bytes, area: int) -> bool:
        """Give its access to an entry that is staged as `name` in the open directory `area`.

        Return whether anything was changed.
        """
        if _is_in_place(change):
            return self._keep(change.path, attr, name, area)
        access = self._access(split(change.path)[0])
        if self._is_mixed and stat.S_ISREG(attr.mode):
            self._check_owner(change.path, may_give=os.geteuid() == 0)
        if access == NONE:
            return False
        if access.gid >= 0:
            _give(change.path, name, area, -1, access.gid)
        if stat.S_ISLNK(attr.mode):
            return True
        itself = b"/proc/self/fd/%d/%b" % (area, name)
        if access.acl:
            acl, _ = granted(access.acl, self._requested(change.path, attr.mode))
            if acl:
                disk_calls.setxattr(itself, ACCESS_LIST, acl)
            if stat.S_ISDIR(attr.mode):
                disk_calls.setxattr(itself, DEFAULT_LIST, access.acl)
        if not stat.S_ISDIR(attr.mode):  # a directory gets its mode at the end
            disk_calls.chmod(itself, stat.S_IMODE(self.mode_of(change, attr)))
        return True

    def _requested(self, path: bytes, mode: int) -> int:
        if self._may_set_modes():
            raise Retryable(Reason.MODE_SET, repr("/" + os.fsdecode(path)))
        return requested_mode(mode, self._umask)

    def check_moved(self, removed: Iterable[bytes], made: Iterable[Change]) -> None:
        """Check entries that a job has removed, and perhaps moved to the names of those made."""
        times = {(stat.S_IFMT(c.attr.mode), c.attr.mtime_ns) for c in made if c.attr is not None}
        for path in removed:
            if self._is_mixed:
                self._check_owner(path, may_give=True)
            there = self._directories.look(path)
            if there is None or (stat.S_IFMT(there.st_mode), wire_ns(there.st_mtime_ns)) not in times:
                continue
            if found := self._find_attributed(path):
                raise Retryable(Reason.ATTRIBUTES_SET, repr("/" + os.fsdecode(found)))

    def _find_attributed(self, path: bytes) -> bytes:
        """Return an entry at or below a path that has extended attributes, or b"".

        No job sees these. If there are too many entries, return the last one that was looked at.
        """
        parent, name = self._directories.parent(path)
        top = b"/proc/self/fd/%d/%b" % (parent, name)
        waiting, left = [b""], MOST_MOVED
        while waiting:
            below, left = waiting.pop(), left - 1
            if extended_attributes(top + below) or not left:
                return path + below
            if stat.S_ISDIR(look_calls.lstat(top + below).st_mode):
                waiting += [below + b"/" + entry for entry in look_calls.listdir(top + below)]
        return b""

    def _check_owner(self, path: bytes, *, may_give: bool) -> None:
        """Raise Retryable if an entry stands here whose owner or group another one may have to get.

        `may_give`: that is also possible for an owner. Nobody but root gives a new file to another
        user, as `sed -i` and `cp -p` do.
        """
        there = self._directories.look(path)
        if there is None:
            return
        access, uid = self._access(split(path)[0]), os.geteuid()
        gid = access.gid if access.gid >= 0 else os.getegid()
        if (there.st_uid, there.st_gid) != (uid, gid) and (may_give or there.st_uid == uid):
            raise Retryable(Reason.FOREIGN_IDS, repr("/" + os.fsdecode(path)))

    def _keep(self, path: bytes, attr: Attr, name: bytes, area: int) -> bool:
        """Give a file that was written in place what the old one has.

        These are the owner, the group and the extended attributes with the list. The kernel drops
        privileges (`security.capability`) at a write. Raise Retryable if we may not give it.
        """
        there = self._directories.look(path)
        if there is None or not stat.S_ISREG(there.st_mode):
            return False
        parent, old = self._directories.parent(path)
        place = b"/proc/self/fd/%d/%b" % (parent, old)
        attributes = [name for name in extended_attributes(place) if not name.startswith("security.")]
        staged = look_calls.stat(name, dir_fd=area, follow_symlinks=False)
        if (there.st_uid, there.st_gid) == (staged.st_uid, staged.st_gid) and not attributes:
            return False
        _give(path, name, area, there.st_uid, there.st_gid)
        itself = b"/proc/self/fd/%d/%b" % (area, name)
        for attribute in attributes:
            disk_calls.setxattr(itself, attribute, look_calls.getxattr(place, attribute))
        disk_calls.chmod(itself, stat.S_IMODE(attr.mode))
        return True

    def _access(self, directory: bytes) -> Access:
        access = self._of.get(directory)
        if access is None:
            access = self._of[directory] = self._find(directory)
        return access

    def _find(self, directory: bytes) -> Access:
        """Return the access that entries of a directory inherit. A new one has its parent's."""
        if self._replaced and not self._replaced.isdisjoint(from_root_down(directory)):
            return self._access(split(directory)[0])
        try:
            st = self._directories.found(directory)
        except OSError as error:
            if error.errno not in GONE or not directory:
                raise
            return self._access(split(directory)[0])
        gid = st.st_gid if st.st_mode & stat.S_ISGID else -1
        self._directories.open(directory)
        return Access(gid, _read_list(self._directories.itself(directory), DEFAULT_LIST))


def _give(path: bytes, name: bytes, area: int, uid: int, gid: int) -> None:
    """Give a staged entry, which becomes `path`, to a user and a group (-1: leave it).

    Raise Retryable if we may not, or if our user namespace has no such id.
    """
    try:
        disk_calls.chown(name, uid, gid, dir_fd=area, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        raise Retryable(Reason.FOREIGN_IDS, repr("/" + os.fsdecode(path))) from None


def _is_in_place(change: Change) -> bool:
    """Return whether a result was written into a file that was there."""
    return change.base is not None and change.base.size >= 0


def extended_attributes(path: bytes) -> list[str]:
    """Return the names of the attributes that a file keeps when it is moved. Raise OSError."""
    try:
        found = look_calls.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [name for name in found if name.startswith(_KEPT)]


def _read_list(path: int | bytes, name: str) -> bytes:
    try:
        return look_calls.getxattr(path, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return b""
        raise
