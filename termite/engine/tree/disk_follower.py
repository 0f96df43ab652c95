"""Keep the AttrTree equal to the master's disk, and report each difference as a change.

Places to check are named by inotify, by re-checks of the settled tree, and by termite itself after
it has written. Re-checks are needed because inotify reports neither the writes of another machine
nor, if there are more directories than watches, those of this one. An event only names a place to
check; the disk decides what is true.

Three verbs are used. *Read* takes entries from the disk (`DirectoryReader`), *check* compares a
place of the disk with the AttrTree, and *record* writes one entry into the AttrTree.

A look may fail (EIO): nobody then knows what is at the place. It keeps its entry and is checked
again by the next drain, and no drain succeeds before a look has. If a directory refuses to be
opened (EACCES), its places are checked again as well, by every drain until it does not. No drain
fails because of that: local commands are refused, too.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from termite.engine.errors import Retryable, Stale
from termite.engine.look_errors import GONE
from termite.engine.model import Change
from termite.engine.paths import from_root_down, join, split
from termite.engine.tree.directory_reader import DirectoryClosed, DirectoryReader
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.logic.attrs import AttrTree, Events, Inode, Seen, Touch, compare_entry
from termite.engine.tree.logic.failed_looks import FailedLooks
from termite.engine.tree.logic.outside_entries import OutsideEntries
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.tools.private_entries import refusal_of
from termite.engine.tree.tree_disk import Disk
from termite.engine.tree.watch import Watches

# A drain must report everything that was done before it began. Other programs may go on writing, so
# it must end.
ROUNDS = 20

log = logging.getLogger(__name__)


class DiskFollower:
    """The AttrTree of one master, and the watches and checks that keep it true.

    All methods are synchronous and block as far as the disk does. Those that return changes return
    them in the order in which a mirror must apply them.
    """

    def __init__(self, disk: Disk, exports: Exports, hashes: Hashes) -> None:
        """Read the root directory. Raise OSError if this fails, UserError without inotify."""
        self.exports, self.rescans = exports, 0
        self.watches = Watches(exports.is_volatile, exports.is_crowded)
        self.outside = OutsideEntries(exports.writable_root)
        self._relinked: set[Inode] = set()  # files that lost a name; their other names must be checked
        self.lost: set[Inode] = set()  # those of them that lost it together with its directory
        self._changes: list[Change] = []  # recorded, but not yet returned
        self._failed = FailedLooks()
        self._disk, self._hashes = disk, hashes
        self.reader = DirectoryReader(disk, exports, hashes, self.watches, lambda path: self.tree.seen(path))
        self.tree = AttrTree(self.reader.read_root())

    def serve(self, path: bytes, asker: str = "") -> list[Change]:
        """Load a directory and every one above it, and keep them known from now on.

        `asker` is the worker for which directories outside the tree are counted.
        Entries that were not known before are no changes. The directories themselves are, if they
        differ from what their parents' listings showed. Raise FsError if the directory cannot be
        listed; the job that asked has that error. Raise Stale if there is no such directory, or no
        longer: whoever asks was shown one. Raise Retryable if a look fails, or if there are too
        many entries.
        """
        changes = self._changes
        if self.tree.is_served(path):
            return self._pop_changes()
        for directory in from_root_down(path):
            if self.tree.is_served(directory):
                continue
            seen = self.tree.seen(directory)
            if seen is None or not seen.is_directory:
                raise Stale(path)
            self.outside.check_room(directory, asker)
            try:
                listing, own = self.reader.read_directory(directory)
            except OSError as error:
                if error.errno in GONE and _is_replaced(self, directory, seen):
                    raise Stale(path) from error
                raise refusal_of(self._disk, self.exports, directory, error) from error
            self.tree.serve(directory, listing)
            self.outside.add(directory, len(listing), asker)
            self._record_own(directory, own, changes)
        return self._pop_changes()

    def drain(self, *, is_trash_left: bool = True) -> list[Change]:
        """Check everything that was done until now, and list the directories without a watch.

        Raise Retryable, for the scheduler, if a look has failed. No event and no change is lost
        then: the next call checks the place again, and returns all changes. `is_trash_left`:
        directories that a job has removed are not empty yet, see `check_link_counts`.
        """
        changes = self._changes
        with self._failed.kept_if_broken_off():
            if self.reader.refused or not self._failed.are_none:
                _check_failed(self, changes)
            for directory in sorted(self.watches.unwatched):
                self._check_all_within(directory, changes)
            for _ in range(ROUNDS):
                self.watches.read_into(events := Events())
                if not events:
                    break
                self._check_events(events, changes)
            self._check_other_names(changes)
        if self.lost and not is_trash_left:  # a local command removes the files before the directory
            self.lost.clear()
        self._seal()
        self._failed.raise_last()
        return self._pop_changes()

    def check(self, events: Events) -> list[Change]:
        """Check the places that `events` name, and those that the watches report.

        The watches also report what termite itself has done. Both are therefore checked together,
        so that no place is checked twice. If a look fails, the next drain checks the place again.
        """
        changes = self._changes
        with self._failed.kept_if_broken_off():
            with suppress(Retryable):  # the queue keeps what could not be read
                self.watches.read_into(events)
            self._check_events(events, changes)
            self._check_other_names(changes)
        return self._pop_changes()

    def check_link_counts(self, *, is_more_trash_left: bool) -> list[Change]:
        """Check the files that had a name in a directory that was removed.

        Call it when the removed directories have been emptied. If `is_more_trash_left`, the same
        files are checked again at the next call.
        """
        self._relinked |= self.lost
        if not is_more_trash_left:
            self.lost.clear()
        with self._failed.kept_if_broken_off():
            self._check_other_names(self._changes)
        return self._pop_changes()

    def check_directory(self, directory: bytes) -> list[Change]:
        """List one directory again, but none below it. One that was never served has no changes."""
        if self.tree.is_served(directory):
            with self._failed.kept_if_broken_off():
                self._check_listing(directory, Touch.UNKNOWN, self._changes)
        return self._pop_changes()

    # -- looks that fail ----------------------------------------------------------------------------------------------

    def _seal(self) -> None:
        """Seal the private files to which new symlinks lead."""
        for directory in filter(self.tree.is_served, self.reader.notes.seal(self._failed.note)):
            with self._failed.kept_if_broken_off():
                self._check_listing(directory, Touch.UNKNOWN, self._changes)

    def _pop_changes(self) -> list[Change]:
        self._seal()
        changes, self._changes = self._changes, []
        return changes

    # -- checking -----------------------------------------------------------------------------------------------------

    def _check_events(self, events: Events, changes: list[Change]) -> None:
        """Check every place that the events name.

        The watches of moved directories are dropped before anything is watched anew. The old and
        the new name have the same inode, and one inode has one watch.
        """
        if events.overflow:
            log.info("watch-overflow directories=%d", len(self.watches))
            self.rescans += 1
            for directory in self.tree.served_within(b""):
                self.watches.drop(directory)
            self._check_all_within(b"", changes)
            return
        for directory in filter(self.tree.is_served, sorted(events.relisted)):
            self._check_listing(directory, Touch.WRITTEN, changes)
        for path in events.replaced:
            for directory in self.tree.served_within(path):
                self.watches.drop(directory)
        for path in sorted(events.replaced):
            self._check_replaced(path, changes)
        for directory in sorted(events.names):
            if (names := events.without_own(directory, self._is_followed)) is not None:
                self._check_names(directory, names, changes)

    def _is_followed(self, directory: bytes) -> bool:
        is_live = self.exports.is_live(split(directory)[0])
        return is_live and self.tree.is_served(directory) and self.watches.is_watched(directory)

    def _check_other_names(self, changes: list[Change]) -> None:
        """Check all other names of the files that have changed.

        inotify reports only the name that was used, but a write through one hard link changes what
        every other name of the file shows.
        """
        linked = {change.path: change.attr for change in changes if change.attr is not None and change.attr.nlink > 1}
        inodes = self.tree.inodes_of(linked) | self._relinked if linked else self._relinked
        if not inodes:
            return
        events = Events()
        for path in self.tree.names_of(inodes) - linked.keys():
            events.touch(path, Touch.UNKNOWN)
        self._check_events(events, changes)
        for path in self.tree.names_of(self.reader.link_ids.take_renewed()):
            _record_unknown_content(self, path, changes)
        self._relinked.clear()

    def _check_replaced(self, path: bytes, changes: list[Change]) -> None:
        """Check a name whose directory was made, removed or moved, and everything below it."""
        parent, name = split(path)
        was_served = self.tree.is_served(path)
        if self.tree.is_served(parent) and not self._check_names(parent, {name: Touch.UNKNOWN}, changes):
            self._failed.events.replaced.add(path)
            return
        if was_served and self.tree.is_served(path) and not self.watches.is_watched(path):
            self._check_all_within(path, changes)

    def _check_names(self, directory: bytes, touched: Mapping[bytes, Touch], changes: list[Change]) -> bool:
        """Check some names of a directory. If it refuses, or a look failed, return False."""
        if not self.tree.is_served(directory):
            return True
        try:
            found, own = self.reader.read_names(directory, touched)
        except OSError as refusal:
            if refusal.errno in GONE:
                return True  # an event of its parent reports it
            self._failed.note_names(directory, touched, None)
            return False
        except Retryable as error:
            self._failed.note_names(directory, touched, error)
            return False
        for name, touch in touched.items():
            self._record(join(directory, name), found.get(name), touch, changes)
        # Without a watch other entries may be new as well. Only the old stamp lets a re-check find
        # them, so it is kept.
        if self.watches.is_watched(directory):
            self._record_own(directory, own, changes)
        return True

    def _check_all_within(self, top: bytes, changes: list[Change]) -> None:
        """Watch and list `top`, and everything served below it.

        Files count as written, because no event excludes that.
        """
        for directory in list(self.tree.served_within(top)):
            if self.tree.is_served(directory):  # else it was dropped together with one above it
                self._check_listing(directory, Touch.WRITTEN, changes)

    def _check_listing(self, directory: bytes, touch: Touch, changes: list[Change]) -> None:
        try:
            new, own = self.reader.read_directory_or_nothing(directory)
        except Retryable as error:
            self._failed.note_directory(directory, error)
            return
        except DirectoryClosed:
            _stop_serving(self, directory, changes)
            return
        old = self.tree.listing(directory)
        for name in sorted(old.keys() | new.keys()):
            self._record(join(directory, name), new.get(name), touch, changes)
        self._record_own(directory, own, changes)

    # -- recording ----------------------------------------------------------------------------------------------------

    def _record(self, path: bytes, new: Seen | None, touch: Touch, changes: list[Change]) -> None:
        """Record `new` as the entry at `path` (None: there is none), and append the difference."""
        old = self.tree.seen(path)
        if old is not None and old.stamp and old.attr.link_id and (new is None or new.stamp != old.stamp):
            self._relinked.add(old.stamp.inode)
        if old is not None and (new is None or old.is_directory != new.is_directory):
            self._record_gone(path, changes)
            old = None
        if new is None:
            return
        if touch is Touch.WRITTEN and new.attr.digest and new.stamp and (old is None or old.stamp != new.stamp):
            # Another program may have written to a result in the tick in which it was placed. The
            # hashes have the digest of the job's content under the very stamp that is found now.
            self._hashes.forget(new.stamp)
            new = new._replace(attr=msgspec.structs.replace(new.attr, digest=None))
        found = new.attr.digest
        new, change = compare_entry(path, old, new, touch, self.reader.link_ids.renew)
        if new.stamp is not None:
            self._hashes.keep(new.stamp, new.attr.digest, found)
        self.tree.put(path, new)
        if change is not None:
            changes.append(change)
        if old is None and new.is_directory and self.exports.is_volatile(path):
            self._record_new_directory(path, changes)

    def _record_gone(self, path: bytes, changes: list[Change]) -> None:
        """Record that the name is gone, or is about to be given to something of another kind."""
        for directory in self.tree.served_within(path):
            self.watches.drop(directory)
            self.outside.drop(directory)
            # The files in it may have other names elsewhere, and those now show another link count.
            self.lost.update(
                seen.stamp.inode for seen in self.tree.listing(directory).values() if seen.stamp and seen.attr.link_id
            )
            self._relinked |= self.lost
        self.tree.drop(path)
        changes.append(Change(path, None))

    def _record_own(self, directory: bytes, own: os.stat_result | None, changes: list[Change]) -> None:
        """Record the attributes of a directory itself.

        Do nothing if `own` is None or the directory is made up.
        """
        old = self.tree.seen(directory)
        if own is not None and old is not None and old.stamp is not None:
            self._record(directory, self.reader.to_seen(-1, b"", own), Touch.ATTRIBUTES, changes)

    def _record_new_directory(self, top: bytes, changes: list[Change]) -> None:
        """Record everything in a new volatile directory.

        A mirror that gets the change of the directory takes it for empty, so its entries must
        follow as changes of their own.
        """
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            try:
                listing, own = self.reader.read_directory_or_nothing(directory)
            except Retryable as error:
                self._failed.note_directory(directory, error)
                listing, own = {}, None  # until the next drain, and no job starts before that
            except DirectoryClosed:
                self.reader.notes.turns += 1  # else a mirror would take it for empty
                continue
            self.tree.serve(directory, listing)
            self._record_own(directory, own, changes)
            for name in sorted(listing):
                path = join(directory, name)
                changes.append(Change(path, listing[name].attr))
                if listing[name].is_directory:
                    waiting.append(path)


def _stop_serving(follower: DiskFollower, directory: bytes, changes: list[Change]) -> None:
    """Forget what is in our own directory, which must not be listed any more.

    A request for it is refused from then on. Mirrors that know it get a new lease.
    """
    seen = follower.tree.seen(directory)
    follower._record_gone(directory, changes)
    if seen is not None:
        follower.tree.put(directory, seen)
        changes.append(Change(directory, seen.attr))
    follower.reader.notes.turns += 1


def _check_failed(follower: DiskFollower, changes: list[Change]) -> None:
    """Check every place again at which a look failed, or an entry could not be inspected."""
    events, unlisted = follower._failed.take()
    for directory in sorted(unlisted - {b""}):  # it may be no directory any more
        follower._check_names(split(directory)[0], {split(directory)[1]: Touch.UNKNOWN}, changes)
    for directory in sorted(unlisted):
        for below in follower.tree.served_within(directory):
            follower.watches.drop(below)
        follower._check_all_within(directory, changes)
    if events:
        follower._check_events(events, changes)
    for directory, names in list(follower.reader.refused.items()):
        if not follower.tree.is_served(directory):
            del follower.reader.refused[directory]
        elif follower.exports.is_volatile(directory):
            follower._check_names(directory, dict.fromkeys(names, Touch.WRITTEN), changes)


def _is_replaced(follower: DiskFollower, directory: bytes, seen: Seen) -> bool:
    """Return whether a missing directory is not as `seen`. Else local commands miss it, too."""
    events = Events()
    events.touch_way(directory)
    with follower._failed.kept_if_broken_off():
        follower._check_events(events, follower._changes)
    now = follower.tree.seen(directory)
    return now is None or not now.is_directory or now.stamp != seen.stamp


def _record_unknown_content(follower: DiskFollower, path: bytes, changes: list[Change]) -> None:
    """Record that a file was written through another of its names, without a new stamp."""
    seen = follower.tree.seen(path)
    if seen is None or seen.stamp is None:
        return
    attr = msgspec.structs.replace(seen.attr, digest=None, link_id=follower.reader.link_ids.number(seen.stamp))
    if attr == seen.attr:
        return
    follower._hashes.forget(seen.stamp)
    follower.tree.put(path, seen._replace(attr=attr))
    changes.append(Change(path, attr))
