"""Write one real layer to disk: from new names, or from several layers that are merged.

Writing a large layer takes a thread. `RealLayerBuild` shares nothing with the rest of the process
but the store of contents, which any thread may use.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import trio

from termite.engine.model import Attr, Digest, is_directory
from termite.engine.paths import join
from termite.engine.sparse_content import SECTOR_BYTES
from termite.engine.store.cas import Cas
from termite.fuse import mirror_calls
from termite.fuse.layers.real_tree import OPAQUE_XATTR, ORIGIN_XATTR, RealTree
from termite.fuse.view.moved_names import Merged
from termite.fuse.view.views import WHITEOUT, Layer, Listing

# A layer up to this size is written without a thread. A name takes 10 us, and a thread 100 us.
MAX_NAMES_WITHOUT_THREAD = 128
MAX_BYTES_WITHOUT_THREAD = 1024 * 1024


@dataclass(slots=True)
class RealLayerBuild:
    """The plan of one layer below the new directory `top`, whose root has the attributes `root`.

    `listings` has all names by directory. The content of a file comes from one of three places, by
    its path. `contents` has it in memory. `digests` finds it in the store. `copies` names the
    directory of an older layer that has the file. Files are copied from there and never linked,
    because jobs would see the link count. `opaque` directories hide those of lower layers.
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

    def replace(self, merged: Merged, layers_root: bytes) -> None:
        """Plan one layer in place of several that stand in the directory `layers_root`."""
        self.listings = dict(merged.listings)
        self.opaque = merged.opaque
        for path, layer in merged.sources.items():
            self.copies[path] = os.path.join(layers_root, os.fsencode(layer.name))
        for path, top in self.copies.items():
            self.size_bytes += os.lstat(os.path.join(top, path)).st_blocks * SECTOR_BYTES

    def is_small(self) -> bool:
        """Return whether the layer is written faster than a thread would start."""
        names = sum(map(len, self.listings.values()))
        return names <= MAX_NAMES_WITHOUT_THREAD and self.size_bytes <= MAX_BYTES_WITHOUT_THREAD

    def write(self) -> Layer:
        """Write the layer, and return it. This blocks on the disk.

        A file whose content was evicted in the meantime is left out, and so stays loose.
        Raises OSError, for example if the disk is full; the caller turns real layers off.
        """
        mirror_calls.mkdir(self.top, 0o700)
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
                # If no other layer has the directory, overlayfs needs this mark. It would otherwise
                # list the whiteouts as if they were files.
                real.set_xattr(directory, ORIGIN_XATTR, b"")
        for path, attr in reversed(directories):  # adding an entry would change the directory's time again
            real.set_directory_attributes(path, attr)
        real.set_directory_attributes(b"", self.root)
        return made

    def _add(self, real: RealTree, sources: Mapping[bytes, RealTree], path: bytes, attr: Attr) -> bool:
        """Make one name. Return False, and make nothing, if its content is not in the store."""
        if is_directory(attr):
            real.make_directory(path)
            if path in self.opaque:
                real.set_xattr(path, OPAQUE_XATTR, b"y")
        elif attr is WHITEOUT:
            real.make_whiteout(path)
        elif stat.S_ISLNK(attr.mode):
            real.make_symlink(path, attr)
        elif path in self.copies:
            real.copy_file(path, sources[self.copies[path]], attr)
        elif path in self.contents:
            real.make_file(path, self.contents[path], attr)
        else:
            return real.make_file_from_store(path, self.cas, self.digests.get(path), attr)
        return True


async def run_layer_build(build: RealLayerBuild) -> Layer:
    """Write the layer of `build`, in a thread unless it is small. Raises OSError."""
    return build.write() if build.is_small() else await trio.to_thread.run_sync(build.write)
