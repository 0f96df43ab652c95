"""Record what mirrors have been shown of the master's files: the listing of every served directory.

The parent of a served directory is served too. A directory that was never served is unknown here,
because no mirror needs its changes.
"""

import enum
import hashlib
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from termite.engine.model import Attr, Change
from termite.engine.paths import from_root_down, join, split

Inode = tuple[int, int]  # device and number
# Up to so many inode numbers are searched for one by one in the packed numbers of each directory.
FEW = 8
# Files whose names are kept. If there are more, all are searched for again, which bounds memory to
# a megabyte.
NAMES_LIMIT = 4096
RENEWED_LIMIT = 4096  # states; one that is forgotten only costs its names their common number
FEW_NAMES = 512  # below so many, files that have no name any more are not looked for


class Stamp(NamedTuple):
    """A mark of one state of a file, as exact as the kernel allows.

    An equal inode number alone proves nothing, because the kernel reuses the numbers of removed
    files.
    """

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def inode(self) -> Inode:
        """Return the file's identity among all files that exist at the same time."""
        return self[:2]


class Seen(NamedTuple):
    """An entry as it was found at a path.

    `stamp` is None for a directory that termite made up (/proc, /tmp). `racy`: the entry had
    changed less than two clock ticks before the watches were last read, or after that. Another
    write could therefore leave the same stamp.
    """

    attr: Attr
    stamp: Stamp | None = None
    racy: bool = False

    @property
    def is_directory(self) -> bool:
        """Return whether the entry is a directory."""
        return stat.S_ISDIR(self.attr.mode)


class Touch(enum.Enum):
    """The kind of event that is known to have happened to a name."""

    ATTRIBUTES = "attributes"  # mode, times or link count changed, but not the content
    WRITTEN = "written"  # the content was written, or no event excludes it
    UNKNOWN = "unknown"  # made, removed, moved, or checked for another reason


def worst_touch(a: Touch, b: Touch) -> Touch:
    """Return the one of two touches that excludes less."""
    for touch in (Touch.WRITTEN, Touch.UNKNOWN):
        if touch in (a, b):
            return touch
    return Touch.ATTRIBUTES


@dataclass(slots=True)
class Events:
    """The places that must be checked.

    `names` are grouped by directory; if a directory has none, only its own attributes may have
    changed. `own` are directories of which this is reported, with or without names. `replaced` are
    directories that were made, removed or moved, or whose watch is gone. `relisted` are directories
    whose events are lost, so that they must be listed again. `overflow`: the kernel has lost events
    of all other directories, so everything must be checked.
    """

    names: dict[bytes, dict[bytes, Touch]] = field(default_factory=dict)
    replaced: set[bytes] = field(default_factory=set)
    overflow: bool = False
    relisted: set[bytes] = field(default_factory=set)
    own: set[bytes] = field(default_factory=set)

    def __bool__(self) -> bool:
        return self.overflow or bool(self.names) or bool(self.replaced) or bool(self.relisted)

    def touch(self, path: bytes, touch: Touch) -> None:
        """Add one name. A later call for the same name replaces the earlier one."""
        parent, name = split(path)
        self.names.setdefault(parent, {})[name] = touch

    def without_own(self, directory: bytes, is_followed: Callable[[bytes], bool]) -> dict[bytes, Touch] | None:
        """Return the touched names of `directory` without those that are checked anyway.

        If names in a followed directory are checked, its own attributes are recorded with them.
        Each job sets those of the directory of its results. Return None if there is nothing else to
        check.
        """
        touched = self.names[directory]
        if Touch.ATTRIBUTES not in touched.values():
            return touched
        names = {
            name: touch
            for name, touch in touched.items()
            if touch is not Touch.ATTRIBUTES
            or (path := join(directory, name)) not in self.names
            or not is_followed(path)
        }
        return names if names or directory in self.own else None

    def touch_way(self, path: bytes) -> None:
        """Add every name on the way to a path, and its own."""
        for place in from_root_down(path):
            if place:
                self.touch(place, Touch.UNKNOWN)


