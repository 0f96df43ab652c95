"""Check, split and join paths of the tree: bytes without a slash at either end, b"" for the root.

A path from another process must pass `components` before it is used. The other functions here do
not check their arguments.
"""

import errno
from collections.abc import Iterator
from pathlib import PurePath

from termite.engine.errors import FsError


def components(path: bytes) -> list[bytes]:
    """Return the names in a path from the root down; the root has none.

    Raise FsError(EINVAL) if the path could lead anywhere but down ("", ".", ".." or NUL in it).
    The caller decides who acts: an error of the job, or a breach of the protocol.
    """
    if not path:
        return []
    names = path.split(b"/")
    if b"" in names or b"." in names or b".." in names or b"\0" in path:
        raise FsError(errno.EINVAL, path)
    return names


def from_root_down(path: bytes) -> Iterator[bytes]:
    """Yield the root, then every directory below it that leads to the path, then the path."""
    yield b""
    for i in range(len(path)):
        if path[i : i + 1] == b"/":
            yield path[:i]
    if path:
        yield path


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the parent directory and the name in it; b"" and b"" for the root."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of the entry `name` in the directory `parent`."""
    return b"%b/%b" % (parent, name) if parent else name


def is_within(path: bytes, top: bytes) -> bool:
    """Return whether `path` is the directory `top` or below it."""
    return not top or path == top or (path.startswith(top) and path[len(top) : len(top) + 1] == b"/")


def tree_path(path: PurePath) -> bytes:
    """Convert an absolute path of our own disk to the form that paths of the tree have."""
    return bytes(path).strip(b"/")
