"""Keep the names that have changed since a base was made, and must be shown above it.

A moved name is *loose* (the mirror shows it, in a delta) until its newest version stands in a
*real layer*. In a directory that a new delta has, every look-up costs a request; in a real layer
it costs none. Therefore every name is made real if possible. The others, such as a large file
that no job asks for, stand in the delta.

Real layers are stacked, the newest on top, and never change. Layers of similar size are merged,
so that there are few (a log-structured merge tree). Each name is copied a few times in all.
A delta lasts as long as they do: later layers stand above it, and hide its outdated names.

A new delta is made, on top of the stack, in these cases:

1. A loose name is missing from the old one, or stands there in an older version.
2. The old one shows an outdated name that nothing above it hides any more.
3. Layers from both sides of it are merged.

If a layer has a non-directory at a path, it hides everything that lower layers have below that
path. This holds even if a higher layer has a directory there again. Such a path is *cut*: every
entry of that directory has to be a moved name.

Files that were made and deleted again leave whiteouts. A merge drops each whiteout that hides
nothing any more, and the tables forget its name. Otherwise they would grow with each new name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from termite.engine.model import Attr, is_directory
from termite.engine.paths import from_below_up, join
from termite.fuse.view.views import EMPTY, WHITEOUT, Layer, Listing

GROWTH = 2  # a layer is merged with those above it if it has at most so many times their names
MAX_LAYERS = 8  # with more of them, look-ups begin to cost

ByDirectory = Mapping[bytes, Listing]


@dataclass(slots=True)
class MovedNames:
    """The names that have moved since one base was made.

    `stack` has the real layers, topmost first. `sealed` has the names that they show together.
    """

    loose: dict[bytes, dict[bytes, Attr]] = field(default_factory=dict)
    stack: list[Layer] = field(default_factory=list)
    sealed: dict[bytes, dict[bytes, Attr]] = field(default_factory=dict)
    fresh: dict[bytes, Attr] = field(default_factory=dict)  # loose names that nobody has tried to make real yet
    contents: dict[bytes, bytes] = field(default_factory=dict)  # of some fresh names, as they came with the changes
    above: int = 0  # number of layers in the stack that are newer than the newest delta
    is_old: bool = False  # the newest delta would show something wrong
    _stirred: set[bytes] = field(default_factory=set)  # loose names that the newest delta does not show as they are now
    _shown: ByDirectory = field(default_factory=dict)  # the names in the newest delta
    _cuts: set[bytes] = field(default_factory=set)
    _own: set[bytes] = field(default_factory=set)  # directories whose listing in `loose` no delta shares

    def note(self, parent: bytes, name: bytes, attr: Attr) -> None:
        """Show this version of a name from now on; WHITEOUT hides the name."""
        self._own_listing(parent)[name] = attr
        path = join(parent, name)
        self.fresh[path] = attr
        self.contents.pop(path, None)
        self._stirred.add(path)

    def take_back(self, parent: bytes, name: bytes) -> None:
        """Remove a name that is gone, and that no layer below ever had."""
        if name in self.loose.get(parent, EMPTY):
            del self._own_listing(parent)[name]
            path = join(parent, name)
            self.fresh.pop(path, None)
            if name in self._shown.get(parent, EMPTY):
                self.is_old = True
            self._stirred.discard(path)

    def forget(self, directory: bytes) -> None:
        """Remove all loose names of a directory that is gone.

        The entry that takes the place of the directory hides the sealed ones.
        """
        for name in self.loose.pop(directory, EMPTY):
            path = join(directory, name)
            self.fresh.pop(path, None)
            self._stirred.discard(path)
        self._own.discard(directory)

    def has_sealed(self, parent: bytes, name: bytes) -> bool:
        """Return whether a real layer of the stack shows this name."""
        return name in self.sealed.get(parent, EMPTY)

    def cut(self, path: bytes) -> None:
        """Note that a real layer has something at `path` that is not a directory."""
        self._cuts.add(path)

    def uncut(self, path: bytes) -> None:
        """Note that no layer hides what a base has below `path` any more."""
        self._cuts.discard(path)

    def is_cut(self, directory: bytes) -> bool:
        """Return whether a real layer hides everything that a base has in this directory."""
        return bool(self._cuts) and any(path in self._cuts for path in from_below_up(directory))

    @property
    def needs_delta(self) -> bool:
        """True if a new view cannot use the newest delta: it needs another one, or none."""
        return self.is_old or bool(self._stirred) or (bool(self._shown) and not any(self.loose.values()))

    def count(self) -> int:
        """Return the number of loose names."""
        return sum(map(len, self.loose.values()))

    def shared(self, hides: Callable[[bytes], bool]) -> dict[bytes, Listing]:
        """Return the loose names for a new delta on top, which may keep them: they never change.

        Whiteouts are left out of directories for which `hides` returns False.
        """
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
        """Put a new layer on top, made of names that were loose when it was begun.

        If a name has moved again since, the layer hides that until a new delta stands above it.
        """
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
                    self.fresh.pop(path, None)  # noted again meanwhile: all whiteouts are one object
                elif loose is not None:
                    self.is_old = True

    def mergeable(self) -> int:
        """Return how many of the topmost layers should be merged now, or 0 if none should."""
        above = found = 0
        for position, layer in enumerate(self.stack):
            if position and layer.names <= GROWTH * above:
                found = position + 1
            above += layer.names
        return found or (MAX_LAYERS // 2 if len(self.stack) > MAX_LAYERS else 0)

    def replace(self, old: tuple[Layer, ...], merged: Layer) -> list[tuple[bytes, bytes]]:
        """Put `merged` in place of adjacent layers, perhaps below newer ones.

        Return the names, with their directories, that no layer of the stack has any more.
        """
        at = self.stack.index(old[0])
        end = at + len(old)
        self.stack[at:end] = [merged]
        if end <= self.above:
            self.above -= len(old) - 1
        elif at < self.above:
            self.is_old = True
        lost = {
            (directory, name)
            for layer in old
            for directory, listing in layer.listings.items()
            for name in listing.keys() - merged.listings.get(directory, EMPTY).keys()
        }
        return [(directory, name) for directory, name in lost if self._unseal(directory, name)]

    def _unseal(self, directory: bytes, name: bytes) -> bool:
        """Give a sealed name the version of the topmost layer that has it.

        Return True if there is none, so that the name was forgotten.
        """
        for layer in self.stack:
            attr = layer.listings.get(directory, EMPTY).get(name)
            if attr is not None:
                self.sealed[directory][name] = attr
                return False
        listing = self.sealed[directory]
        del listing[name]
        if not listing:
            del self.sealed[directory]
        return True

    def statistics(self) -> dict[str, int]:
        """Return the sizes of the tables."""
        return {
            "loose_names": self.count(),
            "layers": len(self.stack),
            "layer_names": sum(layer.names for layer in self.stack),
            "sealed_names": sum(map(len, self.sealed.values())),
            "cut_names": len(self._cuts),
        }

    def shows(self, directory: bytes, name: bytes) -> bool:
        """Return whether the newest delta has something at this name or below it."""
        return name in self._shown.get(directory, EMPTY) or join(directory, name) in self._shown

    def _own_listing(self, directory: bytes) -> dict[bytes, Attr]:
        if directory not in self._own:
            self.loose[directory] = dict(self.loose.get(directory, EMPTY))
            self._own.add(directory)
        return self.loose[directory]


@dataclass(frozen=True, slots=True)
class Merged:
    """The content of one layer in place of several.

    `sources` has the layer that each path comes from.
    """

    listings: dict[bytes, dict[bytes, Attr]]
    sources: dict[bytes, Layer]
    opaque: frozenset[bytes]


def merge(layers: Iterable[Layer], hides: Callable[[bytes, bytes], bool]) -> Merged:
    """Merge layers, given topmost first, to one that shows and hides the same as all of them.

    A whiteout is left out if `hides` returns False for its directory and name.
    """
    listings: dict[bytes, dict[bytes, Attr]] = {}
    sources: dict[bytes, Layer] = {}
    opaque: set[bytes] = set()
    for layer in layers:
        closed = frozenset(opaque)  # a layer above hides what this one has below these
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
    for directory, merged in listings.items():
        for name in [name for name, attr in merged.items() if attr is WHITEOUT and not hides(directory, name)]:
            del merged[name], sources[join(directory, name)]
    return Merged(listings, sources, frozenset(opaque))


def _reaches(directory: bytes, listings: ByDirectory, closed: frozenset[bytes]) -> bool:
    """Return whether jobs see what a lower layer has in `directory`.

    They do if all names on the way down are directories in the layers above, and none is opaque.
    """
    for path in from_below_up(directory):
        parent, _, name = path.rpartition(b"/")
        above = listings.get(parent, EMPTY).get(name)
        if path in closed or above is None or not is_directory(above):
            return False
    return True
