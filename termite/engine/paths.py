"""Paths of the tree, as bytes without leading slash, taken apart.

A path that came over the wire is not trusted: `components` refuses what could lead anywhere else than down.
"""

import errno
from collections.abc import Iterator
from pathlib import PurePath

from termite.engine.errors import FsError


def components(path: bytes) -> list[bytes]:
    """The names from the root down. Raises FsError where one of them is no name."""
    if not path:
        return []
    names = path.split(b"/")
    if b"" in names or b"." in names or b".." in names or b"\0" in path:
        raise FsError(errno.EINVAL, path)
    return names


def lineage(path: bytes) -> Iterator[bytes]:
    """The root, every directory on the way down, and the path itself."""
    yield b""
    for i in range(len(path)):
        if path[i : i + 1] == b"/":
            yield path[:i]
    if path:
        yield path


def split(path: bytes) -> tuple[bytes, bytes]:
    """Parent and name."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    return b"%b/%b" % (parent, name) if parent else name


def is_within(path: bytes, top: bytes) -> bool:
    """Is `path` the directory `top` or below it?"""
    return not top or path == top or (path.startswith(top) and path[len(top) : len(top) + 1] == b"/")


def tree_path(path: PurePath) -> bytes:
    """Return an absolute path of our own disk in the form that paths of the tree have."""
    return bytes(path).strip(b"/")
