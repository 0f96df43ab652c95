"""What mirrors were told of the master's files: the listing of every directory that was ever served.

A served directory's parent is served too. What was never served is unknown here: nobody needs to hear of its changes.
"""

import enum
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from termite.engine.model import Attr, Change
from termite.engine.paths import join, split

Inode = tuple[int, int]  # device and number
FEW = 8  # inode numbers that are looked for one by one
NAMES_LIMIT = 4096  # files whose names are kept together: more are looked for again, which bounds memory to a megabyte


class Stamp(NamedTuple):
    """Tells one state of a file from another, as well as the kernel can. An equal inode number alone proves nothing."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def inode(self) -> Inode:
        return self[:2]


class Seen(NamedTuple):
    """What was found at a path. `stamp` is None for a directory that termite itself made up (/proc, /tmp).

    `racy`: it had changed within the last tick of the clock before the watches were asked, or later, so that another
    write could have left the same stamp.
    """

    attr: Attr
    stamp: Stamp | None = None
    racy: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attr.mode)


class Touch(enum.Enum):
    """What is known to have happened to a name."""

    ATTRIBUTES = "attributes"  # mode, times or links, but not its content
    WRITTEN = "written"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Events:
    """Where to look again.

    `names`: by directory; an empty one means that only the directory's own attributes may have changed. `replaced`:
    directories that were made, removed or moved, or whose watch is gone.
    """

    names: dict[bytes, dict[bytes, Touch]] = field(default_factory=dict)
    replaced: set[bytes] = field(default_factory=set)
    overflow: bool = False

    def __bool__(self) -> bool:
        return self.overflow or bool(self.names) or bool(self.replaced)

    def touch(self, path: bytes, touch: Touch) -> None:
        parent, name = split(path)
        self.names.setdefault(parent, {})[name] = touch


class AttrTree:
    """Listings by directory. It only records: `compare` says what is a change."""

    def __init__(self, root: Seen) -> None:
        self._root = root
        self._listings: dict[bytes, dict[bytes, Seen]] = {}
        self._names: dict[Inode, set[bytes]] = {}  # of files that `names_of` was asked for: all that are served
        self._numbers: dict[bytes, bytes] = {}  # inode numbers by directory, as `names_of` has found them

    def is_served(self, directory: bytes) -> bool:
        return directory in self._listings

    def listing(self, directory: bytes) -> Mapping[bytes, Seen]:
        """Raises KeyError where the directory was never served."""
        return self._listings[directory]

    def seen(self, path: bytes) -> Seen | None:
        if not path:
            return self._root
        parent, name = split(path)
        return self._listings.get(parent, {}).get(name)

    def names_of(self, inodes: Collection[Inode]) -> set[bytes]:
        """All served names of these files. Who asks for one for the first time has everything looked through."""
        if len(self._names) > NAMES_LIMIT:
            self._names.clear()
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

    def serve(self, directory: bytes, listing: dict[bytes, Seen]) -> None:
        self._listings[directory] = listing
        self._numbers.pop(directory, None)
        for name, seen in listing.items() if self._names else ():
            self._note_name(join(directory, name), None, seen)

    def put(self, path: bytes, seen: Seen) -> None:
        """The parent must be served."""
        if not path:
            self._root = seen
            return
        parent, name = split(path)
        listing = self._listings[parent]
        self._note_name(path, listing.get(name), seen)
        listing[name] = seen
        self._numbers.pop(parent, None)

    def drop(self, path: bytes) -> None:
        """The name is gone, and with it all that was known below."""
        for directory in list(self.served_within(path)):
            listing = self._listings.pop(directory)
            self._numbers.pop(directory, None)
            for name, seen in listing.items() if self._names else ():
                self._note_name(join(directory, name), seen, None)
        parent, name = split(path)
        self._note_name(path, self._listings.get(parent, {}).pop(name, None), None)
        self._numbers.pop(parent, None)

    def served_within(self, path: bytes) -> Iterator[bytes]:
        """Served directories at and below a path, parents first."""
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            if directory in self._listings:
                yield directory
                children = self._listings[directory].items()
                waiting.extend(join(directory, name) for name, seen in children if seen.is_directory)

    def counts(self) -> tuple[int, int]:
        """Directories served, and entries known in them."""
        return len(self._listings), sum(map(len, self._listings.values()))

    def _numbers_in(self, directory: bytes) -> bytes:
        """Side by side, where one is found in a tenth of the time that it takes to go through the listing. What is
        found may be of two neighbours."""
        numbers = self._numbers.get(directory)
        if numbers is None:
            stamps = (seen.stamp for seen in self._listings[directory].values())
            numbers = self._numbers[directory] = b"".join(_packed(stamp.ino) for stamp in stamps if stamp is not None)
        return numbers

    def _note_name(self, path: bytes, old: Seen | None, new: Seen | None) -> None:
        """What is at `path` is another file, or may be."""
        if old is not None and old.stamp is not None:
            self._names.get(old.stamp.inode, set()).discard(path)
        if new is not None and new.stamp is not None and (names := self._names.get(new.stamp.inode)) is not None:
            names.add(path)


def _packed(number: int) -> bytes:
    return number.to_bytes(8, "little")


def compare(path: bytes, old: Seen | None, new: Seen, touch: Touch) -> tuple[Seen, Change | None]:
    """What to remember of `path`, and what to tell others. A digest that became known is no change."""
    if old is None or not stat.S_ISREG(new.attr.mode) or not stat.S_ISREG(old.attr.mode):
        unchanged = old is not None and old.attr == new.attr
        return new, None if unchanged else Change(path, new.attr, content=not _is_same_directory(old, new))
    same_content = _has_same_content(old, new, touch)
    if same_content and new.attr.digest is None:
        new = new._replace(attr=msgspec.structs.replace(new.attr, digest=old.attr.digest))
    if not same_content and old.stamp == new.stamp:  # written again within one tick: what was known of it is void
        new = new._replace(attr=msgspec.structs.replace(new.attr, digest=None, link_id=0))
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
