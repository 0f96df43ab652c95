"""What has moved since a base was made: the names that must be shown above it. Pure.

A name that moved is *loose* (the mirror shows it, in a delta) until its newest version stands in a *real layer*. Every
look-up in a directory that a new delta has costs a request; one in a real layer costs none. So what can be made real is
made real, and what cannot (a large file that no job asks for) stands in the delta that was made for it.

Real layers are stacked, the newest on top, and never changed. Some that are alike in size become one, so there are
few, and a name is copied a few times in all (a log-structured merge tree). A delta is as lasting as they are: layers
that come later stand above it, and hide what it has of their names. It is made anew, on top, when a name is loose that
it does not show, when it shows one that nothing hides any more, or when layers from both sides of it become one.

What a layer has at a path that is no directory hides what is below for good, also when the path becomes a directory
again in a higher layer: that path is *cut*, and everything in it has to come from here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from termite.engine.model import Attr
from termite.fuse.view.views import EMPTY, WHITEOUT, Layer, Listing, is_directory, join, lineage

GROWTH = 2  # a layer is merged with those above it as soon as it has not this many times their names
MAX_LAYERS = 8  # above that, look-ups begin to cost

Listings = Mapping[bytes, Listing]


@dataclass(slots=True)
class Moves:
    """Since one base was made. `sealed` is what the stack shows, whichever layer has it."""

    loose: dict[bytes, dict[bytes, Attr]] = field(default_factory=dict)
    stack: list[Layer] = field(default_factory=list)
    sealed: dict[bytes, dict[bytes, Attr]] = field(default_factory=dict)
    fresh: dict[bytes, Attr] = field(default_factory=dict)  # loose ones nobody has tried to make real yet
    contents: dict[bytes, bytes] = field(default_factory=dict)  # of some that are fresh, as they came with the news
    above: int = 0  # so many layers of the stack have come after the newest delta
    is_old: bool = False  # that delta would show something wrong
    _stirred: set[bytes] = field(default_factory=set)  # loose names that it does not show as they are now
    _shown: Listings = field(default_factory=dict)  # what was loose when it was made
    _cuts: set[bytes] = field(default_factory=set)
    _own: set[bytes] = field(default_factory=set)  # the listings of `loose` that no delta shares

    def note(self, parent: bytes, name: bytes, attr: Attr) -> None:
        """This is to be seen there from now on."""
        self._own_listing(parent)[name] = attr
        path = join(parent, name)
        self.fresh[path] = attr
        self.contents.pop(path, None)
        self._stirred.add(path)

    def take_back(self, parent: bytes, name: bytes) -> None:
        """The name is gone, and nothing below ever had it."""
        if name in self.loose.get(parent, EMPTY):
            del self._own_listing(parent)[name]
            path = join(parent, name)
            self.fresh.pop(path, None)
            if name in self._shown.get(parent, EMPTY):
                self.is_old = True
            self._stirred.discard(path)

    def forget(self, directory: bytes) -> None:
        """It is gone, with all that was loose in it. What is sealed in it is hidden by whatever takes its place."""
        for name in self.loose.pop(directory, EMPTY):
            path = join(directory, name)
            self.fresh.pop(path, None)
            self._stirred.discard(path)
        self._own.discard(directory)

    def has_sealed(self, parent: bytes, name: bytes) -> bool:
        return name in self.sealed.get(parent, EMPTY)

    def cut(self, path: bytes) -> None:
        """A real layer has something there that is no directory."""
        self._cuts.add(path)

    def is_cut(self, directory: bytes) -> bool:
        """Whether some layer hides all that a base has there."""
        return bool(self._cuts) and any(path in self._cuts for path in lineage(directory))

    @property
    def needs_delta(self) -> bool:
        """The newest delta will not do: a view needs another one, or none."""
        return self.is_old or bool(self._stirred) or (bool(self._shown) and not any(self.loose.values()))

    def count(self) -> int:
        """How many names are loose."""
        return sum(map(len, self.loose.values()))

    def shared(self, hides: Callable[[bytes], bool]) -> dict[bytes, Listing]:
        """What is loose, for a new delta on top to keep: it is copied before it changes again. Whiteouts only in
        directories where they hide something."""
        self._own.clear()
        self._stirred.clear()
        self.is_old, self.above = False, 0
        shown: dict[bytes, Listing] = {}
        for path, listing in self.loose.items():
            if WHITEOUT in listing.values() and not hides(path):
                listing = {name: attr for name, attr in listing.items() if attr is not WHITEOUT}
            if listing:
                shown[path] = listing
        self._shown = shown
        return dict(shown)

    def push(self, layer: Layer) -> None:
        """A new layer, made of what was loose a moment ago. It hides what has moved again since, until a delta stands
        above it."""
        self.stack.insert(0, layer)
        self.above += 1
        for directory, listing in layer.listings.items():
            self.sealed.setdefault(directory, {}).update(listing)
            for name, attr in listing.items():
                loose = self.loose.get(directory, EMPTY).get(name)
                if loose is attr:
                    del self._own_listing(directory)[name]
                    path = join(directory, name)
                    self._stirred.discard(path)
                    self.fresh.pop(path, None)  # noted once more meanwhile: all whiteouts are one
                elif loose is not None:
                    self.is_old = True

    def mergeable(self) -> int:
        """How many of the topmost layers should become one; 0: none."""
        above = found = 0
        for position, layer in enumerate(self.stack):
            if position and layer.names <= GROWTH * above:
                found = position + 1
            above += layer.names
        return found or (MAX_LAYERS // 2 if len(self.stack) > MAX_LAYERS else 0)

    def replace(self, old: tuple[Layer, ...], merged: Layer) -> None:
        """They stand next to each other, perhaps below newer ones."""
        at = self.stack.index(old[0])
        end = at + len(old)
        self.stack[at:end] = [merged]
        if end <= self.above:
            self.above -= len(old) - 1
        elif at < self.above:
            self.is_old = True

    def _own_listing(self, directory: bytes) -> dict[bytes, Attr]:
        if directory not in self._own:
            self.loose[directory] = dict(self.loose.get(directory, EMPTY))
            self._own.add(directory)
        return self.loose[directory]


@dataclass(frozen=True, slots=True)
class Merged:
    """What one layer in place of several has: `sources` says from which of them each name comes."""

    listings: dict[bytes, dict[bytes, Attr]]
    sources: dict[bytes, Layer]
    opaque: frozenset[bytes]


def merge(layers: Iterable[Layer]) -> Merged:
    """One layer that hides and shows what all of them did together, topmost first."""
    listings: dict[bytes, dict[bytes, Attr]] = {}
    sources: dict[bytes, Layer] = {}
    opaque: set[bytes] = set()
    for layer in layers:
        closed = frozenset(opaque)  # what was hidden by a layer above is hidden from this one
        for directory in sorted(layer.listings):
            if directory and not _reaches(directory, listings, closed):
                continue
            listing = listings.setdefault(directory, {})
            for name, attr in layer.listings[directory].items():
                path = join(directory, name)
                if name not in listing:
                    listing[name] = attr
                    sources[path] = layer
                elif is_directory(listing[name]) and not is_directory(attr) and sources[path] is not layer:
                    opaque.add(path)
                if path in layer.opaque and is_directory(listing[name]) and path not in closed:
                    opaque.add(path)
    return Merged(listings, sources, frozenset(opaque))


def _reaches(directory: bytes, listings: Listings, closed: frozenset[bytes]) -> bool:
    """Whether what is in `directory` of a lower layer is seen: all the way down there are directories, none opaque."""
    for path in lineage(directory):
        parent, _, name = path.rpartition(b"/")
        above = listings.get(parent, EMPTY).get(name)
        if path in closed or above is None or not is_directory(above):
            return False
    return True
