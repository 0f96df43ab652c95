"""Get the facts of the tree that a decision lacks."""

import errno
import os

import trio

from termite.engine.errors import FsError, Stale
from termite.engine.model import Digest
from termite.engine.paths import split
from termite.engine.recall.logic.dependencies import NotStorable, Obstacle
from termite.engine.recall.logic.interpreters import ELF_HEAD, interpreter_of
from termite.engine.recall.logic.tree_facts import HEAD_BYTES, FactsMissing, TreeFacts
from termite.engine.tree.master_tree import MasterTree

MOST_INTERPRETERS_KNOWN = 20_000  # some 100 bytes each
MOST_SEARCHES_KNOWN = 20_000  # some 250 bytes each
MOST_BYTES_AT_ONCE = 1 << 18  # longer files are searched in a thread
PIECE_BYTES = 1 << 20


class FactReader:
    """A reader of one tree's facts, which remembers what it has found in files, by their digests.

    Directories that it loads stay known, and digests that it computes stay in the AttrTree.
    """

    def __init__(self, tree: MasterTree) -> None:
        self._tree = tree
        self._interpreters: dict[bytes, bytes] = {}
        self._texts: dict[tuple[bytes, tuple[bytes, ...]], frozenset[bytes]] = {}

    def facts(self) -> TreeFacts:
        """Return a look at the tree as it is now. Use it until the next await only."""
        return TreeFacts(self._tree.attrs, self._interpreters, self._texts)

    def learn(self, sha256: bytes, head: bytes) -> None:
        """Remember the interpreter of a program that a job has made, by the head of its content.

        Programs that only exist in a result cannot be read in the tree. Raise NotStorable if the
        program is too unusual.
        """
        named = interpreter_of(head[:HEAD_BYTES])
        if named is None:
            raise NotStorable(Obstacle.PROGRAM)
        if len(self._interpreters) >= MOST_INTERPRETERS_KNOWN:
            self._interpreters.clear()
        self._interpreters[sha256] = named

    async def supply(self, missing: FactsMissing) -> None:
        """Get the missing facts. Large files are hashed and searched in a thread.

        Raise FsError if a directory or a file cannot be read, and Retryable if a look at it fails.
        Raise Stale if one changes meanwhile. Raise NotStorable if a program is too unusual.
        """
        for directory in missing.directories:
            self._tree.load(directory, "")
        for path in missing.contents:
            os.close((await self._open(path))[0])
        for path, sha256 in missing.heads:
            fd, digest = await self._open(path)
            try:
                if digest.sha256 != sha256:
                    raise NotStorable(Obstacle.PROGRAM, b"/" + path)
                self.learn(sha256, os.pread(fd, HEAD_BYTES, 0))
            finally:
                os.close(fd)
        for path, sha256, wanted in missing.texts:
            await self._search(path, sha256, wanted)

    async def _search(self, path: bytes, sha256: bytes, wanted: tuple[bytes, ...]) -> None:
        fd, digest = await self._open(path)
        try:
            if digest.sha256 != sha256:
                raise Stale(path)
            if digest.size > MOST_BYTES_AT_ONCE:
                found = await trio.to_thread.run_sync(find_texts, fd, wanted)
            else:
                found = find_texts(fd, wanted)
        finally:
            os.close(fd)
        if len(self._texts) >= MOST_SEARCHES_KNOWN:
            self._texts.clear()
        self._texts[sha256, wanted] = found

    async def _open(self, path: bytes) -> tuple[int, Digest]:
        self._tree.load(split(path)[0], "")
        seen = self._tree.attrs.seen(path)
        if seen is None:
            raise FsError(errno.ENOENT, path)
        return await self._tree.open_file(path, seen.attr.size, seen.attr.mtime_ns)


def find_texts(fd: int, wanted: tuple[bytes, ...]) -> frozenset[bytes]:
    """Return which of the texts are in a file. ELF_HEAD counts at the beginning of the file only.

    This blocks while the file is read.
    """
    is_elf = os.pread(fd, len(ELF_HEAD), 0) == ELF_HEAD
    found = {ELF_HEAD} if is_elf and ELF_HEAD in wanted else set()
    sought = [text for text in wanted if text != ELF_HEAD]
    overlap = max(map(len, sought), default=1) - 1
    rest, at = b"", 0
    while sought and (piece := os.pread(fd, PIECE_BYTES, at)):
        content = rest + piece
        found.update(text for text in sought if text in content)
        rest, at = content[len(content) - overlap :], at + len(piece)
    return frozenset(found)
