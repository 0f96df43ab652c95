"""Answer the kernel's requests to the read-only mount, and fetch what the tree lacks.

Everything that was listed is immutable, so every answer about it may be cached forever. For a
private entry, which jobs see only if they ask for it by name, the kernel asks each time.

A request costs 30 us of CPU before any code of ours runs. This code delays every look-up of every
job, so it stays flat: no log line, no task, no copy.
"""

import functools
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Sequence
from errno import EIO, ENOENT, ENOSYS, ENOTDIR, EROFS
from typing import Any, TypeVar, cast

import pyfuse3
import trio

from termite.engine.errors import FsError, Reason, Retryable, TermiteError
from termite.engine.model import UNKNOWN, Attr, is_directory
from termite.engine.store.cas import Cas, refuse_unreadable
from termite.fuse import mirror_calls
from termite.fuse.content.fetch import MirroredFiles
from termite.fuse.kernel_requests.answers import FOREVER_S, absence, boundless, entry_of, unknown
from termite.fuse.kernel_requests.private_names import PrivateNames, refuse_fresh
from termite.fuse.layers.warm_layer import WarmLayer
from termite.fuse.running_jobs import JobTable
from termite.fuse.stdin.stdin_pipe import StdinSource
from termite.fuse.view.comparison import link_key
from termite.fuse.view.inodes import BASES, DELTAS, ROOT, STDIN, DirectoryNode, Inodes, Node
from termite.fuse.view.views import EMPTY, WHITEOUT, Base, Listing, Need

KEPT_BYTES = 64 * 1024  # a file up to this size is read at once and kept while it is open

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


def answered(handler: F) -> F:
    """Turn the errors of a handler into those that pyfuse3 takes.

    At any other exception pyfuse3 ends its main loop, and with it every job. FsError is a true
    answer. Every other error is ours: the job that gets it is given back.
    """

    @functools.wraps(handler)
    async def wrapper(operations: "MirrorOperations", *args: Any) -> Any:
        try:
            return await handler(operations, *args)
        except pyfuse3.FUSEError:
            raise
        except FsError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        except Exception as error:  # one request: its job runs again, everything else lives
            if isinstance(error, TermiteError):
                log.warning("fuse-request-failed request=%s reason=%r", handler.__name__, str(error))
            else:
                log.exception("fuse-request-crashed request=%s", handler.__name__)
            operations.jobs.give_back(getattr(args[-1], "pid", 0), error)
            raise pyfuse3.FUSEError(EIO) from None

    return cast(F, wrapper)