class AttrTree:
    """The listings of all served directories. `compare_entry` tells which new entry is a change."""

    def __init__(self, root: Seen) -> None:
        self._root = root
        self._listings: dict[bytes, dict[bytes, Seen]] = {}
        self._names: dict[Inode, set[bytes]] = {}  # every served name of the files that `names_of` was asked for
        self._most_names = FEW_NAMES
        self._numbers: dict[bytes, bytes] = {}  # packed inode numbers by directory, made by `names_of`
        self.name_changes = 0  # that were recorded so far, in all directories
        self._newest_change: dict[bytes, int] = {}  # by directory, the number of its newest such change

    def names_changed_since(self, directory: bytes, changes: int) -> bool:
        """Return whether names in a directory came, went or got another type.

        `changes` is what `name_changes` was then. The directory itself was there all the time.
        """
        return self._newest_change.get(directory, 0) > changes

    def is_served(self, directory: bytes) -> bool:
        """Return whether the listing of a directory is recorded."""
        return directory in self._listings

    def listing(self, directory: bytes) -> Mapping[bytes, Seen]:
        """Return the entries of a directory by name. Raise KeyError if it was never served."""
        return self._listings[directory]

    def seen(self, path: bytes) -> Seen | None:
        """Return the entry at a path, or None if there is none or its parent was never served."""
        if not path:
            return self._root
        parent, name = split(path)
        return self._listings.get(parent, {}).get(name)

    def names_of(self, inodes: Collection[Inode]) -> set[bytes]:
        """Return all served names of these files.

        The first request for a file searches all listings; its names are kept from then on.
        """
        if len(self._names) > self._most_names:
            self._forget_nameless()
        if new := {inode for inode in inodes if inode not in self._names}:
            self._names.update((inode, set()) for inode in new)
            numbers = [_packed(number) for _, number in new]
            for directory, listing in self._listings.items():
                if len(new) <= FEW and not any(number in self._numbers_in(directory) for number in numbers):
                    continue
                for name, seen in listing.items():
                    if seen.stamp is not None and seen.stamp.inode in new:
                        self._names[seen.stamp.inode].add(join(directory, name))
        return set().union(*(self._names[inode] for inode in inodes))

    def inodes_of(self, paths: Iterable[bytes]) -> set[Inode]:
        """Return the files that have been seen at these paths."""
        return {seen.stamp.inode for path in paths if (seen := self.seen(path)) and seen.stamp}

    def serve(self, directory: bytes, listing: dict[bytes, Seen]) -> None:
        """Record the listing of a directory. Its parent must be served."""
        self._listings[directory] = listing
        self._numbers.pop(directory, None)
        for name, seen in listing.items() if self._names else ():
            self._note_name(join(directory, name), None, seen)

    def put(self, path: bytes, seen: Seen) -> None:
        """Record the entry at a path, whose parent must be served."""
        if not path:
            self._root = seen
            return
        parent, name = split(path)
        listing = self._listings[parent]
        old = listing.get(name)
        if old is None or stat.S_IFMT(old.attr.mode) != stat.S_IFMT(seen.attr.mode):
            self._note_name_change(parent)
        self._note_name(path, old, seen)
        listing[name] = seen
        self._numbers.pop(parent, None)

    def drop(self, path: bytes) -> None:
        """Remove the entry at a path, if there is one, and every listing at and below it."""
        for directory in list(self.served_within(path)):
            listing = self._listings.pop(directory)
            self._newest_change.pop(directory, None)
            self._numbers.pop(directory, None)
            for name, seen in listing.items() if self._names else ():
                self._note_name(join(directory, name), seen, None)
        parent, name = split(path)
        old = self._listings.get(parent, {}).pop(name, None)
        if old is not None:
            self._note_name_change(parent)
        self._note_name(path, old, None)
        self._numbers.pop(parent, None)

    def served_within(self, path: bytes) -> Iterator[bytes]:
        """Yield the served directories at and below a path, parents first."""
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            if directory in self._listings:
                yield directory
                children = self._listings[directory].items()
                waiting.extend(join(directory, name) for name, seen in children if seen.is_directory)

    @property
    def linked_files(self) -> int:
        """Return the number of files whose other names are kept."""
        return len(self._names)

    def counts(self) -> tuple[int, int]:
        """Return the numbers of served directories and of the entries in them."""
        return len(self._listings), sum(map(len, self._listings.values()))

    def _numbers_in(self, directory: bytes) -> bytes:
        """Return the inode numbers of a directory's entries, packed side by side.

        A search in it takes a tenth of the time of a walk through the listing. A number may also be
        found across the border of two others, so the listing must confirm a hit.
        """
        numbers = self._numbers.get(directory)
        if numbers is None:
            stamps = (seen.stamp for seen in self._listings[directory].values())
            numbers = self._numbers[directory] = b"".join(_packed(stamp.ino) for stamp in stamps if stamp is not None)
        return numbers

    def _forget_nameless(self) -> None:
        """Forget the files whose names are all gone, and all files if too many are left."""
        self._names = {inode: names for inode, names in self._names.items() if names}
        if len(self._names) > NAMES_LIMIT / 2:
            self._names.clear()
        self._most_names = max(FEW_NAMES, 2 * len(self._names))

    def _note_name_change(self, directory: bytes) -> None:
        self.name_changes += 1
        self._newest_change[directory] = self.name_changes

    def _note_name(self, path: bytes, old: Seen | None, new: Seen | None) -> None:
        """Keep the names of files in step with a changed entry; None means no entry."""
        if old is not None and old.stamp is not None:
            self._names.get(old.stamp.inode, set()).discard(path)
        if new is not None and new.stamp is not None and (names := self._names.get(new.stamp.inode)) is not None:
            names.add(path)


