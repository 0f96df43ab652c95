"""Find the directories that a tool needs whose program directory is in PATH.

A Python virtual environment has symlinks to the Python that made it, and finds the standard library
there. This *base* may lie in a private home (pyenv, uv, conda), and may itself be such an
environment. Everything else about tools is known by plugins, which do not look at the disk.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from termite.engine import look_calls
from termite.engine.look_errors import is_answer
from termite.engine.paths import join, split
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.tools.programs import NO_FILE, way_to

ENVIRONMENT_FILE = "pyvenv.cfg"  # https://docs.python.org/3/library/venv.html: its `home` is the base's bin
MARKS = (ENVIRONMENT_FILE, "conda-meta")  # beside bin, in the top of an environment
MAX_BASES = 8  # environments of environments: nobody makes more, and a circle must end
# If an environment was made in a home directory, or in ~/.local, the rest there is not of the tool.
PARTS = ("bin", "lib", "lib64", "include", ENVIRONMENT_FILE)
SHARED_DIRECTORIES = (".local", ".config", ".cache", "share")
LARGEST_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ToolPlace:
    """The path of a tool, or of a file with settings.

    `is_watched`: it may change in the midst of a build. `is_sealed`: jobs see its name only.
    """

    path: bytes
    is_watched: bool
    is_sealed: bool = False

    @property
    def place(self) -> bytes:
        """The path whose symlinks are followed: for a sealed file that of its directory."""
        return split(self.path)[0] if self.is_sealed else self.path

    def show(self, exports: Exports, real: bytes) -> None:
        """Show it to jobs from now on. `real` is the path of the tree to which `place` leads."""
        if self.is_sealed:
            exports.seal(join(real, split(self.path)[1]))
        else:
            exports.export(real, is_watched=self.is_watched)


def environments(directories: Iterable[str], homes: Collection[str]) -> Iterator[ToolPlace]:
    """Yield what the environments need whose program directories are named, and their bases.

    `homes` are the user's home directories, of which only parts are ever yielded. This blocks on
    the disk. An environment that cannot be read (another user's, after su) is left out. Raise
    OSError if a look fails.
    """
    for directory in directories:
        for _ in range(MAX_BASES):
            top = _real(directory).parent
            if not any(_is_there(top / mark) for mark in MARKS):
                break
            yield from _tools(Path(directory).parent, homes)
            directory = _base_of(top / ENVIRONMENT_FILE)
            if not directory:
                break
            if not _is_there(_real(directory).parent / ENVIRONMENT_FILE):
                yield from _tools(Path(directory).parent, homes)


def is_too_wide(path: bytes, homes: Collection[str]) -> bool:
    """Return whether a directory has more in it than one tool.

    It is a home, one above a home, or shared by all tools, like `.local`.
    """
    real = _real(os.fsdecode(path))
    return any(_real(home).is_relative_to(real) for home in homes) or real.name in SHARED_DIRECTORIES


def _tools(top: Path, homes: Collection[str]) -> Iterator[ToolPlace]:
    parts = [top / part for part in PARTS] if is_too_wide(bytes(top), homes) else [top]
    for part in parts:
        if _is_there(part) and not is_open_to_others(_real(os.fspath(part))):
            yield ToolPlace(os.fsencode(part), is_watched=False)


def is_open_to_others(path: Path) -> bool:
    """Return whether other users of this machine can reach and read a directory or file.

    Raise OSError if a look fails.
    """
    try:
        modes = [look_calls.stat(step).st_mode for step in (path, *path.parents)]
    except OSError as error:
        if not is_answer(error):
            raise
        return False
    return bool(modes[0] & 0o004) and all(mode & 0o001 for mode in modes[1:])


def _base_of(file: Path) -> str:
    """Return the `home` of an environment's file, or "" if it has none that is absolute."""
    try:
        with open(look_calls.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as lines:
            text = lines.read(LARGEST_FILE_BYTES)
    except OSError as error:
        if error.errno not in NO_FILE and not is_answer(error):
            raise
        return ""
    for line in text.splitlines():
        name, separator, value = line.partition(b"=")
        if separator and name.strip().lower() == b"home":
            base = os.fsdecode(value.strip())
            return base if base.startswith("/") else ""
    return ""


def _is_there(path: Path) -> bool:
    try:
        look_calls.stat(path)
    except OSError as error:
        if not is_answer(error):
            raise
        return False
    return True


def _real(path: str) -> Path:
    return Path(os.fsdecode(way_to(os.fsencode(path))[1]))
