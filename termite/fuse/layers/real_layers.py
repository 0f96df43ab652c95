"""Make changed names real: put them into directories on this worker's disk that views can stack.

A real layer has files, symlinks, directories and whiteouts as views have them. It stands in the
scratch space, where jobs cannot see it. Names that cannot be real stay loose, and the mirror shows
them. These are files whose content is not here, files with several names, large files, and setuid
files. Small contents are fetched ahead, so that their files become real too.

A layer is complete before any job sees it. It is removed when no job sees it any more.
"""

import itertools
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import trio

from termite.engine.model import Attr, Digest, is_directory
from termite.engine.store.cas import Cas
from termite.fuse.content.fetch import Fetcher
from termite.fuse.layers.prefetch import Prefetcher
from termite.fuse.layers.real_layer_build import RealLayerBuild, run_layer_build
from termite.fuse.layers.real_tree import can_be_real
from termite.fuse.sandbox.scratch import Scratch
from termite.fuse.view.view_tree import Tree
from termite.fuse.view.views import REAL_PLACE, WHITEOUT, Layer

MAX_REAL_FILE_BYTES = 8 * 1024**2  # few jobs open a larger one, and copying it costs more than their requests
MAX_SPARSE_FILE_BYTES = 512 * 1024**2  # of data, in a file that has more holes than data
SCRATCH_SHARE = 0.25  # of the scratch space, for all real layers; jobs need the rest
MAX_LAYERS_BYTES = 4 * 1024**3  # for all real layers of a lease, however large the scratch space is

log = logging.getLogger(__name__)


class RealLayers:
    """The real layers of one lease, and the files that are fetched ahead for them."""

    def __init__(self, tree: Tree, cas: Cas, fetcher: Fetcher, scratch: Scratch) -> None:
        self._tree = tree
        self._cas = cas
        self._scratch = scratch
        self._prefetcher = Prefetcher(tree, fetcher)
        self._root = os.fsencode(scratch.make_directory(REAL_PLACE))
        self._names = itertools.count(1)
        self._max_bytes = min(scratch.size_bytes() * SCRATCH_SHARE, MAX_LAYERS_BYTES)
        self._is_busy = False
        self._is_off = False

    async def settle(self) -> None:
        """Make changed names real before a job gets its view.

        Return at once if another task is doing this. A disk that fails turns real layers off for
        the rest of the lease: the mirror shows all names that change later.
        """
        if self._is_off:
            self._tree.moves.contents.clear()  # no layer will use them
            return
        if self._is_busy or not self._tree.moves.fresh:
            return
        self._is_busy = True
        try:
            with trio.CancelScope(shield=True):  # a job that is cancelled now would leave its names loose
                await self._seal()
            while count := self._tree.moves.mergeable():
                await self._merge(tuple(self._tree.moves.stack[:count]))
        except OSError as error:
            self._is_off = True  # the layers that exist stay right
            log.warning("layers-off reason=%r", str(error))
        finally:
            self._is_busy = False

    def note_opened(self, path: bytes, attr: Attr) -> None:
        """Note that a job has opened this file: its content is here, so the file can be real."""
        self._prefetcher.note_opened(path)
        self._tree.is_here(path, attr)

    def statistics(self) -> dict[str, int]:
        """Return the size of the prefetcher's table."""
        return self._prefetcher.statistics()

    def discard_unused(self) -> None:
        """Queue the layers that no job sees any more for removal. Does not block."""
        for layer in self._tree.pop_unused_layers():
            self._scratch.remove_later(Path(os.fsdecode(self._root)) / layer.name)

    async def keep_fetching(self) -> None:
        """Fetch small changed files ahead until cancelled."""
        await self._prefetcher.keep_fetching()

    async def _seal(self) -> None:
        moves = self._tree.moves
        fresh, moves.fresh = moves.fresh, {}
        contents, moves.contents = moves.contents, {}
        build = self._new_build()
        room_bytes = self._max_bytes - sum(layer.size_bytes for layer in moves.stack)
        self._choose(build, fresh, contents, room_bytes)
        if not build.listings:
            return
        self._tree.add_ancestors(build.listings)
        layer = await run_layer_build(build)
        if moves is self._tree.moves:  # else there is a new base, on which no name has changed yet
            self._tree.push(layer)
        else:
            self._tree.layers.add(layer)  # so that it is removed like any other

    def _choose(
        self, build: RealLayerBuild, fresh: Mapping[bytes, Attr], contents: Mapping[bytes, bytes], room_bytes: float
    ) -> None:
        """Add the names to `build` that can be real and have room."""
        listings: dict[bytes, dict[bytes, Attr]] = {}
        for path, attr in fresh.items():
            digest = self._tree.digest_of(attr) if stat.S_ISREG(attr.mode) else None
            content = contents.get(path)
            size_bytes = self._disk_bytes(attr, digest)
            if not self._can_stand(path, attr, digest, content) or build.size_bytes + size_bytes > room_bytes:
                continue
            parent, _, name = path.rpartition(b"/")
            listings.setdefault(parent, {})[name] = attr
            build.size_bytes += size_bytes if stat.S_ISREG(attr.mode) else 0
            if content is not None:
                build.contents[path] = content
            elif digest is not None:
                build.digests[path] = digest
        build.listings.update(listings)

    def _disk_bytes(self, attr: Attr, digest: Digest | None) -> int:
        """Return the space that a file takes in a layer. Only a large one may be sparse."""
        if attr.size <= MAX_REAL_FILE_BYTES or digest is None or self._cas.path(digest) is None:
            return attr.size
        return self._cas.disk_bytes(digest)

    async def _merge(self, layers: tuple[Layer, ...]) -> None:
        moves = self._tree.moves
        build = self._new_build()
        build.replace(self._tree.merge(layers), self._root)
        for layer in layers:
            layer.jobs += 1  # else a new base could have it removed while it is read
        try:
            merged = await run_layer_build(build)
        finally:
            for layer in layers:
                layer.jobs -= 1
        self._tree.layers.add(merged)
        if moves is self._tree.moves:
            self._tree.replace(layers, merged)

    def _new_build(self) -> RealLayerBuild:
        return RealLayerBuild(self._cas, os.path.join(self._root, b"%d" % next(self._names)), self._tree.root)

    def _can_stand(self, path: bytes, attr: Attr, digest: Digest | None, content: bytes | None) -> bool:
        """Return whether a name can be in a layer now. Queue a file that lacks only its content."""
        if attr is WHITEOUT or is_directory(attr):
            return can_be_real(path, attr)
        if attr.nlink > 1 or not can_be_real(path, attr):
            return False
        if stat.S_ISLNK(attr.mode):
            return True
        if not stat.S_ISREG(attr.mode):
            return False
        if attr.size > MAX_REAL_FILE_BYTES:
            # overlayfs copies a file without its holes if it is real, and with all zeros if not.
            return self._disk_bytes(attr, digest) <= min(MAX_SPARSE_FILE_BYTES, attr.size // 2)
        if attr.size == 0 or content is not None or (digest is not None and self._cas.path(digest) is not None):
            return True
        self._prefetcher.queue(path, attr)
        return False
