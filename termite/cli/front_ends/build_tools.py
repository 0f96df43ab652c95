"""What is found out about a build tool and a build directory before a build."""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from termite.engine.errors import UserError

READ_BYTES = 1024 * 1024  # of a generated makefile or cache; what is looked for stands at the head
LARGEST_MAKE_BYTES = 4 * 1024 * 1024
_ELF_INTERPRETER = 3
_SOURCE_IN_CACHE = re.compile(rb"^CMAKE_HOME_DIRECTORY:INTERNAL=(.+)$", re.MULTILINE)
_SOURCE_IN_MAKEFILE = [
    re.compile(rb"^%s[ \t]*=[ \t]*([^\s$]+)[ \t]*$" % name, re.MULTILINE)
    for name in (b"abs_top_srcdir", b"top_srcdir", b"abs_srcdir", b"srcdir")
]
# What would change the answer, or belongs to a make that started us.
_OF_MAKE = ("MAKEFLAGS", "GNUMAKEFLAGS", "MFLAGS", "MAKEFILES", "MAKELEVEL", "MAKE_SHELL", "LD_PRELOAD")


def find_program(name: str) -> Path:
    """The file that `name` stands for: itself, or the first one in PATH that is not this very program."""
    if "/" in name:
        return Path(name)
    ourselves = os.path.realpath(sys.argv[0])
    for directory in os.get_exec_path():
        candidate = os.path.join(directory, name)
        # Somebody may have put a `make` that is a link to termite-make in front of PATH.
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK) and os.path.realpath(candidate) != ourselves:
            return Path(candidate)
    raise UserError(f"{name} is not in your PATH")


def check_preload(program: Path) -> None:
    """UserError where the dynamic linker would not load our library into it."""
    if reason := why_not_preloaded(program):
        raise UserError(f"{program} {reason}, so its commands cannot be sent to workers")


def why_not_preloaded(program: Path) -> str:
    """Why the dynamic linker would not load our library into it; empty: it will."""
    if program.stat().st_mode & 0o6000:
        return "is set-user-id or set-group-id"
    with program.open("rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] != 2:
            return ""  # a script; or 32 bits, which the linker reports itself
        order = "little" if head[5] == 1 else "big"
        offset, size, count = (int.from_bytes(head[a:b], order) for a, b in ((32, 40), (54, 56), (56, 58)))  # type: ignore[arg-type]  # mypy loses the literals
        file.seek(offset)
        table = file.read(size * count)
    kinds = {int.from_bytes(table[at : at + 4], order) for at in range(0, len(table), size or 1)}  # type: ignore[arg-type]  # as above
    return "" if _ELF_INTERPRETER in kinds else "is linked statically"


def has_make_shell(make: Path) -> bool:
    """Does it list `make-shell` in .FEATURES? Then MAKE_SHELL serves, also where the make is static or setuid."""
    if not why_not_preloaded(make) and _is_program_without(make, b"make-shell"):
        return False
    env = {name: text for name, text in os.environ.items() if name not in _OF_MAKE}
    question = [str(make), "-rR", "-f", os.devnull, "--eval=$(info $(.FEATURES))"]
    return b"make-shell" in _output_of(question, env).split()


def _is_program_without(program: Path, word: bytes) -> bool:
    """Whether that word is nowhere in it: a look at 250 KB takes a tenth of the time that asking a make does.

    False: it has it, or it is a script that may call anything.
    """
    if not program.is_file() or program.stat().st_size > LARGEST_MAKE_BYTES:
        return False
    content = program.read_bytes()
    return content.startswith(b"\x7fELF") and word not in content


def _output_of(argv: list[str], env: Mapping[str, str]) -> bytes:
    """What a program says on stdout, which is not much; nothing where it cannot be run."""
    # Not by subprocess: every build waits for this, and importing that alone takes as long as asking.
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
    """The source directory of a build directory that CMake, Meson or a configure script has made."""
    for name, read in (
        ("CMakeCache.txt", _source_in_cache),
        ("meson-info/meson-info.json", _source_in_meson),
        ("Makefile", _source_in_makefile),
    ):
        try:
            with (directory / name).open("rb") as file:
                found = read(file.read(READ_BYTES))
        except OSError:
            continue
        if found and os.path.isdir(source := os.path.realpath(directory / found)):
            return Path(source)
    return None


def _source_in_cache(text: bytes) -> str:
    found = _SOURCE_IN_CACHE.search(text)
    return os.fsdecode(found[1]) if found else ""


def _source_in_meson(text: bytes) -> str:
    try:
        source = json.loads(text)["directories"]["source"]
    except (ValueError, LookupError, TypeError):
        return ""
    return source if isinstance(source, str) else ""


def _source_in_makefile(text: bytes) -> str:
    for pattern in _SOURCE_IN_MAKEFILE:
        if found := pattern.search(text):
            return os.fsdecode(found[1])
    return ""
