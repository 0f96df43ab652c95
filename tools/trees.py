"""Read trees of files, compare them, and put a tree back into a saved state."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_IFMT, S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

OURS = (".termite-socket", ".termite-staging")  # a running master keeps these in its tree


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry has the properties of one path that must be equal in two builds.

    `mode` has type and permissions. `content` is the digest of a file or the target of a link.
    """

    mode: int
    content: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """A stamp has the properties of a file that change if somebody writes to it."""

    mode: int
    size: int
    mtime_ns: int


def read_tree(root: Path) -> dict[str, Entry]:
    """Return the entries of all files below `root`, by their path from there."""
    return {str(path.relative_to(root)): _read_entry(path) for path in _walk(root)}


def differences(one: Mapping[str, Entry], other: Mapping[str, Entry]) -> list[str]:
    """Return the paths whose entries differ, or that only one of the trees has."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def put_back(root: Path, saved: Path) -> None:
    """Make `root` equal to `saved`, times included.

    A file that is equal already is not touched, because a master may be watching the tree.
    """
    for path in sorted(_walk(root), reverse=True):  # contents of a directory come before the directory
        if not os.path.lexists(saved / path.relative_to(root)):
            _remove(path)
    directories = [saved]
    for path in _walk(saved):
        there = root / path.relative_to(saved)
        if S_ISDIR(path.lstat().st_mode):
            if there.is_symlink() or not there.is_dir():
                _remove(there)
                there.mkdir()
            directories.append(path)
        elif not os.path.lexists(there) or _stamp(path) != _stamp(there):
            _remove(there)
            shutil.copy2(path, there, follow_symlinks=False)
    for path in reversed(directories):
        shutil.copystat(path, root / path.relative_to(saved))


def _walk(root: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(root):
        directories[:] = sorted(name for name in directories if name not in OURS)
        for name in sorted([*directories, *files]):
            if name not in OURS:
                yield Path(directory, name)


def _read_entry(path: Path) -> Entry:
    mode = path.lstat().st_mode
    if S_ISLNK(mode):
        return Entry(S_IFMT(mode), os.readlink(path))
    if not S_ISREG(mode):
        return Entry(S_IFMT(mode) | S_IMODE(mode), "")
    with path.open("rb") as file:
        return Entry(S_IFMT(mode) | S_IMODE(mode), hashlib.file_digest(file, "sha256").hexdigest())


def _stamp(path: Path) -> Stamp:
    status = path.lstat()
    return Stamp(status.st_mode, status.st_size, status.st_mtime_ns)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
