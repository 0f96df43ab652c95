"""Write one generation of the warm layer to disk: a complete tree that never changes afterwards.

A generation is written in a thread. `GenerationBuild` shares nothing with the rest of the process
but the store of contents, which any thread may use.
"""

import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from termite.engine.model import Attr, Digest
from termite.engine.store.cas import Cas
from termite.fuse import mirror_calls
from termite.fuse.layers.real_tree import RealTree
from termite.fuse.view.views import Listing

# Two names of one file show in its link count, while jobs use both generations. So only large files
# are linked, and no live ones: compilers and libraries, which nobody packs by their link counts.
MIN_LINKED_BYTES = 64 * 1024
WARM_PLACE = "warm"  # beside the mount point, so that overlay's options name a generation by a few bytes


@dataclass(slots=True, eq=False)
class WarmGeneration:
    """A complete, unchanging tree. `files` has the version of each path that it holds.

    `listings` has its names by directory, `jobs` the number of running jobs that see it.
    """

    name: str
    files: Mapping[bytes, Attr] = field(repr=False)
    listings: Mapping[bytes, Listing] = field(repr=False)
    jobs: int = 0

    def layer(self) -> str:
        """Return its part of overlay's lowerdir, relative to the mount point."""
        return f"../{WARM_PLACE}/{self.name}:"


@dataclass(slots=True)
class GenerationBuild:
    """The plan of one generation in the new directory `root`.

    `wanted` has the files and symlinks by path; the digest of an empty file may be None. `before`
    is the directory of the previous generation, and `held` has the files in it; if `held` is empty,
    there is none. `is_live` must be callable from a thread.
    """

    cas: Cas
    is_live: Callable[[bytes], bool]
    root: bytes
    wanted: dict[bytes, tuple[Attr, Digest | None]]
    before: bytes = b""
    held: Mapping[bytes, Attr] = field(default_factory=dict)

    def write(self, directories: tuple[tuple[bytes, Attr], ...]) -> tuple[dict[bytes, Attr], float]:
        """Write the generation. Return the files in it, and the seconds of CPU that it took.

        `directories` are all ancestors of the wanted paths, parents first. A file whose content was
        evicted in the meantime is left out. This blocks on the disk. Raises OSError, for example if
        the disk is full; the caller turns the warm layer off.
        """
        started_s = time.thread_time()
        if not directories:
            return {}, 0.0
        mirror_calls.mkdir(self.root, 0o700)
        with ExitStack() as stack:
            real = stack.enter_context(RealTree(self.root))
            before = stack.enter_context(RealTree(self.before)) if self.held else None
            held = self._fill(real, before, directories)
        return held, time.thread_time() - started_s

    def _fill(
        self, real: RealTree, before: RealTree | None, directories: tuple[tuple[bytes, Attr], ...]
    ) -> dict[bytes, Attr]:
        for path, _ in directories:
            if path:
                real.make_directory(path)
        held = {
            path: attr for path, (attr, digest) in self.wanted.items() if self._add(real, before, path, attr, digest)
        }
        for path, attr in reversed(directories):  # adding an entry would change the directory's time again
            real.set_directory_attributes(path, attr)
        return held

    def _add(self, real: RealTree, before: RealTree | None, path: bytes, attr: Attr, digest: Digest | None) -> bool:
        """Make one name. Return False, and make nothing, if its content is not in the store."""
        if stat.S_ISLNK(attr.mode):
            real.make_symlink(path, attr)
            return True
        if before is None or self.held.get(path) is not attr:
            return real.make_file_from_store(path, self.cas, digest, attr)
        if attr.size > MIN_LINKED_BYTES and not self.is_live(path):
            real.link_file(path, before)
        else:
            real.copy_file(path, before, attr)
        return True


def directories_above(
    paths: Mapping[bytes, object], attr_of: Callable[[bytes], Attr | None]
) -> tuple[tuple[bytes, Attr], ...]:
    """Return the directories above `paths`, each once and after its parent.

    `attr_of` must know each of them: a name that is true has true ancestors.
    """
    found: dict[bytes, Attr] = {}
    for path in paths:
        while path and (path := path.rpartition(b"/")[0]) not in found:
            attr = attr_of(path)
            assert attr is not None, path
            found[path] = attr
    return tuple(sorted(found.items()))


def by_directory(entries: Iterable[tuple[bytes, Attr]]) -> dict[bytes, dict[bytes, Attr]]:
    """Return the entries by directory and name. The root is left out, because it has no name."""
    listings: dict[bytes, dict[bytes, Attr]] = {}
    for path, attr in entries:
        if path:
            parent, _, name = path.rpartition(b"/")
            listings.setdefault(parent, {})[name] = attr
    return listings
