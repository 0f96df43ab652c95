"""What this mirror knows of the master's tree, and the immutable views that jobs see of it.

The kernel is told to cache for ever, so nothing that a view has shown may ever change. The rules:

*Truth.* A directory is *known* once a DIR reply or a change has said everything in it. Changes are applied to known
directories only; what is not known is asked for when it is needed. A change numbered N is skipped for a directory
whose reply was read at N or later. A reply read before the journal number we have reached is rolled forward first.
A directory made by a change is known at once: it is empty until later changes say otherwise.

*Base.* `base/n` shows all of the tree. It *freezes* each directory when the kernel first asks for something in it, as
the truth is in that moment, and shows that for ever. A directory that the truth has lost by then is frozen empty.

*Delta.* `delta/k` is sparse and goes on top of one base. For every directory of the truth there are three cases:

    frozen in the base             the names whose attributes are not the frozen ones; whiteouts for the names gone
    in the base, not yet frozen    nothing: when it freezes, it freezes as the truth then, which includes all changes
    not in the base                everything: the base has nothing, or something that is no directory, at this path

A directory that was deleted and made again is the first case, name by name; that is why no opaque mark is needed
(getxattr answers ENOSYS, so one could not be shown). The ancestors of all this stand in the delta with their
attributes of today. A delta that a job was given is never changed; the next job gets a new one if a name in it moved.

So a job that starts at number K sees at least K everywhere, and exactly K in all that was frozen when it started.

Versions are told apart by identity: the `Attr` object in a listing *is* the version. An equal size and mtime after a
change proves nothing, except with an equal digest.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.wire.messages import Directory

Listing = Mapping[bytes, Attr]

WHITEOUT = Attr(mode=stat.S_IFCHR, size=0, mtime_ns=0)  # overlayfs: a character device 0:0 hides a name
DELTA_NAMES = 2000  # a larger delta costs more to keep than a new base costs to look up again
IDLE_DELTA_NAMES = 256  # with no job to disturb, a new base pays for itself earlier
_EMPTY: Listing = {}


class Need(Exception):
    """A fact is missing: what is in directory `path`."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


@dataclass(slots=True, eq=False)
class Base:
    """A view of the whole tree. `frozen` holds what it has shown."""

    name: str
    root: Attr
    frozen: dict[bytes, Listing] = field(default_factory=dict)
    jobs: int = 0


@dataclass(slots=True, eq=False)
class Delta:
    """A sparse view on top of `base`; a directory without a listing of its own is empty."""

    name: str
    root: Attr
    listings: Mapping[bytes, Listing]
    jobs: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one job sees."""

    base: Base
    delta: Delta | None

    def layers(self, warm: str = "") -> str:
        """Overlayfs's lowerdir, topmost first, relative to the mount point."""
        delta = f"delta/{self.delta.name}:" if self.delta else ""
        return f"{delta}{warm}base/{self.base.name}"


@dataclass(slots=True)
class _Known:
    """The truth about one directory. `shared`: a base shows `children`, so they are copied before they change."""

    children: dict[bytes, Attr]
    as_of: int
    shared: bool = False


