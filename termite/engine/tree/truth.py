"""The AttrTree kept equal to the disk.

Three things tell that it is not: inotify, a re-check (of what is settled, because there inotify is not all: another
machine may write there, and there may be more directories than watches), and termite after it has written. Each only
names places to look at; what counts is what is found there now.
"""

import errno
import hashlib
import logging
import os
import stat
import struct
import time
from collections.abc import Iterable, Mapping

import msgspec

from termite.engine.errors import FsError
from termite.engine.model import Attr, Change, Digest
from termite.engine.paths import join, lineage, split
from termite.engine.tree.disk import Disk
from termite.engine.tree.hashes import Hashes, is_racy, stamp_of
from termite.engine.tree.logic.attrs import AttrTree, Events, Inode, Seen, Touch, compare
from termite.engine.tree.logic.exports import PLACES, Exports, Rules, View
from termite.engine.tree.watch import Watches

# A made-up directory's time. Not 0: make and ninja take that for "does not exist".
LONG_AGO_NS = 10**9
# Of every directory: the real one depends on the file system, and on what was in it before.
DIRECTORY_BYTES = 4096

# A drain owes what was done before it began. Others may go on writing all the time.
ROUNDS = 20

# A directory's entries, and its own stat_result where it could be had.
Listed = tuple[dict[bytes, Seen], os.stat_result | None]

log = logging.getLogger(__name__)


