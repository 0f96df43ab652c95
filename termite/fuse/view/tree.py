"""What this mirror knows of the master's tree, and the immutable views that jobs see of it.

The kernel is told to cache for ever, so nothing that a view has shown may ever change. The rules:

*Truth.* A directory is *known* once a DIR reply or a change has said everything in it. Changes are applied to known
directories only; what is not known is asked for when it is needed. A change numbered N is skipped for a directory
whose reply was read at N or later. A reply read before the journal number we have reached is rolled forward first.
A live directory made by a change is known at once: it is empty until later changes say otherwise. A settled one is not:
it may be the top of a large tree that no job ever looks at. It is asked for, by way of a new base.

*Base.* `base/n` shows all of the tree. It *freezes* each directory when the kernel first asks for something in it, as
the truth is in that moment, and shows that for ever. A directory that the truth has lost by then is frozen empty.

*Moves.* Above one base stands what has moved since it was made: real layers, and a delta of the mirror among them
(moves.py says which of the two). Together, for every directory of the truth, they have:

    frozen in the base             the names that have changed since; whiteouts for the names gone
    in the base, not yet frozen    nothing: when it freezes, it freezes as the truth then, which includes all changes
    not in the base                everything: the base has nothing, or something that is no directory, at this path

A directory that was deleted and made again is the first case, name by name; that is why no opaque mark is needed
(getxattr answers ENOSYS, so one could not be shown). The ancestors of all this stand beside it with their
attributes of today. A delta that a job was given is never changed; the next job gets a new one if that is needed.

*Held.* The warm layer stands between base and moves. What it holds is covered: each directory of it is frozen in the
base, and a name whose truth is another one by now is among the moves. So it need not be true to be of use. Only a layer
that has something else where a directory is by now cannot be covered: it would hide what the base has in it, which
nobody may have noted. Such a warm layer is not held any more; for such a real layer there is a new base.

So a job that starts at number K sees at least K everywhere, and exactly K in all that was frozen when it started.

Versions are told apart by identity: the `Attr` object in a listing *is* the version. An equal size and mtime after a
change proves nothing, except with an equal digest.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.paths import check_names, check_paths
from termite.engine.wire.protocol.messages import Directory
from termite.fuse.view.moved_names import Moves
from termite.fuse.view.views import (
    EMPTY,
    WHITEOUT,
    Base,
    Delta,
    Layer,
    Listing,
    Need,
    Shown,
    View,
    is_directory,
    join,
    lineage,
)

DELTA_NAMES = 2000  # a larger delta costs more to keep than a new base costs to look up again
DIGESTS_LIMIT = 20_000  # of files with several names: every version has one, 250 bytes each
REAL_NAMES = 20_000  # in real layers, where they cost memory, and time when layers are merged


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
        self.bases: dict[str, Base] = {}
        self.deltas: dict[str, Delta] = {}
        self.layers: set[Layer] = set()
        self.moves = Moves()
        self._writable_root = writable_root
        self._root = Attr(mode=stat.S_IFDIR | 0o755, size=0, mtime_ns=0)
        self._known: dict[bytes, _Known] = {}
        self._early: dict[int, Changeset] = {}  # arrived before the one in front of it
        self._asked: dict[bytes, int] = {}  # directories asked for, and our number when we did
        self._recent: list[Changeset] = []  # applied since the oldest of these, to roll replies forward
        self._digests: dict[int, Digest] = {}  # by link_id; of a file with one name its Attr has it
        self._views_made = 0
        self._base = self._base_before = Base("0", self._root)
        self._delta: Delta | None = None
        self.held: Mapping[bytes, Listing] = {}
        self._most_loose = DELTA_NAMES
        self._is_base_due = False
        self._rebase()

    # -- facts from the master ---------------------------------------------------------------------------------------

    def take_in(self, changesets: Iterable[Changeset]) -> None:
        """Apply what is next in the journal; keep what is early; ignore what is known already.

        Raises RemoteProtocolError, and has taken in nothing, if one of the paths is none.
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

    def take_contents(self, contents: Mapping[bytes, bytes], number: int) -> None:
        """What some of the files were as of `number`. If that is past, nobody knows of which version they are.

        Their digests are needed when a job has opened one for writing, and changed nothing.
        """
        if number != self.number:
            return
        for path, content in contents.items():
            attr = self.moves.fresh.get(path)
            if attr is not None and attr.size == len(content):
                self.moves.contents[path] = content
                self.learn_digest(attr, Digest(sha256(content).digest(), len(content)))

    def asked(self, path: bytes) -> None:
        """A DIR request for `path` goes out: remember from where its reply may have to be rolled forward."""
        self._asked[path] = self.number

    def answered(self, path: bytes, reply: Directory | None) -> None:
        """The request for `path` ended; None: without an answer."""
        asked_at = self._asked.pop(path)
        if reply is not None:
            check_names(reply.children)
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

    def learn_digest(self, attr: Attr, digest: Digest) -> None:
        """That version of a file was fetched. It stays the same version, of which more is known."""
        if attr.link_id:
            self._digests[attr.link_id] = digest
            if len(self._digests) > DIGESTS_LIMIT:  # the oldest; if its version is still there, it is fetched again
                del self._digests[next(iter(self._digests))]
        else:
            msgspec.structs.force_setattr(attr, "digest", digest)

    def digest_of(self, attr: Attr) -> Digest | None:
        """As listed, or as learned since."""
        return attr.digest or self._digests.get(attr.link_id)

    # -- what the views show -----------------------------------------------------------------------------------------

    def base_listing(self, base: Base, path: bytes) -> Listing:
        """What `base` shows in `path`, from now on and for ever. Raises Need."""
        listing = base.frozen.get(path)
        if listing is None:
            listing = base.frozen[path] = self._listing_to_freeze(path)
        return listing

    def attr_at(self, view: View, path: bytes) -> Attr | None:
        """What a job with this view sees at `path` where it has not written. Raises Need."""
        return self._resolve(view, path)[0]

    def was_at(self, view: View, path: bytes) -> Attr | None:
        """What a job that has ended saw there, with its digest if that is known by now. Raises Need."""
        attr = self.attr_at(view, path)
        digest = self.digest_of(attr) if attr else None
        return attr if attr is None or digest is attr.digest else msgspec.structs.replace(attr, digest=digest)

    def open_view(self) -> View:
        """The view for a job that starts now; it must be closed when the job has ended."""
        loose, real = self.moves.count(), sum(layer.names for layer in self.moves.stack)
        if self._is_base_due or loose > self._most_loose or real > REAL_NAMES:
            self._rebase()
        if self.moves.needs_delta or self._root is not (self._delta or self._base).root:
            self._delta = self._make_delta()
        view = View(self._base, self._delta, tuple(self.moves.stack), self.moves.above)
        view.enter(1)
        return view

    def close_view(self, view: View) -> None:
        view.enter(-1)

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

    def pop_unused_layers(self) -> list[Layer]:
        """The real layers that nobody will see again, taken out of `layers`."""
        unused = [layer for layer in self.layers if not layer.jobs and layer not in self.moves.stack]
        self.layers.difference_update(unused)
        return unused

    # -- what stands on this worker's disk ---------------------------------------------------------------------------

    def push(self, layer: Layer) -> None:
        """A real layer with what was loose when it was begun."""
        self.layers.add(layer)
        if self._can_cover(layer.listings):
            self.moves.push(layer)
            self._cover(layer.listings)
        else:
            self._is_base_due = True

    def hold(self, listings: Mapping[bytes, Listing]) -> None:
        """The warm layer of views made from now on has these names, ancestors included, as long as they are `held`."""
        self.held = listings if self._can_cover(listings) else {}
        self._cover(self.held)
        self.moves.is_old = True  # another directory than before may be below the whiteouts of the delta, or none

    def is_here(self, path: bytes, attr: Attr) -> None:
        """The content of a file has come: if the file is loose, it can be made real now."""
        parent, _, name = path.rpartition(b"/")
        if self.moves.loose.get(parent, EMPTY).get(name) is attr:
            self.moves.fresh[path] = attr

    def add_ancestors(self, listings: dict[bytes, Listing]) -> None:
        """The directories above, as they are today."""
        for path in tuple(listings):
            while path:
                parent, _, name = path.rpartition(b"/")
                listing = listings.get(parent, EMPTY)
                if name in listing:
                    break
                listings[parent] = {**listing, name: self._known[parent].children[name]}
                path = parent

    @property
    def root(self) -> Attr:
        """Of `/`, today."""
        return self._root

    def statistics(self) -> dict[str, int]:
        return {
            "number": self.number,
            "known_directories": len(self._known),
            "bases": len(self.bases),
            "deltas": len(self.deltas),
            "loose_names": self.moves.count(),
            "layers": len(self.moves.stack),
            "layer_names": sum(layer.names for layer in self.moves.stack),
        }

    # -- the truth moves ---------------------------------------------------------------------------------------------

    def _apply(self, change: Change) -> None:
        if not change.path:
            if change.attr is not None:
                self._root = change.attr
            return
        parent, _, name = change.path.rpartition(b"/")
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
        if known.shared:
            known.children, known.shared = dict(known.children), False
        if attr is not None:
            known.children[name] = attr
        elif known.children.pop(name, None) is None:
            return
        self._note(parent, name, attr)

    def _note(self, parent: bytes, name: bytes, attr: Attr | None) -> None:
        """Keep what stands above the newest base, as the three cases say."""
        frozen = self._base.frozen.get(parent)
        if frozen is None:
            if self._is_base_directory(parent):
                return
            frozen = EMPTY
        if attr is not None:
            self.moves.note(parent, name, attr)
        elif name in frozen or self.moves.has_sealed(parent, name) or name in self.held.get(parent, EMPTY):
            self.moves.note(parent, name, WHITEOUT)
        else:
            self.moves.take_back(parent, name)

    def _make(self, path: bytes) -> None:
        """A new directory, where none was. What there was before, below any moves to come, is hidden name by name."""
        if not self.is_live(path):
            self._is_base_due = True
            return
        self._known[path] = _Known({}, self.number - 1)
        if self._delta is not None and self._delta.has(path):
            self.moves.is_old = True
        for below in (self._base.frozen, self.moves.sealed, self.held):
            for name in below.get(path, EMPTY):
                self.moves.note(path, name, WHITEOUT)

    def _forget(self, path: bytes) -> None:
        """The directory at `path` is gone, and everything below it."""
        gone = self._known.pop(path, None)
        self.moves.forget(path)
        for name, attr in gone.children.items() if gone else ():
            if is_directory(attr):
                self._forget(join(path, name))

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
        self._root = attr
        if not self._base.frozen:
            self._base.root = attr

    # -- views are made ----------------------------------------------------------------------------------------------

    def _rebase(self) -> None:
        self._views_made += 1
        self._base_before, self._base = self._base, Base(str(self._views_made), self._root)
        self.bases[self._base.name] = self._base
        self.moves, self._delta = Moves(), None
        self._is_base_due = False
        if not self._can_cover(self.held):
            self.held = {}
        self._cover(self.held)
        # What is loose at once would be so with the next base, too.
        self._most_loose = DELTA_NAMES + self.moves.count()

    def _make_delta(self) -> Delta | None:
        listings = self.moves.shared(self._hides)
        self.add_ancestors(listings)
        if not listings and self._root is self._base.root:
            return None
        self._views_made += 1
        delta = Delta(str(self._views_made), self._root, listings)
        self.deltas[delta.name] = delta
        return delta

    def _hides(self, directory: bytes) -> bool:
        """Whether a layer below the newest delta has this directory, too. Where none has, there is nothing to hide, and
        overlayfs would list the whiteouts as if they were files."""
        below = [(layer.listings, layer.opaque) for layer in self.moves.stack]
        below += [(self.held, frozenset()), (self._base.frozen, frozenset())]
        for path in reversed(tuple(lineage(directory))):
            parent, _, name = path.rpartition(b"/")
            layers, below = below, []
            for listings, opaque in layers:
                attr = listings.get(parent, EMPTY).get(name)
                if attr is not None and not is_directory(attr):
                    break
                if attr is not None:
                    below.append((listings, opaque))
                if path in opaque:
                    break
        return bool(below)

    def _can_cover(self, listings: Mapping[bytes, Listing]) -> bool:
        """Whether the moves can say all that is not true of these any more."""
        for directory, listing in listings.items():
            if not self._is_directory(directory):
                continue
            known = self._known.get(directory)
            if known is None or any(
                is_directory(known.children.get(name)) and not is_directory(attr) for name, attr in listing.items()
            ):
                return False
        return True

    def _cover(self, listings: Mapping[bytes, Listing]) -> None:
        """These stand on disk between base and moves: where they are not the truth any more, a move says so."""
        for directory in sorted(listings):
            if not self._is_directory(directory):
                continue  # the name above, of which that is known, hides it
            if self._is_base_directory(directory):
                self.base_listing(self._base, directory)
            children = self._known[directory].children
            sealed, loose = self.moves.sealed.get(directory, EMPTY), self.moves.loose.get(directory, EMPTY)
            for name, attr in listings[directory].items():
                if not is_directory(attr):
                    self.moves.cut(join(directory, name))
                truth = children.get(name, WHITEOUT)
                if loose.get(name, sealed.get(name, attr)) is not truth:
                    self.moves.note(directory, name, truth)

    def _listing_to_freeze(self, path: bytes) -> Listing:
        if not self._is_directory(path):
            return EMPTY
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
        return known is not None and is_directory(known.children.get(name))

    def _is_base_directory(self, path: bytes) -> bool:
        """Whether the newest base shows a directory at `path`, or will when it freezes, and nothing hides it."""
        if not path:
            return True
        if self.moves.is_cut(path):
            return False
        if path in self._base.frozen:
            return True
        parent, _, name = path.rpartition(b"/")
        frozen = self._base.frozen.get(parent)
        return self._is_base_directory(parent) if frozen is None else is_directory(frozen.get(name))

    def _resolve(self, view: View, path: bytes) -> Shown:
        """What `view` shows at `path`, and the layers that show a directory there, from the top."""
        if not path:
            return view.root, (*view.sparse(), view.base)
        if path in view.resolved:
            return view.resolved[path]
        parent, _, name = path.rpartition(b"/")
        shown = None
        below: list[Base | Delta | Layer] = []
        for layer in self._resolve(view, parent)[1]:
            listing = self.base_listing(layer, parent) if isinstance(layer, Base) else layer.listings.get(parent, EMPTY)
            attr = listing.get(name)
            if attr is None:
                continue
            shown = shown or attr
            if not is_directory(attr):
                break
            below.append(layer)
            if isinstance(layer, Layer) and path in layer.opaque:
                break
        answer = None if shown is WHITEOUT else shown, tuple(below)
        if below:
            view.resolved[path] = answer
        return answer
