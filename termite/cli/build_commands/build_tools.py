"""Facts about a build tool and a build directory that a front end needs before a build."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from termite.engine.errors import UserError

TYPE_CHECKING = False  # not typing's: every build waits for this import
if TYPE_CHECKING:
    from typing import BinaryIO

READ_BYTES = 1024 * 1024  # of a generated makefile or cache: the lines that we need are at its head
LARGEST_MAKE_BYTES = 4 * 1024 * 1024
_ELF_INTERPRETER = 3  # the kind of an entry in the table of an ELF program
_ELF_ENTRY_BYTES = 56
_SOURCE_IN_CACHE = re.compile(rb"^CMAKE_HOME_DIRECTORY:INTERNAL=(.+)$", re.MULTILINE)
_SOURCE_IN_MAKEFILE = [
    re.compile(rb"^%s[ \t]*=[ \t]*([^\s$]+)[ \t]*$" % name, re.MULTILINE)
    for name in (b"abs_top_srcdir", b"top_srcdir", b"abs_srcdir", b"srcdir")
]
# Variables that would change the answer, or that belong to a make that started us.
_OF_MAKE = ("MAKEFLAGS", "GNUMAKEFLAGS", "MFLAGS", "MAKEFILES", "MAKELEVEL", "MAKE_SHELL", "LD_PRELOAD")


FRONT_ENDS = ("make", "ninja", "cmake", "build")


def find_program(name: str) -> Path:
    """Return the file that `name` stands for: the path itself, or else a program in PATH.

    The program in PATH is the first that is not this front end itself.
    Raise UserError if there is none.
    """
    if "/" in name:
        return Path(name)
    ourselves = _front_ends()
    for directory in os.get_exec_path():
        candidate = os.path.join(directory, name)
        # PATH may begin with a directory whose `make` is a link to termite-make.
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK) and _inode(candidate) not in ourselves:
            return Path(candidate)
    raise UserError(f"{name} is not in your PATH")


def _front_ends() -> set[tuple[int, int]]:
    """Return the inodes of the front ends, which stand beside this program."""
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    found = (_inode(os.path.join(beside, f"termite-{name}")) for name in FRONT_ENDS)
    return {inode for inode in (*found, _inode(sys.argv[0])) if inode is not None}


def _inode(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_there(name: str) -> bool:
    """Return whether a path, or a program in PATH, exists."""
    try:
        return find_program(name).exists()
    except (UserError, OSError):
        return False


def check_preload(program: Path) -> None:
    """Raise UserError if the dynamic linker would not load our library into `program`."""
    if reason := why_not_preloaded(program):
        raise UserError(f"{program} {reason}, so its commands cannot be sent to workers")


def why_not_preloaded(program: Path) -> str:
    """Return why the dynamic linker would not load our library into `program`, "" if it would."""
    if program.stat().st_mode & 0o6000:
        return "is set-user-id or set-group-id"
    with program.open("rb") as file:
        return "is linked statically" if is_static(file) else ""


def is_static(file: BinaryIO) -> bool:
    """Return True if a file is an ELF program of 64 bits that names no dynamic linker.

    Return False for a script, and for a 32-bit program: then the linker itself reports a wrong
    library. Return False for a damaged program too, which the kernel will not execute.
    """
    head = file.read(64)
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] != 2:
        return False
    order = "little" if head[5] == 1 else "big"
    offset, size, count = (int.from_bytes(head[a:b], order) for a, b in ((32, 40), (54, 56), (56, 58)))  # type: ignore[arg-type]  # mypy loses the literals
    if size != _ELF_ENTRY_BYTES or offset + size * count > file.seek(0, os.SEEK_END):
        return False
    file.seek(offset)
    table = file.read(size * count)
    kinds = {int.from_bytes(table[at : at + 4], order) for at in range(0, len(table), size)}  # type: ignore[arg-type]  # as above
    return _ELF_INTERPRETER not in kinds


def has_make_shell(make: Path) -> bool:
    """Return True if `make` lists `make-shell` in .FEATURES.

    Then setting MAKE_SHELL is enough, even if the make is linked statically or is set-user-id.
    """
    if not why_not_preloaded(make) and _is_program_without(make, b"make-shell"):
        return False
    env = {name: text for name, text in os.environ.items() if name not in _OF_MAKE}
    question = [str(make), "-rR", "-f", os.devnull, "--eval=$(info $(.FEATURES))"]
    return b"make-shell" in _output_of(question, env).split()


def _is_program_without(program: Path, word: bytes) -> bool:
    """Return True if `program` is an ELF file that does not contain `word`.

    Searching its 250 KB takes a tenth of the time that asking a make takes. The answer is False for
    a script, because it may call any other program.
    """
    if not program.is_file() or program.stat().st_size > LARGEST_MAKE_BYTES:
        return False
    content = program.read_bytes()
    return content.startswith(b"\x7fELF") and word not in content


def _output_of(argv: list[str], env: Mapping[str, str]) -> bytes:
    """Run a program and return its output, at most READ_BYTES, or b"" if it cannot be started."""
    # subprocess is not used: every build waits for this, and importing it takes as long as the
    # program itself.
    output, for_child = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, for_child, 1),
    ]
    try:
        child = os.posix_spawn(argv[0], argv, env, file_actions=actions)
    except OSError:
        os.close(output)
        return b""
    finally:
        os.close(for_child)
    with os.fdopen(output, "rb") as file:
        said = file.read(READ_BYTES)
    os.waitpid(child, 0)
    return said


def find_source(directory: Path) -> Path | None:
    """Return the source directory of a build directory that CMake, Meson or configure has made.

    Return None if it cannot be found.
    """
    for name, read in (
        ("CMakeCache.txt", _source_in_cache),
        ("meson-info/meson-info.json", _source_in_meson),
        ("Makefile", _source_in_makefile),
    ):
        try:
            # An archive may have brought a FIFO of this name, at which nobody must wait.
            with open(os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                found = read(file.read(READ_BYTES))
            if found and os.path.isdir(source := os.path.realpath(directory / found)):
                return Path(source)
        except OSError:  # no such file, so another tool has made the directory
            continue
        except ValueError:  # no file has such a name: it has a NUL, or half a character
            continue
    return None


def _source_in_cache(text: bytes) -> str:
    found = _SOURCE_IN_CACHE.search(text)
    return os.fsdecode(found[1]) if found else ""


def _source_in_meson(text: bytes) -> str:
    try:
        source = json.loads(text)["directories"]["source"]
    except (ValueError, LookupError, TypeError, RecursionError):  # a file of another version: unknown, as without it
        return ""
    return source if isinstance(source, str) else ""


def _source_in_makefile(text: bytes) -> str:
    for pattern in _SOURCE_IN_MAKEFILE:
        if found := pattern.search(text):
            return os.fsdecode(found[1])
    return ""