class Tree:
    """The truth at journal `number`, the newest base and its delta, and every view that a job still uses."""

    def __init__(self, writable_root: bytes, number: int) -> None:
        self.number = number
        self.settled_moves = 0  # counts: as long as it stays, everything settled that was shown is still true
        self.bases: dict[str, Base] = {}
        self.deltas: dict[str, Delta] = {}
        self._writable_root = writable_root
        self._root = Attr(mode=stat.S_IFDIR | 0o755, size=0, mtime_ns=0)
        self._known: dict[bytes, _Known] = {}
        self._early: dict[int, Changeset] = {}  # arrived before the one in front of it
        self._asked: dict[bytes, int] = {}  # directories asked for, and our number when we did
        self._recent: list[Changeset] = []  # applied since the oldest of these, to roll replies forward
        self._digests: dict[bytes | int, tuple[Attr, Digest]] = {}  # by path; by link_id where there is one
        self._views_made = 0
        self._base = self._base_before = Base("0", self._root)
        self._moved: dict[bytes, dict[bytes, Attr]] = {}
        self._moved_own: set[bytes] = set()  # the listings of `_moved` that no delta shares
        self._delta: Delta | None = None
        self._delta_is_old = False
        self._settled_moved = False
        self._rebase()

    # -- facts from the master ---------------------------------------------------------------------------------------

    def take_in(self, changesets: Iterable[Changeset]) -> None:
        """Apply what is next in the journal; keep what is early; ignore what is known already."""
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
        """A DIR request for `path` goes out: remember from where its reply may have to be rolled forward."""
        self._asked[path] = self.number

    def answered(self, path: bytes, reply: Directory | None) -> None:
        """The request for `path` ended; None: without an answer."""
        asked_at = self._asked.pop(path)
        if reply is not None:
            if reply.number < asked_at:
                raise RemoteProtocolError(f"directory {path!r} as of {reply.number}, after {asked_at} was told")
            self._learn(path, reply)
        oldest = min(self._asked.values(), default=self.number)
        self._recent = [changeset for changeset in self._recent if changeset.number > oldest]

    def is_known(self, path: bytes) -> bool:
        """Whether the base can freeze `path`: what is in it is known, or that it is no directory any more."""
        return path in self._known or not self._is_directory(path)

    def truth_at(self, path: bytes) -> Attr | None:
        """What is known of `path` today. Equal by identity to what was shown of it, if it has not changed since."""
        if not path:
            return self._root
        parent, _, name = path.rpartition(b"/")
        known = self._known.get(parent)
        return known.children.get(name) if known else None

    def is_live(self, path: bytes) -> bool:
        """Whether `path` is the writable root or below it; all else is settled, and hardly ever changes."""
        root = self._writable_root
        return not root or path == root or path.startswith(root + b"/")

    def learn_digest(self, path: bytes, attr: Attr, digest: Digest) -> None:
        """That version of a file was fetched; its inode may be forgotten before its content is wanted again."""
        self._digests[attr.link_id or path] = (attr, digest)

    def digest_of(self, path: bytes, attr: Attr) -> Digest | None:
        """As listed, or as learned since."""
        if attr.digest is None and (learned := self._digests.get(attr.link_id or path)):
            version, digest = learned
            return digest if attr.link_id or version is attr else None
        return attr.digest

    # -- what the views show -----------------------------------------------------------------------------------------

    def base_listing(self, base: Base, path: bytes) -> Listing:
        """What `base` shows in `path`, from now on and for ever. Raises Need."""
        listing = base.frozen.get(path)
        if listing is None:
            listing = base.frozen[path] = self._listing_to_freeze(path)
        return listing

    def attr_at(self, view: View, path: bytes) -> Attr | None:
        """What a job with this view sees at `path` where it has not written. Raises Need."""
        if not path:
            return view.delta.root if view.delta else view.base.root
        parent, _, name = path.rpartition(b"/")
        above = self.attr_at(view, parent)
        if above is None or not stat.S_ISDIR(above.mode):
            return None
        if view.delta is not None:
            attr = view.delta.listings.get(parent, _EMPTY).get(name)
            if attr is not None:
                return None if attr is WHITEOUT else attr
        if not self._is_base_directory(view.base, parent):
            return None
        return self.base_listing(view.base, parent).get(name)

    def was_at(self, view: View, path: bytes) -> Attr | None:
        """What a job that has ended saw there, with its digest if that is known by now. Raises Need."""
        attr = self.attr_at(view, path)
        digest = self.digest_of(path, attr) if attr else None
        return attr if attr is None or digest is attr.digest else msgspec.structs.replace(attr, digest=digest)

    def open_view(self) -> View:
        """The view for a job that starts now; it must be closed when the job has ended."""
        idle = not any(base.jobs for base in self.bases.values())
        names = sum(map(len, self._moved.values()))
        if self._settled_moved or names > (IDLE_DELTA_NAMES if idle else DELTA_NAMES):
            self._rebase()
        if self._delta_is_old:
            self._delta = self._make_delta()
        view = View(self._base, self._delta)
        view.base.jobs += 1
        if view.delta is not None:
            view.delta.jobs += 1
        return view

    def close_view(self, view: View) -> None:
        view.base.jobs -= 1
        if view.delta is not None:
            view.delta.jobs -= 1

    def pop_unused(self) -> list[bytes]:
        """The paths of views that nobody will ask for again, taken out of `bases` and `deltas`.

        The base before the newest one is kept: its names hold the page cache of the files that both share.
        """
        kept = (self._base, self._base_before)
        bases = [base for base in self.bases.values() if not base.jobs and base not in kept]
        deltas = [delta for delta in self.deltas.values() if not delta.jobs and delta is not self._delta]
        for base in bases:
            del self.bases[base.name]
        for delta in deltas:
            del self.deltas[delta.name]
        return [b"delta/" + delta.name.encode() for delta in deltas] + [b"base/" + base.name.encode() for base in bases]

    def statistics(self) -> dict[str, int]:
        return {
            "number": self.number,
            "known_directories": len(self._known),
            "bases": len(self.bases),
            "deltas": len(self.deltas),
            "delta_names": sum(map(len, self._moved.values())),
        }

    # -- the truth moves ---------------------------------------------------------------------------------------------

    def _apply(self, change: Change) -> None:
        if not change.path:
            if change.attr is not None:
                self._root, self._delta_is_old = change.attr, True
                self._settled_moved, self.settled_moves = True, self.settled_moves + 1
            return
        parent, _, name = change.path.rpartition(b"/")
        known = self._known.get(parent)
        if known is None or known.as_of >= self.number:
            return
        old, new = known.children.get(name), change.attr
        if new is not None and stat.S_ISDIR(new.mode):
            self._put(parent, known, name, new)
            if old is None or not stat.S_ISDIR(old.mode):
                self._make(change.path)
            return
        if old is not None and stat.S_ISDIR(old.mode):
            self._forget(change.path)
        if new is None:
            self._put(parent, known, name, None)
        elif old is None or new != old or new.digest is None:
            self._put(parent, known, name, new)

    def _put(self, parent: bytes, known: _Known, name: bytes, attr: Attr | None) -> None:
        if known.shared:
            known.children, known.shared = dict(known.children), False
        if attr is not None:
            known.children[name] = attr
        elif known.children.pop(name, None) is None:
            return
        self._note(parent, name, attr)
        if not self.is_live(_join(parent, name)):
            self._settled_moved, self.settled_moves = True, self.settled_moves + 1

    def _note(self, parent: bytes, name: bytes, attr: Attr | None) -> None:
        """Keep the newest base's difference from the truth, as the three cases say."""
        frozen = self._base.frozen.get(parent)
        if frozen is None:
            if self._is_base_directory(self._base, parent):
                return
            frozen = _EMPTY
        if parent not in self._moved_own:
            self._moved[parent] = dict(self._moved.get(parent, _EMPTY))
            self._moved_own.add(parent)
        moved = self._moved[parent]
        was = frozen.get(name)
        if attr is was:
            moved.pop(name, None)
        else:
            moved[name] = WHITEOUT if attr is None else attr
        self._delta_is_old = True

    def _make(self, path: bytes) -> None:
        """A new directory, where none was."""
        self._known[path] = _Known({}, self.number - 1)
        frozen = self._base.frozen.get(path)
        if frozen:
            self._moved[path] = dict.fromkeys(frozen, WHITEOUT)
            self._moved_own.add(path)

    def _forget(self, path: bytes) -> None:
        """The directory at `path` is gone, and everything below it."""
        gone = self._known.pop(path, None)
        self._moved.pop(path, None)
        self._moved_own.discard(path)
        for name, attr in gone.children.items() if gone else ():
            if stat.S_ISDIR(attr.mode):
                self._forget(_join(path, name))

    def _learn(self, path: bytes, reply: Directory) -> None:
        if path in self._known or not self._is_directory(path):
            return  # changes were faster, and they know better
        children = reply.children
        for changeset in self._recent:
            for change in changeset.changes if changeset.number > reply.number else ():
                parent, _, name = change.path.rpartition(b"/")
                if parent != path or not change.path:
                    continue
                if change.attr is None:
                    children.pop(name, None)
                else:
                    children[name] = change.attr
        self._known[path] = _Known(children, max(reply.number, self.number))
        if not path:
            self._learn_root(reply.attr)

    def _learn_root(self, attr: Attr) -> None:
        self._root, self._delta_is_old = attr, True
        if not self._base.frozen:
            self._base.root = attr

    # -- views are made ----------------------------------------------------------------------------------------------

    def _rebase(self) -> None:
        self._views_made += 1
        self._base_before, self._base = self._base, Base(str(self._views_made), self._root)
        self.bases[self._base.name] = self._base
        self._moved, self._moved_own = {}, set()
        self._delta, self._delta_is_old = None, False
        self._settled_moved = False

    def _make_delta(self) -> Delta | None:
        listings: dict[bytes, Listing] = {path: moved for path, moved in self._moved.items() if moved}
        self._moved_own.clear()
        self._delta_is_old = False
        for path in tuple(listings):
            self._add_ancestors(listings, path)
        if not listings and self._root is self._base.root:
            return None
        self._views_made += 1
        delta = Delta(str(self._views_made), self._root, listings)
        self.deltas[delta.name] = delta
        return delta

    def _add_ancestors(self, listings: dict[bytes, Listing], path: bytes) -> None:
        while path:
            parent, _, name = path.rpartition(b"/")
            listing = listings.get(parent, _EMPTY)
            if name in listing:
                return
            listings[parent] = {**listing, name: self._known[parent].children[name]}
            path = parent

    def _listing_to_freeze(self, path: bytes) -> Listing:
        if not self._is_directory(path):
            return _EMPTY
        known = self._known.get(path)
        if known is None:
            raise Need(path)
        known.shared = True
        return known.children

    def _is_directory(self, path: bytes) -> bool:
        """Whether `path` is a directory of the truth; its parent is known if so."""
        if not path:
            return True
        parent, _, name = path.rpartition(b"/")
        known = self._known.get(parent)
        attr = known.children.get(name) if known else None
        return attr is not None and stat.S_ISDIR(attr.mode)

    def _is_base_directory(self, base: Base, path: bytes) -> bool:
        """Whether `base` shows a directory at `path`, or will when it freezes."""
        if not path or path in base.frozen:
            return True
        parent, _, name = path.rpartition(b"/")
        frozen = base.frozen.get(parent)
        if frozen is None:
            return self._is_base_directory(base, parent)
        attr = frozen.get(name)
        return attr is not None and stat.S_ISDIR(attr.mode)


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name
