"""Check, split and join paths of the tree: bytes without a slash at either end, b"" for the root.

A path from another process must pass `components` before it is used. A mirror is told of many paths
and names at once: `check_paths` and `check_names` take a third of a microsecond for each. The other
functions here do not check their arguments.
"""

import errno
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import NamedTuple

from termite.engine.errors import FsError, RemoteProtocolError

MASTER_SOCKET = ".termite-socket"  # in the top of a tree; native/launcher has the same name
NAME_BYTES = 1024  # what FUSE takes: on a disk of Windows, 255 UTF-16 units may be 765 bytes
RESULT_BYTES = 4095  # PATH_MAX without its NUL: a mirror reads what a job has made by paths that system calls take
# A tree may be deeper than any path that a system call takes, as programs go down step by step:
# configure scripts try that with up to 8 KiB. The master follows no directory below this, so that
# an honest one never names more.
PATH_BYTES = 4 * 4096
MOST_FRESH = 1000  # private names in temporary directories, of which each job gets all
DEEPEST_PATH = PATH_BYTES // 2  # names in a path
SHOWN_BYTES = 100  # of something that is no path, in an error
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_NO_NAMES = (b"", b".", b"..")
_DEVICE, _ROOT, _POINT = 2, 3, 4  # fields of a line of mountinfo


def allow_deep_paths() -> None:
    """Let this process walk down the deepest path by recursion.

    Python's own limit is 1000 calls.
    """
    sys.setrecursionlimit(4 * DEEPEST_PATH)


def components(path: bytes, longest: int = PATH_BYTES) -> list[bytes]:
    """Return the names in a path from the root down; the root has none.

    Raise FsError(EINVAL) if the path could lead anywhere but down ("", ".", ".." or NUL in it).
    Raise FsError(ENAMETOOLONG) if it has more than `longest` bytes, or one of its names too many.
    The caller decides who acts: an error of the job, or a breach of the protocol.
    """
    if not path:
        return []
    if len(path) > longest:
        raise FsError(errno.ENAMETOOLONG, path[:SHOWN_BYTES])
    names = path.split(b"/")
    if b"" in names or b"." in names or b".." in names or b"\0" in path:
        raise FsError(errno.EINVAL, path)
    if len(path) > NAME_BYTES and max(map(len, names)) > NAME_BYTES:
        raise FsError(errno.ENAMETOOLONG, path)
    return names


def check_paths(paths: Collection[bytes], longest: int = PATH_BYTES) -> None:
    """Raise RemoteProtocolError if `components` refuses one of them. The root is a path too."""
    named = [path for path in paths if path]
    # One search in all of them: a NUL separates two, and the slashes beside it make every name
    # stand between two.
    text = b"/%b/" % b"/\0/".join(named)
    is_clean = text.count(b"\0") == len(named) - 1 and b"//" not in text and b"/./" not in text and b"/../" not in text
    if is_clean and max(map(len, named)) <= NAME_BYTES:
        return
    for path in paths:
        try:
            components(path, longest)
        except FsError as error:
            raise RemoteProtocolError(f"not a path: {path[:SHOWN_BYTES]!r}") from error


def check_names(names: Collection[bytes]) -> None:
    """Raise RemoteProtocolError if one is not the name of an entry of a directory.

    `names` is best a dict, in which three of them are looked up.
    """
    text = b"/".join(names)
    is_clean = text.count(b"/") == len(names) - 1 and b"\0" not in text and max(map(len, names)) <= NAME_BYTES
    if is_clean and not any(name in names for name in _NO_NAMES):
        return
    for name in names:
        if name in _NO_NAMES or b"/" in name or b"\0" in name or len(name) > NAME_BYTES:
            raise RemoteProtocolError(f"not a name: {name[:SHOWN_BYTES]!r}")


def from_root_down(path: bytes) -> Iterator[bytes]:
    """Yield the root, then every directory below it that leads to the path, then the path."""
    yield b""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
    if path:
        yield path


def from_below_up(path: bytes) -> Iterator[bytes]:
    """Yield the path, then every directory above it; the root itself is left out."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]


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


def is_below(path: bytes, top: bytes) -> bool:
    """Return whether `path` is strictly below the directory `top`; b"" is the root."""
    return path != top and is_within(path, top)


def is_inside(path: str, top: str) -> bool:
    """Do as `is_within` for absolute paths, as texts. `top` may end in a slash."""
    top = top.rstrip("/")
    return not top or path == top or path.startswith(f"{top}/")


class MountLine(NamedTuple):
    """A line of /proc/PID/mountinfo (proc(5)), without escapes.

    `device` is MAJOR:MINOR, and `root` the directory of its file system that stands at `point`.
    """

    device: bytes
    root: bytes
    point: bytes
    kind: bytes
    options: bytes


def parse_mount_lines(text: bytes) -> Iterator[MountLine]:
    """Yield the mounts in a text of /proc/PID/mountinfo. Lines of another form are left out.

    Whoever mounts chooses the names. The kernel escapes blanks and line feeds in them only. Other
    characters that end a line or a word for Python stand there, and bytes that are no UTF-8.
    """
    for line in text.split(b"\n"):
        before, _, after = line.partition(b" - ")
        fields, (kind, *rest) = before.split(b" "), after.split(b" ")
        if len(fields) > _POINT and rest:
            root, point = map(unescape_mount_path, (fields[_ROOT], fields[_POINT]))
            yield MountLine(fields[_DEVICE], root, point, kind, rest[-1])


def unescape_mount_path(field: bytes) -> bytes:
    """Return a path of /proc/PID/mountinfo without escapes of blanks and backslashes (proc(5))."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)


def tree_path(path: PurePath) -> bytes:
    """Convert an absolute path of our own disk to the form that paths of the tree have."""
    return bytes(path).strip(b"/")
