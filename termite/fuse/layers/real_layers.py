"""Makes real what has moved: directories on this worker's disk, with files, symlinks, whiteouts as views have them.

They stand in the scratch space, where jobs cannot look. What cannot be real stays loose, and the mirror shows it: files
whose content is not here, files with several names, large ones, setuid ones. Small contents are fetched ahead, so that
they need not stay so. A layer is complete before any job sees it, and is removed when no job does.
"""

import itertools
import logging
import os
import stat
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio

from termite.engine.errors import TermiteError
from termite.engine.model import Attr, Digest
from termite.engine.paths import join
from termite.engine.store.cas import Cas
from termite.fuse.content.fetch import Fetcher
from termite.fuse.layers.real_tree import RealTree, can_be_real
from termite.fuse.sandbox.scratch import Scratch
from termite.fuse.view.moved_names import Merged, merge
from termite.fuse.view.tree import Tree
from termite.fuse.view.views import REAL_PLACE, WHITEOUT, Layer, Listing, is_directory

AT_ONCE_NAMES = 128  # up to here it is done at once: 10 us a name, and a thread costs 100
AT_ONCE_BYTES = 1024 * 1024
MAX_FILE_BYTES = 8 * 1024**2  # a larger one is opened by few jobs, and copying it costs more than their requests
SHARE, MOST_BYTES = 0.25, 4 * 1024**3  # of the scratch space
AHEAD_BYTES = 64 * 1024  # a file up to this size is fetched before a job asks for it
AHEAD_FILES = 1000  # waiting to be fetched; of more than that, jobs may ask for what they need
AHEAD_AT_ONCE = 8
AHEAD_TIMES = 2  # versions of a file that no job asks for, as of the log that ninja writes after each command
IN_VAIN_LIMIT = 10_000  # files of which that is remembered
OPAQUE = "user.overlay.opaque"
# On a directory that no other layer has: without it, overlayfs lists the whiteouts in it as if they were files.
HAS_WHITEOUTS = "user.overlay.origin"

log = logging.getLogger(__name__)


class Layers:
    """The real layers of one lease."""

    def __init__(self, tree: Tree, cas: Cas, fetcher: Fetcher, scratch: Scratch) -> None:
        self._tree = tree
        self._cas = cas
        self._fetcher = fetcher
        self._scratch = scratch
        self._root = os.fsencode(scratch.directory(REAL_PLACE))
        self._names = itertools.count(1)
        self._max_bytes = min(scratch.size_bytes() * SHARE, MOST_BYTES)
        self._is_busy = False
        self._is_off = False
        self._ahead: dict[bytes, Attr] = {}
        self._in_vain: Counter[bytes] = Counter()  # fetched ahead since a job has asked for it
        self._is_ahead = trio.Event()

    async def settle(self) -> None:
        """Make real what has moved: called before a job gets its view. Where that goes on already, it does not wait."""
        if self._is_off:
            self._tree.moves.contents.clear()  # nobody will need them
            return
        if self._is_busy or not self._tree.moves.fresh:
            return
        self._is_busy = True
        try:
            with trio.CancelScope(shield=True):  # a job that is cancelled now would leave loose what it was to make
                await self._seal()
            while count := self._tree.moves.mergeable():
                await self._merge(tuple(self._tree.moves.stack[:count]))
        except OSError as error:
            self._is_off = True  # what is there stays right; what comes is shown by the mirror
            log.warning("layers-off reason=%r", str(error))
        finally:
            self._is_busy = False

    def is_wanted(self, path: bytes, attr: Attr) -> None:
        """A job has opened this file, whose content is here now."""
        del self._in_vain[path]
        self._tree.is_here(path, attr)

    def discard_unused(self) -> None:
        """Remove, in the background, what no job sees any more."""
        for layer in self._tree.pop_unused_layers():
            self._scratch.remove_later(Path(os.fsdecode(self._root)) / layer.name)

    async def keep_fetching(self) -> None:
        """Fetch small files that have changed elsewhere, before they are asked for."""
        while True:
            await self._is_ahead.wait()
            self._is_ahead = trio.Event()
            async with trio.open_nursery() as nursery:
                for _ in range(AHEAD_AT_ONCE):
                    nursery.start_soon(self._fetch_some)

    async def _fetch_some(self) -> None:
        while self._ahead:
            path, attr = self._ahead.popitem()
            if len(self._in_vain) > IN_VAIN_LIMIT:
                self._in_vain.clear()
            self._in_vain[path] += 1
            if self._tree.truth_at(path) is attr:
                try:
                    await self._fetcher.ahead(path, attr)
                except TermiteError as error:  # it has changed again, or whoever needs it will say
                    log.debug("layers-not-prefetched path=%r reason=%r", path, str(error))
                else:
                    self._tree.is_here(path, attr)

    async def _seal(self) -> None:
        moves = self._tree.moves
        room = self._max_bytes - sum(layer.size_bytes for layer in moves.stack)
        fresh, moves.fresh = moves.fresh, {}
        contents, moves.contents = moves.contents, {}
        build = _Build(self._cas, os.path.join(self._root, b"%d" % next(self._names)), self._tree.root)
        listings: dict[bytes, dict[bytes, Attr]] = {}
        for path, attr in fresh.items():
            digest = self._tree.digest_of(attr) if stat.S_ISREG(attr.mode) else None
            content = contents.get(path)
            if not self._can_be_real(path, attr, digest, content) or build.size_bytes + attr.size > room:
                continue
            parent, _, name = path.rpartition(b"/")
            listings.setdefault(parent, {})[name] = attr
            build.size_bytes += attr.size if stat.S_ISREG(attr.mode) else 0
            if content is not None:
                build.contents[path] = content
            elif digest is not None:
                build.digests[path] = digest
        if not listings:
            return
        build.listings.update(listings)
        self._tree.add_ancestors(build.listings)
        layer = await _run(build)
        if moves is self._tree.moves:  # else there is a new base, for which nothing has moved yet
            self._tree.push(layer)
        else:
            self._tree.layers.add(layer)  # to be removed like any other

    async def _merge(self, layers: tuple[Layer, ...]) -> None:
        moves = self._tree.moves
        build = _Build(self._cas, os.path.join(self._root, b"%d" % next(self._names)), self._tree.root)
        build.take(merge(layers), self._root)
        for layer in layers:
            layer.jobs += 1  # else it may go while it is read, if there is a new base meanwhile
        try:
            merged = await _run(build)
        finally:
            for layer in layers:
                layer.jobs -= 1
        self._tree.layers.add(merged)
        if moves is self._tree.moves:
            moves.replace(layers, merged)

    def _can_be_real(self, path: bytes, attr: Attr, digest: Digest | None, content: bytes | None) -> bool:
        if attr is WHITEOUT or is_directory(attr):
            return can_be_real(path, attr)
        if attr.nlink > 1 or not can_be_real(path, attr):
            return False
        if stat.S_ISLNK(attr.mode):
            return True
        if not stat.S_ISREG(attr.mode) or attr.size > MAX_FILE_BYTES:
            return False
        if attr.size == 0 or content is not None or (digest is not None and self._cas.path(digest) is not None):
            return True
        is_asked_for = self._in_vain[path] < AHEAD_TIMES
        if is_asked_for and attr.size <= AHEAD_BYTES and len(self._ahead) < AHEAD_FILES:
            self._ahead[path] = attr
            self._is_ahead.set()
        return False


