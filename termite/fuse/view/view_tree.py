"""Show the known tree to jobs: bases, deltas and layers, and the views that are made of them.

The kernel is told to cache forever, so nothing that a view has shown may ever change. The rules:

*Base.* `base/N` shows the whole tree. It *freezes* each directory when the kernel first asks for
something in it. From then on the directory shows the entries that it has at that moment. If the
truth has lost the directory by then, it is frozen empty.

*Moved names.* Above one base stand the names that have changed since it was made. They are in
real layers, and in a delta of the mirror among them; `moved_names` says which name stands where.
Together they show this of each directory of the truth:

    directory                      they show
    frozen in the base             the names that have changed since; whiteouts for names that are gone
    in the base, not yet frozen    nothing: when it freezes, it has the truth of then, all changes included
    not in the base                everything: the base has nothing at this path, or no directory

A directory that was deleted and made again is the first case, name by name. Therefore no opaque
mark is needed, which could not be shown: getxattr answers ENOSYS. The ancestors of all these
names stand beside them, with their attributes of now. A delta that a job was given never changes;
the next job gets a new one if that is needed.

*Held layer.* The warm layer stands between the base and the moved names. Its entries are
*covered*: each directory of it is frozen in the base. If the truth has another version of a name
by now, the moved names have that version. Therefore the layer stays useful after its files have
changed.

A layer cannot be covered if it has a non-directory where the truth now has a directory: overlayfs
would hide everything that the base has below it. The tree then stops using that warm layer. If it
is a real layer, the tree makes a new base.

A job that starts at number K therefore sees at least K everywhere. It sees exactly K in all that
was frozen when it started.
"""

from collections.abc import Mapping
from hashlib import sha256

import msgspec

from termite.engine.model import UNKNOWN, Attr, Digest, is_directory
from termite.engine.paths import from_below_up, join, split
from termite.fuse.view.master_facts import KnownTree
from termite.fuse.view.moved_names import Merged, MovedNames, merge
from termite.fuse.view.views import EMPTY, WHITEOUT, Base, Delta, Layer, Listing, Shown, View

DELTA_NAMES = 2000  # a larger delta costs more to keep than a new base costs to look up again
REAL_NAMES = 20_000  # in real layers, where they cost memory, and time when layers are merged


