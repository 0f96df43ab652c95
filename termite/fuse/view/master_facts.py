"""Keep the facts that the master sent about its tree: the *truth*, as far as this mirror knows it.

* A directory is *known* once a Directory reply or a change has named everything in it.
  Changes are applied to known directories only. Any other directory is asked for when it is needed.
* A change with number N is skipped for a directory if its reply was read at N or later.
  A reply that was read before our own journal number is rolled forward first.
* A live directory that a change makes is known at once: it is empty until later changes fill it.
  A settled one is not, because it may be the top of a large tree that no job ever looks at.

Versions of a file are told apart by identity: the `Attr` object in a listing *is* the version.
An equal size and mtime after a change prove nothing, unless the digest is equal too.
"""

import abc
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Attr, Change, Changeset, Digest, is_directory
from termite.engine.paths import check_names, check_paths, is_within, join, split
from termite.engine.wire.protocol.messages import Directory
from termite.fuse.view.views import EMPTY, Listing, Need

# Digests of files with several names, 250 bytes each. Every version has one. Those of versions that
# are gone are forgotten when the table has doubled since that was done last.
DIGESTS_LIMIT = 20_000
FEW_DIGESTS = 1000


@dataclass(slots=True)
class _Known:
    """The truth about one directory; `as_of` is the journal number at which it was read.

    If `is_shared`, a base shows `children`, so they are copied before they change. `is_partial` and
    `is_unlisted` are as in Directory.
    """

    children: dict[bytes, Attr]
    as_of: int
    is_shared: bool = False
    is_partial: bool = False
    is_unlisted: bool = False