class Truth:
    """Says what is there, and what has changed since it was last asked. All methods are synchronous."""

    def __init__(self, disk: Disk, exports: Exports, hashes: Hashes) -> None:
        self.rescans = 0
        self._heard_ns = 0  # when the watches were asked last: what was done before, they have told of
        self.exports = exports
        self.watches = Watches(exports.is_watched)
        self._relinked: set[Inode] = set()  # files that lost a name: the others have not heard of it
        self._lost: set[Inode] = set()  # of these, what went with a directory
        self._disk = disk
        self._hashes = hashes
        top = disk.open_directory(b"", os.O_PATH)
        try:
            self.tree = AttrTree(self.see(b"", top, b"", os.fstat(top)))
        finally:
            os.close(top)

    def serve(self, path: bytes) -> list[Change]:
        """From now on the directory is kept known, and every one above it. Raises FsError where there is none.

        What is found is news only where it differs from what was shown of the directory itself.
        """
        changes: list[Change] = []
        if self.tree.is_served(path):
            return changes
        for directory in lineage(path):
            if self.tree.is_served(directory):
                continue
            seen = self.tree.seen(directory)
            if seen is None:
                raise FsError(errno.ENOENT, path)
            if not seen.is_directory:
                raise FsError(errno.ENOTDIR, path)
            try:
                listing, own = self._list(directory)
            except OSError as e:
                raise FsError(e.errno or errno.EIO, directory) from e
            self.tree.serve(directory, listing)
            self._settle_own(directory, own, changes)
        return changes

    def drain(self) -> list[Change]:
        """Everything that was done in what is watched until now."""
        changes: list[Change] = []
        for directory in sorted(self.watches.unwatched):
            self._list_again(directory, changes)
        for _ in range(ROUNDS):
            if not self._hear(events := Events()):
                break
            self._take_in(events, changes)
        self._look_at_other_names(changes)
        return changes

    def take_in(self, events: Events) -> list[Change]:
        """Look at these places now, and wherever the watches say: they tell of what termite has done as well, and that
        is looked at once."""
        changes: list[Change] = []
        self._hear(events)
        self._take_in(events, changes)
        self._look_at_other_names(changes)
        return changes

    def look_at_links(self, *, are_more_going: bool) -> list[Change]:
        """Directories that were taken out of the tree are gone altogether: what had other names has fewer now.
        `are_more_going`: others are still being emptied, so it is to be looked at again."""
        changes: list[Change] = []
        self._relinked |= self._lost
        if not are_more_going:
            self._lost.clear()
        self._look_at_other_names(changes)
        return changes

    def suspects(self, directory: bytes, listing: Mapping[bytes, Seen]) -> set[bytes] | None:
        """Names in a directory that are not as they were seen; None: list it again. Only reads, for any thread."""
        try:
            fd = self._disk.open_directory(directory, os.O_PATH)
        except OSError:
            return None
        try:
            own = self.tree.seen(directory)
            if own is not None and own.stamp is not None and stamp_of(os.fstat(fd)) != own.stamp:
                return None
            return {name for name, seen in listing.items() if seen.stamp and not _is_as_seen(fd, name, seen)}
        finally:
            os.close(fd)

    def list_again(self, directory: bytes) -> list[Change]:
        """This directory, but not what is below."""
        changes: list[Change] = []
        if self.tree.is_served(directory):
            self._list_one(directory, Touch.UNKNOWN, changes)
        return changes

    def see(self, directory: bytes, fd: int, name: bytes, st: os.stat_result) -> Seen:
        """What a stat_result of an entry means."""
        is_directory = stat.S_ISDIR(st.st_mode)
        stamp = stamp_of(st)
        if is_directory:
            return Seen(Attr(st.st_mode, DIRECTORY_BYTES, st.st_mtime_ns), stamp)
        target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(st.st_mode) else b""
        is_file = stat.S_ISREG(st.st_mode)
        attr = Attr(
            mode=st.st_mode,
            size=st.st_size,
            mtime_ns=st.st_mtime_ns,
            digest=self._hashes.find(stamp) if is_file else None,
            target=target,
            nlink=st.st_nlink,
            link_id=_link_id(st) if st.st_nlink > 1 else 0,
        )
        return Seen(attr, stamp, is_racy(st, self._heard_ns))

    # -- taking in what has changed -----------------------------------------------------------------------------------

    def _hear(self, events: Events) -> bool:
        """Add what the watches tell. False: there is nothing to look at."""
        self._heard_ns = time.time_ns()
        self.watches.read_into(events)
        return bool(events)

    def _take_in(self, events: Events, changes: list[Change]) -> None:
        """Watches of what was moved are dropped before anything is watched: both names have the same inode."""
        if events.overflow:
            log.info("watch-overflow directories=%d", len(self.watches))
            self.rescans += 1
            for directory in self.tree.served_within(b""):
                self.watches.drop(directory)
            self._list_again(b"", changes)
            return
        for path in events.replaced:
            for directory in self.tree.served_within(path):
                self.watches.drop(directory)
        for path in sorted(events.replaced):
            self._look_at_directory(path, changes)
        for directory in sorted(events.names):
            self._look_again(directory, events.names[directory], changes)

    def _look_at_other_names(self, changes: list[Change]) -> None:
        """inotify names the link that was used: what was done to a file with several names is done to all of them."""
        linked = {change.path: change.attr for change in changes if change.attr is not None and change.attr.nlink > 1}
        inodes = self._inodes(linked) | self._relinked
        if not inodes:
            return
        events = Events()
        for path in self.tree.names_of(inodes) - linked.keys():
            events.touch(path, Touch.UNKNOWN)
        self._take_in(events, changes)
        for path in self.tree.names_of(self._inodes(path for path, attr in linked.items() if not attr.link_id)):
            self._void(path, changes)
        self._relinked.clear()

    def _inodes(self, paths: Iterable[bytes]) -> set[Inode]:
        return {seen.stamp.inode for path in paths if (seen := self.tree.seen(path)) and seen.stamp}

    def _void(self, path: bytes, changes: list[Change]) -> None:
        """What was known of this file's content: it was written by another of its names, and the stamp does not show
        it."""
        seen = self.tree.seen(path)
        if seen is None or seen.stamp is None or (seen.attr.digest is None and not seen.attr.link_id):
            return
        self._hashes.forget(seen.stamp)
        attr = msgspec.structs.replace(seen.attr, digest=None, link_id=0)
        self.tree.put(path, seen._replace(attr=attr))
        changes.append(Change(path, attr))

    def _look_at_directory(self, path: bytes, changes: list[Change]) -> None:
        """Something happened to a directory of this name: it, and everything known below, is compared anew."""
        parent, name = split(path)
        was_served = self.tree.is_served(path)
        if self.tree.is_served(parent):
            self._look_again(parent, {name: Touch.UNKNOWN}, changes)
        if was_served and self.tree.is_served(path) and not self.watches.is_watched(path):
            self._list_again(path, changes)

    def _look_again(self, directory: bytes, touched: Mapping[bytes, Touch], changes: list[Change]) -> None:
        if not self.tree.is_served(directory):
            return
        try:
            fd = self._disk.open_directory(directory, os.O_PATH)
        except OSError:
            return  # it is gone or replaced: the events of its parent say so
        try:
            found = self._look(directory, fd, touched)
            own = os.fstat(fd)
        finally:
            os.close(fd)
        for name, touch in touched.items():
            self._settle(join(directory, name), found.get(name), touch, changes)
        if self.watches.is_watched(directory):  # else something else may have come into it, which its stamp is to show
            self._settle_own(directory, own, changes)

    def _list_again(self, top: bytes, changes: list[Change]) -> None:
        """Watch and list it, and all that is served below, and take in the differences. Nothing has told of them."""
        for directory in list(self.tree.served_within(top)):
            if self.tree.is_served(directory):  # else it has gone with one above it
                self._list_one(directory, Touch.WRITTEN, changes)

    def _list_one(self, directory: bytes, touch: Touch, changes: list[Change]) -> None:
        old = self.tree.listing(directory)
        new, own = self._list_or_retry(directory)
        for name in sorted(old.keys() | new.keys()):
            self._settle(join(directory, name), new.get(name), touch, changes)
        self._settle_own(directory, own, changes)

    def _settle(self, path: bytes, new: Seen | None, touch: Touch, changes: list[Change]) -> None:
        """The name at `path` is now `new`: record it, and say what is different."""
        old = self.tree.seen(path)
        if old is not None and old.stamp and old.attr.link_id and (new is None or new.stamp != old.stamp):
            self._relinked.add(old.stamp.inode)
        if old is not None and (new is None or old.is_directory != new.is_directory):
            for directory in self.tree.served_within(path):
                self.watches.drop(directory)
                # The files in it may have other names elsewhere, whose link count is another one now.
                self._lost.update(
                    seen.stamp.inode
                    for seen in self.tree.listing(directory).values()
                    if seen.stamp and seen.attr.link_id
                )
                self._relinked |= self._lost
            self.tree.drop(path)
            changes.append(Change(path, None))
            old = None
        if new is None:
            return
        if touch is Touch.WRITTEN and new.attr.digest and new.stamp and (old is None or old.stamp != new.stamp):
            # Somebody has written to what a job has just brought, whose digest was kept under the stamp of that moment.
            self._hashes.forget(new.stamp)
            new = new._replace(attr=msgspec.structs.replace(new.attr, digest=None))
        found = new.attr.digest
        new, change = compare(path, old, new, touch)
        self._learn(found, new)
        self.tree.put(path, new)
        if change is not None:
            changes.append(change)
        if old is None and new.is_directory and self.exports.is_watched(path):
            self._follow(path, changes)

    def _settle_own(self, directory: bytes, own: os.stat_result | None, changes: list[Change]) -> None:
        old = self.tree.seen(directory)
        if own is not None and old is not None and old.stamp is not None:
            self._settle(directory, self.see(directory, -1, b"", own), Touch.ATTRIBUTES, changes)

    def _follow(self, top: bytes, changes: list[Change]) -> None:
        """A new directory of builds: whoever hears of it believes that it is empty, so everything in it must follow."""
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            listing, own = self._list_or_retry(directory)
            self.tree.serve(directory, listing)
            self._settle_own(directory, own, changes)
            for name in sorted(listing):
                path = join(directory, name)
                changes.append(Change(path, listing[name].attr))
                if listing[name].is_directory:
                    waiting.append(path)

    def _learn(self, found: Digest | None, new: Seen) -> None:
        """`found`: what the hashes have for its stamp."""
        if new.stamp is None:
            return
        if new.attr.digest is not None:
            self._hashes.remember(new.stamp, new.attr.digest)
        elif found is not None:  # written again, and the stamp does not show it
            self._hashes.forget(new.stamp)

    # -- reading the disk ---------------------------------------------------------------------------------------------

    def _list_or_retry(self, directory: bytes) -> Listed:
        """What cannot be listed counts as empty."""
        try:
            return self._list(directory)
        except OSError as e:
            log.debug("directory-unreadable path=%r reason=%s", directory, e)
            self.watches.list_always(directory)
            return {}, None

    def _list(self, directory: bytes) -> Listed:
        """Watched first where it is to be: nothing can happen between the two unnoticed."""
        rules = self.exports.rules(directory)
        if rules.view is not View.WHOLE and not (rules.view is View.PUBLIC and self._is_open(directory)):
            return self._list_way(directory, rules)
        fd = self._disk.open_directory(directory)
        try:
            self.watches.watch(directory, fd)
            return self._look(directory, fd, map(os.fsencode, os.listdir(fd))), os.fstat(fd)
        finally:
            os.close(fd)

    def _list_way(self, directory: bytes, rules: Rules) -> Listed:
        if not rules.way:
            return {}, None
        try:
            fd = self._disk.open_directory(directory, os.O_PATH)
        except FileNotFoundError:  # made up
            return _places(directory, rules), None
        try:
            return self._look(directory, fd, rules.way), os.fstat(fd)
        finally:
            os.close(fd)

    def _look(self, directory: bytes, fd: int, names: Iterable[bytes]) -> dict[bytes, Seen]:
        """The named entries that are there and may be shown."""
        rules = self.exports.rules(directory)
        is_open = rules.view is View.PUBLIC and self._is_open(directory)
        found = _places(directory, rules)
        for name in names:
            if name in found:
                continue
            try:
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if self.exports.shows(rules, is_open, directory, name, st.st_mode):
                    found[name] = self.see(directory, fd, name, st)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.EINVAL):  # gone, or no symlink any more: its event will come
                    log.debug("entry-unreadable path=%r reason=%s", join(directory, name), e)
        return found

    def _is_open(self, directory: bytes) -> bool:
        """May everybody on this machine list it?"""
        modes = [seen.attr.mode for d in lineage(directory) if (seen := self.tree.seen(d)) is not None]
        return all(mode & 0o001 for mode in modes) and bool(modes[-1] & 0o004)


def _places(directory: bytes, rules: Rules) -> dict[bytes, Seen]:
    """The directories of PLACES in this one."""
    found = {}
    for name in rules.way:
        path = join(directory, name)
        if path in PLACES:
            found[name] = _made_up(PLACES[path])
    return found


def _made_up(mode: int) -> Seen:
    return Seen(Attr(stat.S_IFDIR | mode, DIRECTORY_BYTES, LONG_AGO_NS))


def _is_as_seen(fd: int, name: bytes, seen: Seen) -> bool:
    try:
        return stamp_of(os.stat(name, dir_fd=fd, follow_symlinks=False)) == seen.stamp
    except OSError:
        return False


def _link_id(st: os.stat_result) -> int:
    """Equal for the names of one inode in one state, never 0, and tells nobody an inode number.

    The ctime moves with every write and every name: what was seen before and after one are told apart.
    """
    state = struct.pack("<QQq", st.st_dev, st.st_ino, st.st_ctime_ns)
    inode = hashlib.blake2b(state, digest_size=7).digest()
    return int.from_bytes(inode, "big") + 1