class Tree(KnownTree):
    """The newest base with the moved names above it, and every view that a job still uses.

    `bases` and `deltas` have the views by name, for the kernel. `held` has the listings of the
    warm layer that new views may use; it is empty if they must not use one.
    """

    def __init__(self, writable_root: bytes, number: int) -> None:
        super().__init__(writable_root, number)
        self.bases: dict[str, Base] = {}
        self.deltas: dict[str, Delta] = {}
        self.layers: set[Layer] = set()
        self.moves = MovedNames()
        self.held: Mapping[bytes, Listing] = {}
        self._views_made = 0
        self._base = self._base_before = Base("0", self._root)
        self._delta: Delta | None = None
        self._most_loose = DELTA_NAMES
        self._is_base_due = False
        self._rebase()

    # -- what a view shows -------------------------------------------------------------------------------------------

    def base_listing(self, base: Base, path: bytes) -> Listing:
        """Return what `base` shows in `path`, from now on and forever.

        Raise Need if that is unknown; the caller asks for it and tries again.
        """
        listing = base.frozen.get(path)
        if listing is None:
            listing = base.frozen[path] = self.freeze(path)
        return listing

    def attr_at(self, view: View, path: bytes) -> Attr | None:
        """Return what a job with this view sees at `path` if it has not written there.

        Return None if it sees nothing. Raise Need as `base_listing` does.
        """
        return self._resolve(view, path)[0]

    def was_at(self, view: View, path: bytes) -> Attr | None:
        """Return the same as `attr_at`, with the digest if that was learned since.

        Raise Need as `base_listing` does.
        """
        attr = self.attr_at(view, path)
        digest = self.digest_of(attr) if attr else None
        return attr if attr is None or digest is attr.digest else msgspec.structs.replace(attr, digest=digest)

    # -- views are opened and dropped --------------------------------------------------------------------------------

    def open_view(self) -> View:
        """Return the view of a job that starts now.

        The caller calls `close_view` when the job has ended.
        """
        loose, real = self.moves.count(), sum(layer.names for layer in self.moves.stack)
        if self._is_base_due or loose > self._most_loose or real > REAL_NAMES:
            self._rebase()
        if self.moves.needs_delta or self._root is not (self._delta or self._base).root:
            self._delta = self._make_delta()
        view = View(self._base, self._delta, tuple(self.moves.stack), self.moves.above)
        view.enter(1)
        return view

    def close_view(self, view: View) -> None:
        """Note that the job with this view has ended."""
        view.enter(-1)

    def pop_unused(self) -> list[bytes]:
        """Take unused views out of `bases` and `deltas`, and return their paths below the mount.

        The base before the newest one stays: its names hold the page cache of the files that both
        share.
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
        """Take real layers that no job will see again out of `layers`, and return them."""
        unused = [layer for layer in self.layers if not layer.jobs and layer not in self.moves.stack]
        self.layers.difference_update(unused)
        return unused

    def statistics(self) -> dict[str, int]:
        """Return the counts of the known tree, of views, and of names above the newest base."""
        return {
            **super().statistics(),
            "bases": len(self.bases),
            "deltas": len(self.deltas),
            "frozen_directories": sum(len(base.frozen) for base in self.bases.values()),
            **self.moves.statistics(),
        }

    # -- what stands on this worker's disk ---------------------------------------------------------------------------

    def take_contents(self, contents: Mapping[bytes, bytes], number: int) -> None:
        """Keep the contents of loose files as they were at `number`, for the next real layer.

        They are ignored if our own number is larger: nobody knows then which version they are.
        Their digests are needed when a job has opened one for writing, and changed nothing.
        """
        if number != self.number:
            return
        for path, content in contents.items():
            attr = self.moves.fresh.get(path)
            if attr is not None and attr.size == len(content):
                self.moves.contents[path] = content
                self.learn_digest(attr, Digest(sha256(content).digest(), len(content)))

    def push(self, layer: Layer) -> None:
        """Put a new real layer on top; it has names that were loose when it was begun."""
        self.layers.add(layer)
        if self._can_cover(layer.listings):
            self.moves.push(layer)
            self._cover(layer.listings)
        else:
            self._is_base_due = True

    def merge(self, layers: tuple[Layer, ...]) -> Merged:
        """Merge adjacent layers of the stack, without the whiteouts that hide nothing."""
        below = self.moves.stack[self.moves.stack.index(layers[-1]) + 1 :]
        lower = [layer.listings for layer in below] + [self.held, self._base.frozen]

        def hides(directory: bytes, name: bytes) -> bool:
            path = join(directory, name)
            if any(path in listings or name in listings.get(directory, EMPTY) for listings in lower):
                return True
            is_frozen = directory in self._base.frozen or not self._is_base_directory(directory)
            return not is_frozen or self.moves.shows(directory, name)

        return merge(layers, hides)

    def replace(self, old: tuple[Layer, ...], merged: Layer) -> None:
        """Put a merged layer, as `merge` planned it, in place of the old ones.

        A warm layer that came meanwhile may have a name that a dropped whiteout was to hide.
        """
        for directory, name in self.moves.replace(old, merged):
            attr = self.held.get(directory, EMPTY).get(name)
            if attr is None:
                self.moves.uncut(join(directory, name))
            else:
                self._cover({directory: {name: attr}})

    def hold(self, listings: Mapping[bytes, Listing]) -> None:
        """Hold a new warm layer with these names, ancestors included, below views made from now on.

        Views may use it as long as `held` is `listings`; that may end here or later.
        """
        for directory, listing in self.held.items():
            for name in listing.keys() - listings.get(directory, EMPTY).keys():
                if not self.moves.has_sealed(directory, name):
                    self.moves.uncut(join(directory, name))
        self.held = listings if self._can_cover(listings) else {}
        self._cover(self.held)
        self.moves.is_old = True  # another directory than before may be below the whiteouts of the delta, or none

    def is_here(self, path: bytes, attr: Attr) -> None:
        """Note that the content of a file is in the store, so a loose name can be made real."""
        parent, name = split(path)
        if self.moves.loose.get(parent, EMPTY).get(name) is attr:
            self.moves.fresh[path] = attr

    # -- the truth changes -------------------------------------------------------------------------------------------

    def _on_name_changed(self, parent: bytes, name: bytes, attr: Attr | None) -> None:
        """Keep the moved names as the three cases in the table above say."""
        frozen = self._base.frozen.get(parent)
        if frozen is None:
            if self._is_base_directory(parent):
                return
            frozen = EMPTY
        if attr is not None:
            was = frozen.get(name)
            if was is not None and was.mode == UNKNOWN and is_directory(attr):
                self._is_base_due = True  # overlayfs would look there for more of the directory, and fail
            self.moves.note(parent, name, attr)
        elif name in frozen or self.moves.has_sealed(parent, name) or name in self.held.get(parent, EMPTY):
            self.moves.note(parent, name, WHITEOUT)
        else:
            self.moves.take_back(parent, name)

    def _on_directory_made(self, path: bytes) -> None:
        """Hide, name by name, the entries that lower layers have in the new directory."""
        if not self.is_live(path):
            self._is_base_due = True
            return
        if self._delta is not None and self._delta.has(path):
            self.moves.is_old = True
        for below in (self._base.frozen, self.moves.sealed, self.held):
            for name in below.get(path, EMPTY):
                self.moves.note(path, name, WHITEOUT)

    def _on_directory_gone(self, path: bytes) -> None:
        self.moves.forget(path)

    def _on_root_learned(self) -> None:
        if not self._base.frozen:
            self._base.root = self._root

    # -- views are made ----------------------------------------------------------------------------------------------

    def _rebase(self) -> None:
        self._views_made += 1
        self._base_before, self._base = self._base, Base(str(self._views_made), self._root)
        self.bases[self._base.name] = self._base
        self.moves, self._delta = MovedNames(), None
        self._is_base_due = False
        if not self._can_cover(self.held):
            self.held = {}
        self._cover(self.held)
        # If names are loose at once, they would be so with the next base too.
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
        below: Below = [(layer.listings, layer.opaque) for layer in self.moves.stack]
        below += [(self.held, frozenset()), (self._base.frozen, frozenset())]
        return _is_directory_below(directory, below)

    def _cover(self, listings: Mapping[bytes, Listing]) -> None:
        """Note a moved name for each name in `listings` that is outdated.

        `listings` is on disk, between the base and the moved names. `_can_cover` has returned True
        for it.
        """
        for directory in sorted(listings):
            if not self.is_known_directory(directory):
                continue  # the moved name at this path, or above it, hides it
            if self._is_base_directory(directory):
                self.base_listing(self._base, directory)
            children = self.known_children(directory)
            assert children is not None, "the caller has asked _can_cover"
            sealed, loose = self.moves.sealed.get(directory, EMPTY), self.moves.loose.get(directory, EMPTY)
            for name, attr in listings[directory].items():
                if not is_directory(attr):
                    self.moves.cut(join(directory, name))
                truth = children.get(name, WHITEOUT)
                if loose.get(name, sealed.get(name, attr)) is not truth:
                    self.moves.note(directory, name, truth)

    def _is_base_directory(self, path: bytes) -> bool:
        """Return whether the newest base shows a directory at `path` that nothing hides.

        A directory that the base will show when the parent freezes counts too.
        """
        if self.moves.is_cut(path):  # by itself, or by a directory above
            return False
        while path and path not in self._base.frozen:
            parent, name = split(path)
            if (frozen := self._base.frozen.get(parent)) is not None:
                return is_directory(frozen.get(name))
            path = parent
        return True

    def _resolve(self, view: View, path: bytes) -> Shown:
        """Return what `view` shows at `path`, and the layers that show a directory there.

        The layers stand topmost first.
        """
        if not path:
            return view.root, (*view.sparse(), view.base)
        if path in view.resolved:
            return view.resolved[path]
        parent, name = split(path)
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


Below = list[tuple[Mapping[bytes, Listing], frozenset[bytes]]]  # listings and opaque directories of layers


def _is_directory_below(directory: bytes, below: Below) -> bool:
    """Return whether a layer below the newest delta has this directory too.

    If none has it, whiteouts hide nothing there, and overlayfs would list them as if they were
    files.
    """
    for path in reversed(tuple(from_below_up(directory))):
        parent, name = split(path)
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
