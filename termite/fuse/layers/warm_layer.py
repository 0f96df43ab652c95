"""The warm layer: files that were read, and symlinks, as real files between what has moved and the base.

Without it every open, release and readlink of a header or a library comes to Python, in every job: three quarters of
what a compiler asks. A *generation* is a directory tree that holds them all, with the modes and times of the mirror. It
is complete, and never changed once it is there: the next one copies or links what both have. So one layer is enough.

A generation is good for every view made until there is the next one: the tree is told what it holds (`Tree.hold`), and
covers what has moved, as long as it can. Of live files only those are taken that were opened twice: a source or an
object file is mostly read once. A generation belongs to this process, because another master's files are other files:
what a new lease saves is the network, by the store.
"""

import fcntl
import itertools
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from termite.engine.model import Attr, Digest
from termite.engine.store.cas import Cas
from termite.fuse.layers.real_tree import RealTree, can_be_real
from termite.fuse.view.tree import Tree
from termite.fuse.view.views import Listing

SEAL_S = 0.5  # what is read within so long goes into one generation; making one costs some 100 us a file
MISS_S = 150e-6  # what a file that is not warm costs each time: a look-up, an open and a release
MAX_BYTES = 4 * 1024**3  # a toolchain has some 100 MB; this is a lot of test data
# Two names of one file show in its link count, while jobs use both generations. So only what is large is linked, and of
# that nothing live: compilers and libraries, which nobody packs by their link counts.
LINKED_BYTES = 64 * 1024
MAX_FILE_BYTES = 512 * 1024**2
FRESH_S = 60.0  # a directory this young may belong to a process that has not locked it yet
PLACE = "warm"  # beside the mount point, so that overlay's options name a generation by a few bytes

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Generation:
    """One complete, unchanging tree. `files` says which version of each path it holds."""

    name: str
    files: Mapping[bytes, Attr] = field(repr=False)
    listings: Mapping[bytes, Listing] = field(repr=False)
    jobs: int = 0

    def layer(self) -> str:
        """Its part of overlay's lowerdir, relative to the mount point."""
        return f"../{PLACE}/{self.name}:"


class Warm:
    """The files to keep warm, and the newest generation of them. `root` is a directory of this process alone.

    `opened` is told of each file that a job opens and that stands in no real directory yet.
    """

    def __init__(self, tree: Tree, cas: Cas, root: Path, opened: Callable[[bytes, Attr], None]) -> None:
        self._opened = opened
        self._tree = tree
        self._cas = cas
        self._root = os.fsencode(root)
        self._wanted: dict[bytes, tuple[Attr, Digest | None]] = {}
        self._wanted_bytes = 0
        self._is_due = trio.Event()
        self._missed = 0  # since the newest generation was begun: files that it might have had
        self._cost_s = 0.0  # CPU, of that one
        self._newest: Generation | None = None
        self._unused: list[Generation] = []
        self._names = itertools.count(1)

    def note(self, path: bytes, attr: Attr, digest: Digest | None, *, again: bool) -> None:
        """A job opened this file, whose content is in the store, or read this symlink; `again`: not the first time."""
        if path in self._wanted and self._wanted[path][0] is attr:
            self._miss()
            return
        if not can_be_real(path, attr):
            return
        if attr.size > min(MAX_FILE_BYTES, MAX_BYTES - self._wanted_bytes):
            return
        if not stat.S_ISLNK(attr.mode) and digest is None and attr.size:
            return
        self._opened(path, attr)
        if self._tree.is_live(path) and (attr.nlink > 1 or not again):
            return
        before, _ = self._wanted.get(path, (None, None))
        self._wanted[path] = (attr, digest)
        self._wanted_bytes += attr.size - (before.size if before else 0)
        self._miss()

    def enter(self) -> Generation | None:
        """For a job that starts now, on the newest view; `leave` it when the job has ended."""
        generation = self._newest
        if generation is None or generation.listings is not self._tree.held:
            return None
        generation.jobs += 1
        return generation

    def leave(self, generation: Generation | None) -> None:
        if generation is not None:
            generation.jobs -= 1

    def statistics(self) -> dict[str, int]:
        held = len(self._newest.files) if self._newest else 0
        return {"warm_files": held, "warm_wanted": len(self._wanted), "warm_wanted_bytes": self._wanted_bytes}

    async def keep_sealing(self) -> None:
        """Make a new generation when not to have it has cost what the last one has: whatever comes, that is at most
        twice what was needed."""
        while True:
            await self._is_due.wait()
            await trio.sleep(SEAL_S)
            try:
                await self.seal()
            except OSError as error:
                log.warning("warm-layer-off reason=%r", str(error))
                return
            self._is_due = trio.Event()
            self._check_whether_due()  # by what was missed meanwhile, and what this one has cost

    async def seal(self) -> None:
        """Make the next generation, and remove those that nobody uses any more."""
        self._missed = 0
        self._wanted = {path: v for path, v in self._wanted.items() if self._tree.truth_at(path) is v[0]}
        self._wanted_bytes = sum(attr.size for attr, _ in self._wanted.values())
        before = self._newest
        name = str(next(self._names))
        top = os.path.join(self._root, name.encode())
        build = _Build(self._cas, self._tree.is_live, top, dict(self._wanted))
        if before is not None:
            build.before, build.held = os.path.join(self._root, before.name.encode()), before.files
        directories = ancestors(build.wanted, self._tree.truth_at)
        held, self._cost_s = await trio.to_thread.run_sync(build.run, directories)
        self._newest = Generation(name, held, _listings((*directories, *held.items())))
        self._tree.hold(self._newest.listings)
        if before is not None:
            self._unused.append(before)
        log.debug("warm-layer-sealed generation=%s files=%d", name, len(held))
        for generation in [old for old in self._unused if not old.jobs]:
            self._unused.remove(generation)
            await trio.to_thread.run_sync(_remove, os.path.join(self._root, generation.name.encode()))

    def _miss(self) -> None:
        self._missed += 1
        self._check_whether_due()

    def _check_whether_due(self) -> None:
        if self._missed and self._missed * MISS_S >= self._cost_s:
            self._is_due.set()


