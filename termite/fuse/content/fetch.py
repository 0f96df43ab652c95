"""Ask the master for missing facts: directories for the tree, and contents for the store.

Each is fetched once at a time, and there is no task per fetch. The first caller that needs a thing
fetches it, and the others wait. If the first one is cancelled because its job dies, the next one
takes over.

A deadline counts silence, not the length of a transfer: a large file or directory may take an hour
on a slow line. Pieces of any of them prove that the line and the master live: all share one line.
"""

import logging
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from termite.engine.errors import Reason, RemoteProtocolError, Retryable
from termite.engine.model import Attr, Digest
from termite.engine.paths import from_root_down
from termite.engine.store.cas import Cas
from termite.engine.store.cas_writer import CasWriter
from termite.engine.wire.protocol.frames import parse_piece
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import Directory, Entry, File, GetDirectory, GetEntry, GetFile
from termite.engine.wire.transport import Connection, OnChunk
from termite.fuse.content.local_copy import WORTH_BYTES, LocalCopy, find_local_copy
from termite.fuse.view.inodes import Node
from termite.fuse.view.master_facts import KnownTree
from termite.fuse.view.view_tree import Tree

VERIFY_WITHOUT_THREAD_BYTES = 256 * 1024  # 0.2 ms of hashing; a thread costs 0.1
LARGE_BYTES = 4 * 1024**3  # up to this size, a file may be larger than the store
HUGE_BYTES = 16 * 1024**4  # the largest file of ext4: holes take no space, but a larger file is none of a user's
OPEN_DIRECTORY = 0o005  # others may list it and search it
SILENCE_S = 60.0  # without a chunk or a reply; longer than the connection needs to find out that it is lost

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class _Flight:
    """A fetch that runs. `silence` is its error if the master did not answer in time."""

    ended: trio.Event
    silence: Retryable | None = None


class _IncomingFile:
    """A content that comes in chunks. `writer` takes them; it is None before the first one."""

    def __init__(self, node: Node, cas: Cas) -> None:
        self.writer: CasWriter | None = None
        self._node = node
        self._cas = cas
        self._most_bytes = max(cas.limits.max_bytes, LARGE_BYTES)  # eviction comes too late for more
        self._received = self._data_bytes = 0

    async def write(self, chunk: bytes) -> None:
        """Take the next chunk. Raise Retryable if the content is longer than it may be."""
        piece = parse_piece(chunk)
        self._received += piece if isinstance(piece, int) else len(piece)
        self._data_bytes += 0 if isinstance(piece, int) else len(piece)
        _check_size(self._node, self._data_bytes, self._most_bytes)
        if self._received > self._node.attr.size:  # it may never end, and would fill the worker's disk
            text = f"/{os.fsdecode(self._node.path)} is longer than it was listed"
            raise Retryable(Reason.FILE_CHANGED, text)
        self.writer = self.writer or self._cas.writer()
        self.writer.add(piece)


