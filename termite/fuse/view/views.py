"""What jobs are shown: immutable layers, and the view of one job, which is a stack of them. Pure.

From the top of a view: *real layers* (directories on this worker's disk), among them perhaps one *delta* of the mirror,
then the warm layer, and a *base* of the mirror. Delta and real layers are sparse; a name that is gone is a whiteout
there.
"""

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from termite.engine.model import Attr

Listing = Mapping[bytes, Attr]

WHITEOUT = Attr(mode=stat.S_IFCHR, size=0, mtime_ns=0)  # overlayfs: a character device 0:0 hides a name
EMPTY: Listing = {}
REAL_PLACE = "layers"  # beside the mount point, so that overlay's options name a layer by a few bytes


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

    def has(self, path: bytes) -> bool:
        """Something is shown at `path`, or below."""
        parent, _, name = path.rpartition(b"/")
        return path in self.listings or name in self.listings.get(parent, EMPTY)


@dataclass(slots=True, eq=False)
class Layer:
    """A directory on this worker's disk that holds what `listings` says, all ancestors included.

    `opaque` directories hide what layers below have at their path. `names`: how many entries; `size_bytes`: of files.
    """

    name: str
    listings: Mapping[bytes, Listing] = field(repr=False)
    opaque: frozenset[bytes] = frozenset()
    names: int = 0
    size_bytes: int = 0
    jobs: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one job sees. `stack`: the real layers, topmost first; so many are `above` the delta."""

    base: Base
    delta: Delta | None
    stack: tuple[Layer, ...] = ()
    above: int = 0
    resolved: "dict[bytes, Shown]" = field(default_factory=dict, repr=False)  # directories, by `Tree.attr_at`

    @property
    def root(self) -> Attr:
        """The attributes of `/`: real layers are made anew when it changes."""
        return self.delta.root if self.delta else self.base.root

    def layers(self, warm: str = "") -> str:
        """Overlayfs's lowerdir, topmost first, relative to the mount point."""
        sparse = "".join(
            f"../{REAL_PLACE}/{layer.name}:" if isinstance(layer, Layer) else f"delta/{layer.name}:"
            for layer in self.sparse()
        )
        return f"{sparse}{warm}base/{self.base.name}"

    def sparse(self) -> tuple[Delta | Layer, ...]:
        """All but the base, topmost first."""
        if self.delta is None:
            return self.stack
        return (*self.stack[: self.above], self.delta, *self.stack[self.above :])

    def enter(self, jobs: int) -> None:
        """One job more (1) or less (-1) sees it."""
        self.base.jobs += jobs
        for layer in self.sparse():
            layer.jobs += jobs


# What a name is, and the layers that show a directory there, from the top.
Shown = tuple[Attr | None, tuple[Base | Delta | Layer, ...]]


def is_directory(attr: Attr | None) -> TypeGuard[Attr]:
    return attr is not None and stat.S_ISDIR(attr.mode)


def join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def lineage(path: bytes) -> Iterator[bytes]:
    """`path` and every directory above it but the root, from below."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]