def _packed(number: int) -> bytes:
    return number.to_bytes(8, "little")


class LinkIds:
    """The numbers of files, for `Attr.link_id`. All names of one file in one state have the same.

    A number is a hash, so that no inode number is revealed. The ctime moves with every write and
    with every new or removed name, so that another state has another number. But a file can be
    written twice within one tick of the clock. Then the state is renewed: its number changes.
    """

    def __init__(self) -> None:
        self._renewals: dict[Stamp, int] = {}
        self._renewed: set[Inode] = set()
        self._forgotten = 0

    def number(self, stamp: Stamp) -> int:
        """Return the number of a state, which is never 0."""
        renewals = self._renewals.get(stamp, 0)
        state = struct.pack("<QQqQQ", stamp.dev, stamp.ino, stamp.ctime_ns, renewals, self._forgotten)
        return int.from_bytes(hashlib.blake2b(state, digest_size=7).digest(), "big") + 1

    def renew(self, stamp: Stamp, old: int) -> int:
        """Return the new number of a state, under which the file may have been written again.

        `old` is the number that its name has. The other names of the file get the same new number,
        in whichever order they are checked.
        """
        if old == self.number(stamp):
            if len(self._renewals) >= RENEWED_LIMIT:
                self._renewals.clear()
                self._forgotten += 1  # no number from before is ever given again
            self._renewals[stamp] = self._renewals.get(stamp, 0) + 1
            self._renewed.add(stamp.inode)
        return self.number(stamp)

    def take_renewed(self) -> set[Inode]:
        """Return the files of the states that were renewed since the last call."""
        renewed, self._renewed = self._renewed, set()
        return renewed


def compare_entry(
    path: bytes, old: Seen | None, new: Seen, touch: Touch, renew: Callable[[Stamp, int], int]
) -> tuple[Seen, Change | None]:
    """Return the entry to record for `path`, and the change to report or None.

    `renew` returns the new number of a file with several names, from its stamp and old number.

    The entry keeps a known digest if `touch` and the stamps prove that the content is the same. A
    digest that became known is no change.
    """
    if old is None or not stat.S_ISREG(new.attr.mode) or not stat.S_ISREG(old.attr.mode):
        unchanged = old is not None and old.attr == new.attr
        return new, None if unchanged else Change(path, new.attr, content=not _is_same_directory(old, new))
    same_content = _has_same_content(old, new, touch)
    if same_content and new.attr.digest is None:
        new = new._replace(attr=msgspec.structs.replace(new.attr, digest=old.attr.digest))
    if not same_content and old.stamp == new.stamp:  # perhaps written again within one tick
        link_id = renew(new.stamp, old.attr.link_id) if new.stamp and old.attr.link_id else 0
        new = new._replace(attr=msgspec.structs.replace(new.attr, digest=None, link_id=link_id))
    if same_content and msgspec.structs.replace(old.attr, digest=new.attr.digest) == new.attr:
        return new, None
    return new, Change(path, new.attr, content=not same_content)


def _is_same_directory(old: Seen | None, new: Seen) -> bool:
    return old is not None and old.is_directory and new.is_directory


def _has_same_content(old: Seen, new: Seen, touch: Touch) -> bool:
    if old.stamp is None or new.stamp is None:
        return False
    if old.stamp == new.stamp:
        return not (touch is Touch.WRITTEN and old.racy)
    if touch is Touch.ATTRIBUTES and old.stamp[:3] == new.stamp[:3]:
        return True
    return old.attr.digest is not None and old.attr.digest == new.attr.digest