class Fetcher:
    """The network side of one mirror.

    `broken` is set when the master has sent an invalid answer; the mirror then ends the connection.
    `patience` bounds waits for what the master sends.
    A request fails after `silence_s` in which no piece of any file or message has arrived.
    """

    def __init__(self, connection: Connection, tree: KnownTree, cas: Cas, silence_s: float = SILENCE_S) -> None:
        self.broken = trio.Event()
        self.patience = connection.patience
        self._connection = connection
        self._tree = tree
        self._cas = cas
        self._ahead = 0
        self._silence_s = silence_s
        self._flights: dict[object, _Flight] = {}
        counted = ("directories", "entries", "files", "file_bytes", "files_known", "files_of_ours")
        self._counts = dict.fromkeys(counted, 0)

    async def directory(self, path: bytes) -> None:
        """Wait until the tree knows the entries of `path`, or that it is not a directory.

        Raise what a request raises: FsError for the job, Retryable for the scheduler, and
        RemoteProtocolError to drop the connection.
        """
        await self._once(path, lambda: self._tree.is_known(path), lambda: self._get_directory(path))

    async def entry(self, path: bytes) -> Attr | None:
        """Return a directory or a symlink that was not listed, or None if jobs see nothing there.

        Raise Retryable if it is a file: the command then runs on the master's machine. Otherwise
        raise what `directory` raises.
        """
        self._counts["entries"] += 1
        attr = _expect(Entry, await self._ask(GetEntry(path))).attr
        if attr is not None and not (stat.S_ISDIR(attr.mode) or stat.S_ISLNK(attr.mode)):
            raise RemoteProtocolError(f"{path!r} was not listed, and is a file")
        return attr

    async def content(self, node: Node) -> None:
        """Wait until the content of a file is verified in the store, and `node.digest` is set.

        Raise Stale if the file has changed since it was listed, otherwise what `directory` raises.
        """
        await self._once(node.inode, lambda: self._is_here(node), lambda: self._get_content(node))

    async def ahead(self, path: bytes, attr: Attr) -> None:
        """Wait as `content` does, for a version of a file that no job has asked for yet."""
        self._ahead += 1
        await self.content(Node(-self._ahead, path, attr))

    def statistics(self) -> dict[str, int]:
        """Return the counts of what was fetched so far, and of fetches that run now."""
        return {**self._counts, "fetching": len(self._flights)}

    async def _once(self, key: object, is_done: Callable[[], bool], fetch: Callable[[], Awaitable[None]]) -> None:
        while (flight := self._flights.get(key)) is not None:
            await flight.ended.wait()
            if flight.silence is not None:  # to ask again would be to wait again, one after the other
                raise Retryable(flight.silence.reason, flight.silence.detail)
        if is_done():
            return
        flight = self._flights[key] = _Flight(trio.Event())
        try:
            await fetch()
        except Retryable as error:
            flight.silence = error if error.reason is Reason.NO_ANSWER else None
            raise
        except RemoteProtocolError as error:
            log.warning("master-protocol-error reason=%r", str(error))
            self.broken.set()
            raise
        finally:
            del self._flights[key]
            flight.ended.set()

    async def _ask(self, message: Message, write: OnChunk | None = None) -> Message:
        """Send a request, and return the reply.

        Raise Retryable after `silence_s` of silence, otherwise what a request raises.
        """

        with self.patience.within(self._silence_s):
            return await self._connection.request(message, on_chunk=write)
        raise Retryable(Reason.NO_ANSWER, f"the master was silent for {self._silence_s:g} s")

    async def _get_directory(self, path: bytes) -> None:
        self._counts["directories"] += 1
        reply = None
        self._tree.asked(path)
        try:
            reply = _expect(Directory, await self._ask(GetDirectory(path)))
        finally:
            self._tree.answered(path, reply)

    def _is_here(self, node: Node) -> bool:
        if node.digest is None or not self._cas.is_verified(node.digest):
            return False
        self._note_known(node)
        return True

    def _note_known(self, node: Node) -> None:
        self._counts["files_known"] += not node.is_present
        node.is_present = True

    async def _get_content(self, node: Node) -> None:
        """Verify the content in the store, or get the file if there is none or a bad one."""
        if node.digest is not None and await self._verify(node.digest):
            self._note_known(node)
        else:
            await self._get_file(node)

    async def _verify(self, digest: Digest) -> bool:
        if digest.size <= VERIFY_WITHOUT_THREAD_BYTES:
            return self._cas.verify(digest)
        return await trio.to_thread.run_sync(self._cas.verify, digest)

    async def _get_file(self, node: Node) -> None:
        _check_size(node, node.attr.size, HUGE_BYTES)
        self._counts["files"] += 1
        incoming = _IncomingFile(node, self._cas)
        local = await self._find_local_copy(node)
        request = GetFile(node.path, node.attr.size, node.attr.mtime_ns, local.digest if local else None)
        try:
            reply = _expect(File, await self._ask(request, incoming.write))
            if local is not None and reply.digest == local.digest and incoming.writer is None:
                await self._copy_local(node, local)
            elif reply.content is not None:
                if self._cas.put(reply.content) != reply.digest:
                    raise RemoteProtocolError(f"the content of {node.path!r} is not what its digest says")
                self._counts["file_bytes"] += reply.digest.size
                node.content = reply.content if node.opens else None
            else:
                (incoming.writer or self._cas.writer()).finish(reply.digest)
                self._counts["file_bytes"] += reply.digest.size
        finally:
            if incoming.writer is not None:
                incoming.writer.discard()
            if local is not None:
                os.close(local.fd)
        if self._is_public(node):
            self._cas.note_public(reply.digest)
        self._have(node, reply.digest)

    async def _copy_local(self, node: Node, local: LocalCopy) -> None:
        if not await trio.to_thread.run_sync(local.copy_into, self._cas):
            text = f"/{os.fsdecode(node.path)} of the worker changed while it was read"
            raise Retryable(Reason.FILE_UNREADABLE, text)
        self._counts["files_of_ours"] += 1

    def _is_public(self, node: Node) -> bool:
        """Return True if any user of the master's machine may read this version of a file."""
        if self._tree.is_live(node.path) or not node.attr.mode & stat.S_IROTH:
            return False
        above = [self._tree.truth_at(path) for path in list(from_root_down(node.path))[:-1]]
        return all(attr is not None and attr.mode & OPEN_DIRECTORY == OPEN_DIRECTORY for attr in above)

    async def _find_local_copy(self, node: Node) -> LocalCopy | None:
        if node.attr.size <= WORTH_BYTES or self._tree.is_live(node.path):
            return None
        return await trio.to_thread.run_sync(find_local_copy, node.path, node.attr.size)

    def _have(self, node: Node, digest: Digest) -> None:
        if node.attr.digest not in (None, digest):
            log.warning("file-not-as-listed path=%r", node.path)
        node.digest = digest
        node.is_present = True
        self._tree.learn_digest(node.attr, digest)


@dataclass(frozen=True, slots=True)
class MirroredFiles:
    """The master's files as this mirror has them: the facts, the contents, and how to get more."""

    tree: Tree
    cas: Cas
    fetcher: Fetcher


def _check_size(node: Node, size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        text = f"/{os.fsdecode(node.path)} is larger than the store (termite-worker -cache-size)"
        raise Retryable(Reason.DISK_FULL, text)


def _expect(kind: type[M], reply: Message) -> M:
    if not isinstance(reply, kind):
        raise RemoteProtocolError(f"{type(reply).__name__} in place of {kind.__name__}")
    return reply