class MirrorOperations(pyfuse3.Operations):
    """The requests to one mount, which has `base/N`, `delta/N` and `stdin/JOB`.

    The public functions are the handlers of pyfuse3, which describes them. `requests` counts those
    that the kernel waits for. `jobs` are the jobs that make them.
    """

    enable_writeback_cache = False

    def __init__(self, files: MirroredFiles, jobs: JobTable, stdin_source: StdinSource, warm: WarmLayer) -> None:
        super().__init__()
        self.requests = 0
        self._stdin_source = stdin_source
        self._tree = files.tree
        self._cas = files.cas
        self._fetcher = files.fetcher
        self.jobs = jobs
        self._private_names = PrivateNames(files.fetcher, jobs)
        self._warm = warm
        self._inodes = Inodes()
        self._space = boundless()
        self._directories: dict[int, tuple[Node, int]] = {}  # open ones by handle, with the thread that opened each
        self._last_handle = 0
        self._absent, self._absent_now = absence(FOREVER_S), absence(0.0)
        for node in (*map(self._inodes.nodes.__getitem__, (ROOT, BASES, DELTAS, STDIN)), self._inodes.whiteout):
            node.entry = entry_of(node)

    def statistics(self) -> dict[str, int]:
        """Return the counts of requests and of inodes."""
        return {"requests": self.requests, "inodes": len(self._inodes)}

    # -- names -------------------------------------------------------------------------------------------------------

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> Any:
        self.requests += 1
        parent = self._inodes.nodes[parent_inode]
        if not isinstance(parent, DirectoryNode):
            node = self._own(parent_inode, name)
        else:
            listing = parent.listing
            if listing is None:
                listing = await self._listing(parent, ctx.pid)
            attr = listing.get(name)
            if attr is not None:
                if attr.mode == UNKNOWN:
                    raise unknown(parent.path, name, attr)
                node = self._child(parent, name, attr)
            elif not self._is_partial(parent):
                refuse_fresh(self._tree.fresh, parent.path, name)
                return self._absent_now if parent.attr.mode & stat.S_ISVTX else self._absent
            elif (found := await self._private(parent, name, ctx.pid)) is not None:
                node = found
            else:
                return self._absent_now
        node.lookups += 1
        return node.entry or entry_of(node)

    @answered
    async def getattr(self, inode: int, ctx: Any = None) -> Any:
        self.requests += 1
        node = self._inodes.nodes[inode]
        return node.entry or entry_of(node)

    @answered
    async def readlink(self, inode: int, ctx: Any) -> Any:
        self.requests += 1
        node = self._inodes.nodes[inode]
        self._note(node)
        return node.attr.target

    @answered
    async def opendir(self, inode: int, ctx: Any) -> Any:
        """Open a directory without waiting for the master.

        Overlayfs opens one while it holds the rename lock of the upper file system. If both are on
        one disk, the master may need that lock to publish a result.
        """
        self.requests += 1
        self._last_handle += 1
        self._directories[self._last_handle] = (self._inodes.nodes[inode], ctx.pid)
        return self._last_handle

    @answered
    async def readdir(self, handle: int, offset: int, token: Any) -> None:
        self.requests += 1
        node, thread = self._directories[handle]
        if not isinstance(node, DirectoryNode):
            return  # our own directories have no listing: nobody needs one
        if node.listing is None:
            await self._listing(node, thread)
        if node.is_private or (isinstance(node.view, Base) and self._tree.is_unlisted(node.path)):
            self.jobs.give_back(thread, Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(node.path)))
            raise FsError(EIO)
        assert node.listing is not None
        if node.names is None:
            node.names = list(node.listing)
        for position in range(offset, len(node.names)):
            name = node.names[position]
            child = self._child(node, name, node.listing[name])
            if not pyfuse3.readdir_reply(token, name, child.entry or entry_of(child), position + 1):
                self._inodes.drop_if_unused(child)
                break
            child.lookups += 1

    @answered
    async def releasedir(self, handle: int) -> None:
        self.requests += 1
        del self._directories[handle]

    async def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        self._inodes.forget(forgotten)

    def _own(self, parent: int, name: bytes) -> Node:
        """Return the node of a name of the mirror itself.

        This never waits, because views are dropped while look-ups go on.
        """
        text = name.decode("ascii", "replace")
        if parent == ROOT and text in _ROOT_NAMES:
            return self._inodes.nodes[_ROOT_NAMES[text]]
        if parent == BASES and (base := self._tree.bases.get(text)):
            return self._entered(self._inodes.directory(base, b"", base.root))
        if parent == DELTAS and (delta := self._tree.deltas.get(text)):
            return self._entered(self._inodes.directory(delta, b"", delta.root))
        if parent == STDIN and text.isdigit() and (job := self.jobs.running.get(int(text))) and job.stdin_file:
            return self._entered(self._inodes.stdin(job.number, job.stdin_file))
        raise FsError(ENOENT)

    def _child(self, parent: DirectoryNode, name: bytes, attr: Attr) -> Node:
        if attr is WHITEOUT:
            return self._inodes.whiteout
        path = parent.path + b"/" + name if parent.path else name
        if stat.S_ISDIR(attr.mode):
            return self._entered(self._inodes.directory(parent.view, path, attr))
        node = self._inodes.file(path, attr)
        if node.digest is None:
            node.digest = self._tree.digest_of(attr)
        return node

    def _entered(self, node: Node) -> Node:
        """Make and keep the answer about a directory, for which the kernel asks in every view.

        Files have none: it would cost 250 bytes for each, and is hardly ever used again.
        """
        if node.entry is None:
            node.entry = entry_of(node)
        return node

    def _is_partial(self, node: DirectoryNode) -> bool:
        return node.is_private or (isinstance(node.view, Base) and self._tree.is_partial(node.path))

    async def _private(self, parent: DirectoryNode, name: bytes, thread: int) -> Node | None:
        """Return the node of an entry that jobs see only if they ask for it by name, or None."""
        path = parent.path + b"/" + name if parent.path else name
        attr = await self._private_names.find(path, thread)
        if attr is None:
            return None
        node = self._child(parent, name, attr) if is_directory(attr) else self._inodes.private_link(path, attr)
        if isinstance(node, DirectoryNode):
            node.is_private, node.listing = True, EMPTY
        node.attr, node.entry = attr, None
        return node

    async def _listing(self, node: DirectoryNode, thread: int) -> Listing:
        if not isinstance(node.view, Base):
            node.listing = node.view.listings.get(node.path, {})
            return node.listing
        while node.listing is None:
            try:
                node.listing = self._tree.base_listing(node.view, node.path)
            except Need as need:
                await self.jobs.wait_for(thread, functools.partial(self._fetcher.directory, need.path))
        return node.listing

    # -- contents ----------------------------------------------------------------------------------------------------

    @answered
    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        self.requests += 1
        node = self._inodes.nodes[inode]
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FsError(EROFS)
        node.opens += 1
        if node.job is not None:
            return pyfuse3.FileInfo(fh=inode, direct_io=True, keep_cache=False)
        if not node.is_present:
            try:
                await self.jobs.wait_for(ctx.pid, functools.partial(self._fetcher.content, node))
            except BaseException:
                self._closed(node)
                raise
        self._note(node)
        if not flags & os.O_NOATIME:
            # Overlayfs sets this flag if a job opens the file. Without it, it reads the file's
            # flags, because it copies the file up.
            self._note_copied(node, ctx.pid, is_certain=True)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    @answered
    async def read(self, inode: int, offset: int, size: int) -> bytes:
        self.requests += 1
        node = self._inodes.nodes[inode]
        if node.job is not None:
            return await self._read_stdin(node.job, offset, size)
        if node.content is not None:
            return node.content[offset : offset + size]
        if node.fd < 0:
            await self._open_content(node)
            if node.content is not None:
                return node.content[offset : offset + size]
        try:
            return mirror_calls.pread(node.fd, size, offset)
        except OSError as error:
            _drop_content(self._cas, node, error)
            raise

    @answered
    async def release(self, inode: int) -> None:
        self.requests += 1
        self._closed(self._inodes.nodes[inode])

    def _note(self, node: Node) -> None:
        if node.is_private:
            return  # the warm layer would show it to later jobs
        self._warm.note(node.path, node.attr, node.digest, again=node.was_opened)
        node.was_opened = True

    async def _open_content(self, node: Node) -> None:
        """Open the content, at the first read.

        Mostly there is none, because the kernel has the pages of an earlier open.
        """
        assert node.digest is not None
        fd = self._cas.open(node.digest)
        while fd is None:  # evicted since the file was opened
            await self._fetcher.content(node)
            fd = self._cas.open(node.digest)
        if node.fd >= 0 or node.content is not None:
            os.close(fd)  # another read opened it meanwhile
        elif node.attr.size <= KEPT_BYTES:
            try:
                node.content = mirror_calls.read(fd, KEPT_BYTES)
            except OSError as error:
                _drop_content(self._cas, node, error)
                raise
            finally:
                os.close(fd)
        else:
            node.fd = fd

    async def _read_stdin(self, number: int, offset: int, size: int) -> bytes:
        job = self.jobs.running.get(number)
        if job is None:
            raise FsError(EIO)
        try:
            return await self._stdin_source.read(job, size, offset=offset)
        except Retryable as error:
            job.retry(Retryable(Reason.STDIN_UNREADABLE, str(error)))
            raise FsError(EIO) from error

    def _closed(self, node: Node) -> None:
        node.opens -= 1
        if node.opens:
            return
        if node.fd >= 0:
            os.close(node.fd)
            node.fd = -1
        node.content = b"" if node.attr.size == 0 else None
        self._inodes.drop_if_unused(node)

    # -- the rest ----------------------------------------------------------------------------------------------------

    @answered
    async def statfs(self, ctx: Any) -> Any:
        self.requests += 1  # overlayfs asks once per mount, and does not mount without an answer
        return self._space

    @answered
    async def listxattr(self, inode: int, ctx: Any) -> Any:
        """Return no attributes. Overlayfs asks for them when it copies a file up."""
        self.requests += 1
        self._note_copied(self._inodes.nodes[inode], ctx.pid, is_certain=False)
        return ()

    def _note_copied(self, node: Node, thread: int, *, is_certain: bool) -> None:
        key = link_key(node.path, node.attr)
        if key is not None and self._tree.is_live(node.path):
            self.jobs.note_copied(thread, key, is_certain=is_certain)

    # The kernel takes "not implemented" as a final answer to each of these, and asks no more.

    async def access(self, inode: int, mode: int, ctx: Any) -> Any:
        raise pyfuse3.FUSEError(ENOSYS)

    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> Any:
        raise pyfuse3.FUSEError(ENOSYS)

    async def flush(self, inode: int) -> None:
        raise pyfuse3.FUSEError(ENOSYS)


def _drop_content(cas: Cas, node: Node, error: OSError) -> None:
    """Drop a content that the disk does not give back. The next read gets it from the master."""
    assert node.digest is not None
    refuse_unreadable(cas, node.digest, error)
    if node.fd >= 0:
        os.close(node.fd)
        node.fd = -1


_ROOT_NAMES = {"base": BASES, "delta": DELTAS, "stdin": STDIN}


async def drop_views(paths: Sequence[bytes]) -> None:
    """Make the kernel forget each `base/N`, `delta/N` or `stdin/JOB`, and everything below.

    Wait until it has. This runs in a thread, because look-ups may go on meanwhile.
    """
    if paths:
        await trio.to_thread.run_sync(_drop_views, paths)


def _drop_views(paths: Sequence[bytes]) -> None:
    for path in paths:
        parent, _, name = path.partition(b"/")
        try:
            pyfuse3.invalidate_entry(_ROOT_NAMES[parent.decode()], name)
        except FileNotFoundError:
            pass  # no job has ever used it
        except OSError as error:
            if error.errno != ENOTDIR:
                log.warning("view-not-dropped path=%s reason=%r", path.decode(), error.strerror)
