"""Keep the warm layer: files that were read, and symlinks, as real files above the base.

Without it, each open, release and readlink of a header or a library is a request to Python, in
every job. These are three quarters of the requests of a compiler. A *generation* is a directory
tree with all warm files, in the modes and times of the mirror. A new generation copies or links the
files that the old one has too. Therefore a view needs only one warm layer.

Every view made until the next generation may use the newest one. The tree knows which names it
holds (`Tree.hold`), and covers those that change, as long as it can. A live file is taken after its
second open, because a source or an object file is mostly read once.

A generation belongs to this process, because the files of another master are other files. A new
lease still saves the network, because the store keeps the contents.
"""

import itertools
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import trio

from termite.engine.model import Attr, Digest
from termite.engine.private_directories import remove_tree
from termite.engine.store.cas import Cas
from termite.fuse.layers.real_tree import can_be_real
from termite.fuse.layers.warm_generation import GenerationBuild, WarmGeneration, by_directory, directories_above
from termite.fuse.view.view_tree import Tree

SEAL_S = 0.5  # files read within this time go into one generation; making one costs some 100 us a file
MISS_COST_S = 150e-6  # each use of a file that is not warm costs a look-up, an open and a release
MAX_WARM_BYTES = 4 * 1024**3  # a toolchain has some 100 MB, so this is a lot of test data
MAX_WARM_FILE_BYTES = 512 * 1024**2  # a larger file would fill the layer and is read by few jobs

log = logging.getLogger(__name__)


class WarmLayer:
    """The files to keep warm, and the newest generation of them.

    `root` is a directory of this process alone. `on_open` is called for each opened file that can
    be real and is in no real directory yet.
    """

    def __init__(self, tree: Tree, cas: Cas, root: Path, on_open: Callable[[bytes, Attr], None]) -> None:
        self._on_open = on_open
        self._tree = tree
        self._cas = cas
        self._root = os.fsencode(root)
        self._wanted: dict[bytes, tuple[Attr, Digest | None]] = {}
        self._wanted_bytes = 0
        self._is_due = trio.Event()
        self._misses = 0  # uses, since the newest generation was begun, of files that it might have had
        self._cost_s = 0.0  # CPU time that the newest generation took
        self._newest: WarmGeneration | None = None
        self._unused: list[WarmGeneration] = []
        self._names = itertools.count(1)

    def note(self, path: bytes, attr: Attr, digest: Digest | None, *, again: bool) -> None:
        """Note that a job opened a file whose content is in the store, or read a symlink.

        `digest` is None for a symlink or an empty file. `again`: it was opened before.
        """
        if path in self._wanted and self._wanted[path][0] is attr:
            self._count_miss()
            return
        if not can_be_real(path, attr):
            return
        if attr.size > min(MAX_WARM_FILE_BYTES, MAX_WARM_BYTES - self._wanted_bytes):
            return
        if not stat.S_ISLNK(attr.mode) and digest is None and attr.size:
            return
        self._on_open(path, attr)
        if self._tree.is_live(path) and (attr.nlink > 1 or not again):
            return
        before, _ = self._wanted.get(path, (None, None))
        self._wanted[path] = (attr, digest)
        self._wanted_bytes += attr.size - (before.size if before else 0)
        self._count_miss()

    def enter(self) -> WarmGeneration | None:
        """Return the generation for a job that starts now on the newest view, or None.

        The job must `leave` it at its end. There is none before the first one is made, and none if
        the tree could not cover its outdated names.
        """
        generation = self._newest
        if generation is None or generation.listings is not self._tree.held:
            return None
        generation.jobs += 1
        return generation

    def leave(self, generation: WarmGeneration | None) -> None:
        """Take back one `enter`, when the job has ended. None is allowed."""
        if generation is not None:
            generation.jobs -= 1

    def statistics(self) -> dict[str, int]:
        """Return the number of files in the newest generation, and the number and bytes to keep."""
        held = len(self._newest.files) if self._newest else 0
        return {"warm_files": held, "warm_wanted": len(self._wanted), "warm_wanted_bytes": self._wanted_bytes}

    async def keep_sealing(self) -> None:
        """Make a new generation whenever its lack has cost as much as the last one did.

        Thus the total cost is at most twice the least possible one, whatever jobs do. Return after
        a disk error: jobs then go on with the last generation.
        """
        while True:
            await self._is_due.wait()
            await trio.sleep(SEAL_S)
            try:
                await self.seal()
            except OSError as error:
                log.warning("warm-layer-off reason=%r", str(error))
                return
            self._is_due = trio.Event()
            self._check_whether_due()  # by the misses meanwhile, and the cost of this generation

    async def seal(self) -> None:
        """Make the next generation, and remove those that no job uses any more. Raises OSError."""
        self._misses = 0
        self._wanted = {path: v for path, v in self._wanted.items() if self._tree.truth_at(path) is v[0]}
        self._wanted_bytes = sum(attr.size for attr, _ in self._wanted.values())
        before = self._newest
        name = str(next(self._names))
        build = GenerationBuild(self._cas, self._tree.is_live, self._directory(name), dict(self._wanted))
        if before is not None:
            build.before, build.held = self._directory(before.name), before.files
        directories = directories_above(build.wanted, self._tree.truth_at)
        held, self._cost_s = await trio.to_thread.run_sync(build.write, directories)
        self._newest = WarmGeneration(name, held, by_directory((*directories, *held.items())))
        self._tree.hold(self._newest.listings)
        if before is not None:
            self._unused.append(before)
        log.debug("warm-layer-sealed generation=%s files=%d", name, len(held))
        for generation in [old for old in self._unused if not old.jobs]:
            self._unused.remove(generation)
            await trio.to_thread.run_sync(remove_tree, Path(os.fsdecode(self._directory(generation.name))))

    def _directory(self, name: str) -> bytes:
        return os.path.join(self._root, name.encode())

    def _count_miss(self) -> None:
        self._misses += 1
        self._check_whether_due()

    def _check_whether_due(self) -> None:
        if self._misses and self._misses * MISS_COST_S >= self._cost_s:
            self._is_due.set()