async def _run(build: "_Build") -> Layer:
    if sum(map(len, build.listings.values())) <= AT_ONCE_NAMES and build.size_bytes <= AT_ONCE_BYTES:
        return build.run()
    return await trio.to_thread.run_sync(build.run)


@dataclass(slots=True)
class _Build:
    """One layer in the making, which may go on in a thread: nothing here is shared but the store.

    `copies`: the layer, never changed, in which a name stands already. It is not linked from there: jobs would see that
    in the link count.
    """

    cas: Cas
    top: bytes
    root: Attr
    listings: dict[bytes, Listing] = field(default_factory=dict)
    digests: dict[bytes, Digest] = field(default_factory=dict)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    copies: dict[bytes, bytes] = field(default_factory=dict)
    opaque: frozenset[bytes] = frozenset()
    size_bytes: int = 0

    def take(self, merged: Merged, layers_root: bytes) -> None:
        """Make this the one layer in place of several."""
        self.listings = dict(merged.listings)
        self.opaque = merged.opaque
        for path, layer in merged.sources.items():
            self.copies[path] = os.path.join(layers_root, os.fsencode(layer.name))
        for listing in merged.listings.values():
            self.size_bytes += sum(attr.size for attr in listing.values() if stat.S_ISREG(attr.mode))

    def run(self) -> Layer:
        """Make all of it. A content that was evicted a moment ago is left out, and so its name stays loose."""
        os.mkdir(self.top, 0o700)
        with ExitStack() as stack:
            real = stack.enter_context(RealTree(self.top))
            sources = {layer: stack.enter_context(RealTree(layer)) for layer in set(self.copies.values())}
            made = self._fill(real, sources)
        own_name = os.fsdecode(os.path.basename(self.top))
        return Layer(own_name, made, self.opaque, sum(map(len, made.values())), self.size_bytes)

    def _fill(self, real: RealTree, sources: Mapping[bytes, RealTree]) -> dict[bytes, Listing]:
        directories: list[tuple[bytes, Attr]] = []
        made: dict[bytes, Listing] = {}
        for directory in sorted(self.listings):
            here: dict[bytes, Attr] = {}
            made[directory] = here
            for name, attr in self.listings[directory].items():
                path = join(directory, name)
                if self._add(real, sources, path, attr):
                    here[name] = attr
                if is_directory(attr):
                    directories.append((path, attr))
        for directory, names in made.items():
            if WHITEOUT in names.values():
                real.set_xattr(directory, HAS_WHITEOUTS, b"")
        for path, attr in reversed(directories):  # a directory's time is its own when nothing is added any more
            real.dress_directory(path, attr)
        real.dress_directory(b"", self.root)
        return made

    def _add(self, real: RealTree, sources: Mapping[bytes, RealTree], path: bytes, attr: Attr) -> bool:
        if is_directory(attr):
            real.make_directory(path)
            if path in self.opaque:
                real.set_xattr(path, OPAQUE, b"y")
        elif attr is WHITEOUT:
            real.make_whiteout(path)
        elif stat.S_ISLNK(attr.mode):
            real.make_symlink(path, attr)
        elif path in self.copies:
            real.copy_file(path, sources[self.copies[path]], attr)
        elif path in self.contents:
            real.write_file(path, self.contents[path], attr)
        else:
            return real.fill_file(path, self.cas, self.digests.get(path), attr)
        return True