def _listings(entries: Iterable[tuple[bytes, Attr]]) -> dict[bytes, dict[bytes, Attr]]:
    """By directory; the root itself has no name."""
    listings: dict[bytes, dict[bytes, Attr]] = {}
    for path, attr in entries:
        if path:
            parent, _, name = path.rpartition(b"/")
            listings.setdefault(parent, {})[name] = attr
    return listings


def ancestors(paths: Mapping[bytes, object], attr_of: Callable[[bytes], Attr | None]) -> tuple[tuple[bytes, Attr], ...]:
    """The directories above `paths`, each after its parent."""
    found: dict[bytes, Attr] = {}
    for path in paths:
        while path and (path := path.rpartition(b"/")[0]) not in found:
            attr = attr_of(path)
            assert attr is not None, path  # what is true of a name is true of its ancestors
            found[path] = attr
    return tuple(sorted(found.items()))


@dataclass(slots=True)
class _Build:
    """One generation in the making, in a thread: nothing here is shared with the rest of the process but the store."""

    cas: Cas
    is_live: Callable[[bytes], bool]
    root: bytes
    wanted: dict[bytes, tuple[Attr, Digest | None]]
    before: bytes = b""
    held: Mapping[bytes, Attr] = field(default_factory=dict)

    def run(self, directories: tuple[tuple[bytes, Attr], ...]) -> tuple[dict[bytes, Attr], float]:
        """Make it. Return what is in it (not a content that was evicted meanwhile), and the seconds of CPU."""
        started_s = time.thread_time()
        if not directories:
            return {}, 0.0
        os.mkdir(self.root, 0o700)
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
        for path, attr in reversed(directories):  # a directory's time is its own when nothing is added any more
            real.dress_directory(path, attr)
        return held

    def _add(self, real: RealTree, before: RealTree | None, path: bytes, attr: Attr, digest: Digest | None) -> bool:
        if stat.S_ISLNK(attr.mode):
            real.make_symlink(path, attr)
            return True
        if before is None or self.held.get(path) is not attr:
            return real.fill_file(path, self.cas, digest, attr)
        if attr.size > LINKED_BYTES and not self.is_live(path):
            real.link_file(path, before)
        else:
            real.copy_file(path, before, attr)
        return True


@contextmanager
def private_directory(parent: Path) -> Iterator[Path]:
    """A directory for this process alone, on disk; what killed processes have left there is removed."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in parent.iterdir():
        with suppress(OSError), _locked(leftover):
            if time.time() - leftover.stat().st_mtime > FRESH_S:
                _remove(os.fsencode(leftover))
    path = Path(tempfile.mkdtemp(dir=parent))
    with _locked(path):
        try:
            yield path
        finally:
            _remove(os.fsencode(path))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """OSError where another process has it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _remove(path: bytes) -> None:
    shutil.rmtree(os.fsdecode(path), onerror=_log_leftover)


def _log_leftover(_function: object, path: str, _error: object) -> None:
    log.warning("warm-layer-not-removed path=%r", path)
