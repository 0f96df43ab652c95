"""Take a directory as a value, to compare the results of a local and a remote command."""

import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_IFMT, S_IMODE, S_ISDIR, S_ISLNK, S_ISREG


@dataclass(frozen=True, slots=True)
class Entry:
    """A path without its times, for which see `times`. `links` are the names of the same inode."""

    kind: int
    mode: int
    content: bytes
    links: tuple[bytes, ...]


def snapshot(root: Path) -> dict[bytes, Entry]:
    """Return everything below `root`, by the path relative to it."""
    found = {os.path.relpath(path, os.fsencode(root)): os.lstat(path) for path in _walk(os.fsencode(root))}
    names: dict[tuple[int, int], list[bytes]] = {}
    for path, stat in sorted(found.items()):
        if not S_ISDIR(stat.st_mode):
            names.setdefault((stat.st_dev, stat.st_ino), []).append(path)
    return {
        path: Entry(
            S_IFMT(stat.st_mode),
            S_IMODE(stat.st_mode),
            _content(os.path.join(os.fsencode(root), path), stat.st_mode),
            tuple(names.get((stat.st_dev, stat.st_ino), ())),
        )
        for path, stat in found.items()
    }


def times(root: Path) -> dict[bytes, int]:
    """Return the mtime, in nanoseconds, of everything below `root`."""
    return {os.path.relpath(path, os.fsencode(root)): os.lstat(path).st_mtime_ns for path in _walk(os.fsencode(root))}


def _walk(root: bytes) -> list[bytes]:
    found = []
    for directory, directories, files in os.walk(root):
        found += [os.path.join(directory, name) for name in directories + files]
    return found


def _content(path: bytes, mode: int) -> bytes:
    if S_ISLNK(mode):
        return os.readlink(path)
    if not S_ISREG(mode):
        return b""
    closed = not os.access(path, os.R_OK)
    if closed:
        os.chmod(path, 0o400)
    with open(path, "rb") as file:
        content = file.read()
    if closed:
        os.chmod(path, S_IMODE(mode))
    return content