class KnownTree(abc.ABC):
    """The part of the master's tree that is known, as it is at journal `number`.

    A subclass shows this tree to jobs. The four hooks at the end notify it of changes.
    """

    def __init__(self, writable_root: bytes, number: int) -> None:
        self.number = number
        self._writable_root = writable_root
        self.fresh: frozenset[bytes] = frozenset()  # as in the newest Run
        self._root = Attr(mode=stat.S_IFDIR | 0o755, size=0, mtime_ns=0)
        self._known: dict[bytes, _Known] = {}
        self._early: dict[int, Changeset] = {}  # arrived before the one in front of it
        self._asked: dict[bytes, int] = {}  # directories asked for, and our number when we did
        self._recent: list[Changeset] = []  # applied since the oldest of these, to roll replies forward
        self._digests: dict[int, Digest] = {}  # by link_id; the Attr of a file with one name has it itself
        self._most_digests = FEW_DIGESTS

    # -- what the master sends ---------------------------------------------------------------------------------------

    def take_in(self, changesets: Iterable[Changeset]) -> None:
        """Apply the changesets that are next in the journal, keep early ones, ignore known ones.

        Raise RemoteProtocolError if a path is not valid; nothing is taken in then, and the caller
        drops the connection.
        """
        changesets = tuple(changesets)
        check_paths([change.path for changeset in changesets for change in changeset.changes])
        for changeset in changesets:
            if changeset.number > self.number:
                self._early[changeset.number] = changeset
        while (following := self._early.pop(self.number + 1, None)) is not None:
            self.number += 1
            if self._asked:
                self._recent.append(following)
            for change in following.changes:
                self._apply(change)

    def asked(self, path: bytes) -> None:
        """Note that a GetDirectory for `path` goes out, so that its reply can be rolled forward."""
        self._asked[path] = self.number

    def answered(self, path: bytes, reply: Directory | None) -> None:
        """Take in the reply to the request for `path`; None if it ended without one.

        Raise RemoteProtocolError if a name is not valid, or if the reply is older than the journal
        was when the request went out. The caller drops the connection.
        """
        asked_at = self._asked.pop(path)
        if reply is not None:
            check_names(reply.children)
            if reply.number < asked_at:
                raise RemoteProtocolError(f"directory {path!r} as of {reply.number}, which is before {asked_at}")
            self._learn(path, reply)
        oldest = min(self._asked.values(), default=self.number)
        self._recent = [changeset for changeset in self._recent if changeset.number > oldest]

    def learn_digest(self, attr: Attr, digest: Digest) -> None:
        """Remember the digest of a fetched version of a file; it stays the same version."""
        if attr.link_id:
            self._digests[attr.link_id] = digest
            if len(self._digests) > self._most_digests:
                self._forget_digests()
        else:
            msgspec.structs.force_setattr(attr, "digest", digest)

    # -- what is known -----------------------------------------------------------------------------------------------

    @property
    def root(self) -> Attr:
        """The attributes that `/` has now."""
        return self._root

    def is_known(self, path: bytes) -> bool:
        """Return whether `freeze` needs no request.

        This is so if the entries of `path` are known, or if it is not a directory.
        """
        return path in self._known or not self.is_known_directory(path)

    def is_known_directory(self, path: bytes) -> bool:
        """Return whether `path` is a directory of the truth; if so, its parent is known."""
        if not path:
            return True
        parent, name = split(path)
        known = self._known.get(parent)
        return known is not None and is_directory(known.children.get(name))

    def is_live(self, path: bytes) -> bool:
        """Return whether `path` is the writable root or below it; all else hardly ever changes."""
        return is_within(path, self._writable_root)

    def truth_at(self, path: bytes) -> Attr | None:
        """Return the newest known version at `path`, or None if none is known.

        It is identical to the version that a view showed if the file has not changed since.
        """
        if not path:
            return self._root
        parent, name = split(path)
        known = self._known.get(parent)
        return known.children.get(name) if known else None

    def known_children(self, directory: bytes) -> Listing | None:
        """Return the entries of a directory as they are now, or None if it is not known."""
        known = self._known.get(directory)
        return known.children if known else None

    def is_partial(self, directory: bytes) -> bool:
        """Return whether the master has to be asked for each name that a directory lacks."""
        known = self._known.get(directory)
        return known is not None and known.is_partial

    def is_unlisted(self, directory: bytes) -> bool:
        """Return whether a directory has entries that nobody has listed."""
        known = self._known.get(directory)
        return known is not None and known.is_unlisted

    def digest_of(self, attr: Attr) -> Digest | None:
        """Return the digest of a version, listed or learned since; None if it is unknown."""
        return attr.digest or self._digests.get(attr.link_id)

    def freeze(self, path: bytes) -> Listing:
        """Return the entries of a directory as they are now, in a mapping that never changes.

        It is empty if the truth has no directory at `path`. Raise Need if its entries are unknown;
        the caller asks for them and tries again.
        """
        if not self.is_known_directory(path):
            return EMPTY
        known = self._known.get(path)
        if known is None:
            raise Need(path)
        known.is_shared = True
        return known.children

    def add_ancestors(self, listings: dict[bytes, Listing]) -> None:
        """Add to `listings` the directories above each of them, with their attributes of now."""
        for path in tuple(listings):
            while path:
                parent, name = split(path)
                listing = listings.get(parent, EMPTY)
                if name in listing:
                    break
                listings[parent] = {**listing, name: self._known[parent].children[name]}
                path = parent

    def _can_cover(self, listings: Mapping[bytes, Listing]) -> bool:
        """Return whether layers above can hide every outdated name of these listings."""
        for directory, listing in listings.items():
            if not self.is_known_directory(directory):
                continue
            children = self.known_children(directory)
            if children is None or any(
                is_directory(children.get(name)) and not is_directory(attr) for name, attr in listing.items()
            ):
                return False
        return True

    def statistics(self) -> Mapping[str, int]:
        """Return the journal number and the sizes of the tables."""
        return {
            "number": self.number,
            "known_directories": len(self._known),
            "known_names": sum(len(known.children) for known in self._known.values()),
            "link_digests": len(self._digests),
        }

    # -- the truth changes -------------------------------------------------------------------------------------------

    def _apply(self, change: Change) -> None:
        if not change.path:
            if change.attr is not None:
                self._root = change.attr
            return
        parent, name = split(change.path)
        known = self._known.get(parent)
        if known is None or known.as_of >= self.number:
            return
        old, new = known.children.get(name), change.attr
        if is_directory(new):
            self._put(parent, known, name, new)
            if not is_directory(old):
                self._make(change.path)
            return
        if is_directory(old):
            self._forget(change.path)
        if new is None:
            self._put(parent, known, name, None)
        elif old is None or new != old or new.digest is None:
            self._put(parent, known, name, new)

    def _put(self, parent: bytes, known: _Known, name: bytes, attr: Attr | None) -> None:
        if known.is_shared:
            known.children, known.is_shared = dict(known.children), False
        if attr is not None:
            known.children[name] = attr
        elif known.children.pop(name, None) is None:
            return
        self._on_name_changed(parent, name, attr)

    def _make(self, path: bytes) -> None:
        if self.is_live(path):
            self._known[path] = _Known({}, self.number - 1)
        self._on_directory_made(path)

    def _forget_digests(self) -> None:
        """Forget the digests of versions that are gone, and the older half if too many are left.

        If a job still needs one, its file is fetched again.
        """
        shown = {attr.link_id for known in self._known.values() for attr in known.children.values()}
        kept = [link_id for link_id in self._digests if link_id in shown][-DIGESTS_LIMIT // 2 :]
        self._digests = {link_id: self._digests[link_id] for link_id in kept}
        self._most_digests = max(FEW_DIGESTS, 2 * len(kept))

    def _forget(self, path: bytes) -> None:
        """Forget the directory at `path`, which is gone, and everything below it."""
        gone = self._known.pop(path, None)
        self._on_directory_gone(path)
        for name, attr in gone.children.items() if gone else ():
            if is_directory(attr):
                self._forget(join(path, name))

    def _learn(self, path: bytes, reply: Directory) -> None:
        if self.is_known(path):
            return  # changes were faster, and they are newer
        children = reply.children
        for changeset in self._recent:
            for change in changeset.changes if changeset.number > reply.number else ():
                parent, name = split(change.path)
                if parent != path or not change.path:
                    continue
                if change.attr is None:
                    children.pop(name, None)
                else:
                    children[name] = change.attr
        known = _Known(children, max(reply.number, self.number))
        known.is_partial, known.is_unlisted = reply.is_partial, reply.is_unlisted
        self._known[path] = known
        if not path:
            self._root = reply.attr
            self._on_root_learned()

    # -- hooks for the views -----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _on_name_changed(self, parent: bytes, name: bytes, attr: Attr | None) -> None:
        """Note that a known directory has another version of a name; None if the name is gone."""

    @abc.abstractmethod
    def _on_directory_made(self, path: bytes) -> None:
        """Note that a new directory is at `path`, where none was; it is known if it is live."""

    @abc.abstractmethod
    def _on_directory_gone(self, path: bytes) -> None:
        """Note that the directory at `path` is gone; this is called for each one below it too."""

    @abc.abstractmethod
    def _on_root_learned(self) -> None:
        """Note that the first reply about `/` brought its attributes."""
