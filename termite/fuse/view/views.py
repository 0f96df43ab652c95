"""Name the immutable layers that jobs are shown, and the view of one job, which is a stack of them.

From the top, a view has *real layers*, the warm layer, and a *base* of the mirror. Real layers are
directories on this worker's disk; one *delta* of the mirror may stand among them. Delta and real
layers are sparse: if a name is gone, they have a whiteout.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from termite.engine.model import Attr

Listing = Mapping[bytes, Attr]

WHITEOUT = Attr(mode=stat.S_IFCHR, size=0, mtime_ns=0)  # overlayfs: a character device 0:0 hides a name
EMPTY: Listing = {}
REAL_PLACE = "layers"  # beside the mount point, so that overlay's options name a layer by a few bytes


class Need(Exception):
    """A fact is missing: the entries of the directory `path`."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


@dataclass(slots=True, eq=False)
class Base:
    """A view of the whole tree.

    `frozen` has the directories that it has shown. `jobs` counts the jobs that still see it.
    """

    name: str
    root: Attr
    frozen: dict[bytes, Listing] = field(default_factory=dict)
    jobs: int = 0


@dataclass(slots=True, eq=False)
class Delta:
    """A sparse view above a base; a directory without a listing of its own is empty in it."""

    name: str
    root: Attr
    listings: Mapping[bytes, Listing]
    jobs: int = 0

    def has(self, path: bytes) -> bool:
        """Return whether it shows something at `path` or below."""
        parent, _, name = path.rpartition(b"/")
        return path in self.listings or name in self.listings.get(parent, EMPTY)


@dataclass(slots=True, eq=False)
class Layer:
    """A directory on this worker's disk with the entries of `listings`, all ancestors included.

    `opaque` directories hide what layers below have at their path. `names` counts the entries;
    `size_bytes` is the size of all files together.
    """

    name: str
    listings: Mapping[bytes, Listing] = field(repr=False)
    opaque: frozenset[bytes] = frozenset()
    names: int = 0
    size_bytes: int = 0
    jobs: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The stack of layers that one job sees.

    `stack` has the real layers, topmost first; `above` counts those of them above the delta.
    """

    base: Base
    delta: Delta | None
    stack: tuple[Layer, ...] = ()
    above: int = 0
    resolved: "dict[bytes, Shown]" = field(
        default_factory=dict, repr=False
    )  # a cache of `Tree.attr_at`, for directories

    @property
    def root(self) -> Attr:
        """The attributes of `/`: if they change, later views have a new delta."""
        return self.delta.root if self.delta else self.base.root

    def layers(self, warm: str = "") -> str:
        """Return overlayfs's `lowerdir`, topmost first, relative to the mount point.

        `warm` is the part of the warm layer with its colon, or "" if there is none.
        """
        sparse = "".join(
            f"../{REAL_PLACE}/{layer.name}:" if isinstance(layer, Layer) else f"delta/{layer.name}:"
            for layer in self.sparse()
        )
        return f"{sparse}{warm}base/{self.base.name}"

    def sparse(self) -> tuple[Delta | Layer, ...]:
        """Return all layers but the base, topmost first."""
        if self.delta is None:
            return self.stack
        return (*self.stack[: self.above], self.delta, *self.stack[self.above :])

    def enter(self, jobs: int) -> None:
        """Count `jobs` more jobs that see it: 1, or -1 if one has ended."""
        self.base.jobs += jobs
        for layer in self.sparse():
            layer.jobs += jobs


# The attributes of a name (None: there is none), and the layers that show a directory there,
# topmost first.
Shown = tuple[Attr | None, tuple[Base | Delta | Layer, ...]]
