"""Number the inodes of the mirror: one for each version of each path that the kernel remembers.

A number is never given to two versions, so everything that the kernel has cached under it stays
right. Views share files: an unchanged file keeps its number, and its page cache, in the next
base. A directory belongs to one view. A version is an `Attr` object: while its node is in the
table, the node keeps the object alive, so no other object gets its `id`.
"""

import stat
from collections.abc import Iterable
from typing import Any

from termite.engine.model import Attr, Digest, StdinFile
from termite.fuse.view.views import WHITEOUT, Base, Delta, Listing

ROOT, BASES, DELTAS, STDIN = 1, 2, 3, 4  # the mirror's own directories; ROOT is the protocol's
_FIRST = 16


class Node:
    """One inode.

    If `is_present`, `digest` is known and the content is in this worker's store. `content` (None if
    it is not kept) and `fd` (-1 if there is none) serve a file that is open and was read. `entry`
    is the answer about a directory, which the room `kernel_requests` makes once. A large tree has
    100,000 nodes, so fields of directories and standard inputs alone stand in subclasses.
    """

    __slots__ = (
        "attr",
        "content",
        "digest",
        "entry",
        "fd",
        "inode",
        "is_present",
        "key",
        "lookups",
        "opens",
        "path",
        "was_opened",
    )

    job: int | None = None
    block_bytes = 4096
    is_private = False

    def __init__(self, inode: int, path: bytes, attr: Attr, key: object = None) -> None:
        self.inode = inode
        self.path = path
        self.attr = attr
        self.key = key
        self.digest: Digest | None = attr.digest
        self.is_present = attr.size == 0
        self.content: bytes | None = b"" if attr.size == 0 else None
        self.fd = -1
        self.opens = 0
        self.lookups = 0
        self.entry: Any = None
        self.was_opened = False


class DirectoryNode(Node):
    """A directory of a view.

    `listing` has the entries that the view shows in it, and `names` their order. Both are None
    until the kernel asks for them. If it `is_private`, it was not listed, and a job has asked for
    it by name.
    """

    __slots__ = ("is_private", "listing", "names", "view")

    def __init__(self, inode: int, path: bytes, attr: Attr, key: object, view: Base | Delta) -> None:
        super().__init__(inode, path, attr, key)
        self.view = view
        self.is_private = False
        self.listing: Listing | None = None
        self.names: list[bytes] | None = None


class PrivateLink(Node):
    """A symlink that was not listed, and that a job has asked for by name."""

    __slots__ = ()

    is_private = True


class StdinNode(Node):
    """The standard input of the job with the number `job`."""

    __slots__ = ("block_bytes", "job")

    def __init__(self, inode: int, attr: Attr, key: object, job: int, block_bytes: int) -> None:
        super().__init__(inode, b"", attr, key)
        self.job = job
        self.block_bytes = block_bytes


class Inodes:
    """The table of inodes.

    The kernel counts each answer that names an inode, as `Node.lookups` does, and says how many of
    them it forgets.
    """

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self._by_key: dict[object, Node] = {}
        self._next = _FIRST
        directory = Attr(mode=stat.S_IFDIR | 0o755, size=0, mtime_ns=0)
        for inode in (ROOT, BASES, DELTAS, STDIN):
            self._pin(Node(inode, b"", directory))
        # All whiteouts are one inode with many names: nobody can open it, and the kernel never asks
        # anything about it.
        self.whiteout = self._pin(Node(STDIN + 1, b"", WHITEOUT))

    def directory(self, view: Base | Delta, path: bytes, attr: Attr) -> Node:
        """Return the DirectoryNode of the directory that `view` shows at `path`."""
        key = (id(view), path)
        node = self._by_key.get(key)
        return node or self._add(DirectoryNode(self._next, path, attr, key, view))

    def file(self, path: bytes, attr: Attr) -> Node:
        """Return the node of anything that is not a directory.

        Names with one `link_id` were one inode of the master in one state, and share a node.
        """
        state = (attr.link_id, attr.size, attr.mtime_ns, attr.mode, attr.nlink)
        key: object = state if attr.link_id else id(attr)
        node = self._by_key.get(key)
        if node is not None and node.path != path and not attr.link_id:  # one value given to two names
            key = (path, key)
            node = self._by_key.get(key)
        return node or self._add(Node(self._next, path, attr, key))

    def private_link(self, path: bytes, attr: Attr) -> Node:
        """Return the node of a symlink that was not listed. With another target it has another."""
        key = ("private", path, attr.target)
        return self._by_key.get(key) or self._add(PrivateLink(self._next, path, attr, key))

    def stdin(self, job: int, file: StdinFile) -> Node:
        """Return the node of the standard input of a job; numbers of jobs are never used again.

        A directory is shown as a regular file too: the kernel would not send us a read of it.
        """
        key = ("stdin", job)
        node = self._by_key.get(key)
        if node is not None:
            return node
        attr = Attr(mode=stat.S_IFREG | stat.S_IMODE(file.mode), size=file.size, mtime_ns=file.mtime_ns)
        return self._add(StdinNode(self._next, attr, key, job, file.block_bytes))

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """Take back so many look-ups, given as pairs of inode and count; drop unused nodes."""
        for inode, count in forgotten:
            node = self.nodes.get(inode)
            if node is not None:
                node.lookups -= count
                self.drop_if_unused(node)

    def drop_if_unused(self, node: Node) -> None:
        """Drop a node if the kernel has forgotten it; an open file stays until its release."""
        if node.lookups <= 0 and not node.opens and node.key is not None:
            self.nodes.pop(node.inode, None)
            self._by_key.pop(node.key, None)

    def __len__(self) -> int:
        return len(self.nodes)

    def _pin(self, node: Node) -> Node:
        self.nodes[node.inode] = node
        return node

    def _add(self, node: Node) -> Node:
        self._next += 1
        self.nodes[node.inode] = self._by_key[node.key] = node
        return node
