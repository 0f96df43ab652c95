"""Protections that compiler and linker give the native programs, read from their ELF files."""

import json
import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from termite.engine.host.native_programs import native_program
from tests.native.sandboxes import is_sanitized

CHECKOUT = Path(__file__).parents[2]
PT_LOAD, PT_DYNAMIC, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
EXECUTABLE, WRITABLE = 1, 2
ET_DYN = 3  # the file can be loaded at any address
DT_FLAGS, DT_FLAGS_1 = 30, 0x6FFFFFFB
DF_BIND_NOW, DF_1_NOW = 8, 1
FRONT_ENDS = ["termite-build", "termite-cmake", "termite-make", "termite-ninja"]
AT_FIXED_ADDRESS = ["termite", *FRONT_ENDS]  # made with musl, where that is installed
PROGRAMS = [*AT_FIXED_ADDRESS, "termite-sandbox", "libtermite-exec.so"]
CANARY = re.compile(rb"\x64[\x48\x4c][\x8b\x2b\x33\x3b].\x25\x28\0\0\0", re.DOTALL)  # it is read at %fs:0x28


class Segment(NamedTuple):
    """A segment of an ELF file, with its place in the file."""

    kind: int
    flags: int
    start: int
    size: int


def segments(program: Path) -> Iterator[Segment]:
    """Yield each segment of a 64-bit little-endian ELF file."""
    content = program.read_bytes()
    assert content[:6] == b"\x7fELF\x02\x01"
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for at in range(start, start + size * count, size):
        kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", content, at)
        yield Segment(kind, flags, offset, length)


def dynamic(program: Path) -> dict[int, int]:
    """Return the entries of the dynamic section, of which the flags stand there once.

    A program that is loaded without a linker has none.
    """
    sections = [segment for segment in segments(program) if segment.kind == PT_DYNAMIC]
    found: dict[int, int] = {}
    for section in sections:
        found.update(struct.iter_unpack("<QQ", program.read_bytes()[section.start : section.start + section.size]))
    return found


def elf_files(directory: Path) -> set[str]:
    """Return the names of termite's ELF files in a directory, without symlinks."""
    named = [path for path in directory.glob("*termite*") if path.is_file() and not path.is_symlink()]
    return {path.name for path in named if path.read_bytes()[:4] == b"\x7fELF"}


def test_no_program_is_left_out() -> None:
    assert elf_files(native_program("termite").parent) - {"termite-shell"} == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_memory_of_a_program_is_writable_and_executable(name: str) -> None:
    found = list(segments(native_program(name)))
    kinds = [segment.kind for segment in found]
    assert PT_GNU_RELRO in kinds
    assert PT_GNU_STACK in kinds
    for kind, flags, _, _ in found:
        if kind in (PT_LOAD, PT_GNU_STACK):
            assert flags & (EXECUTABLE | WRITABLE) != EXECUTABLE | WRITABLE


@pytest.mark.parametrize("name", ["termite-sandbox", "libtermite-exec.so"])
def test_it_is_at_a_random_address(name: str) -> None:
    """The launcher and the front ends are not: each command waits for the start of a launcher."""
    assert struct.unpack_from("<H", native_program(name).read_bytes(), 16) == (ET_DYN,)


@pytest.mark.parametrize("name", PROGRAMS)
def test_its_relocations_are_read_only_from_its_start(name: str) -> None:
    program = native_program(name)
    entries = dynamic(program)
    is_bound = entries.get(DT_FLAGS, 0) & DF_BIND_NOW or entries.get(DT_FLAGS_1, 0) & DF_1_NOW
    assert is_bound or (name in AT_FIXED_ADDRESS and not entries), "a static program has none to bind later"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="knows the instructions of x86-64")
@pytest.mark.parametrize("name", PROGRAMS)
def test_its_functions_check_the_stack(name: str) -> None:
    if is_sanitized(name):
        pytest.skip("the sanitizer looks at the stack: the programs that are used are tested in the first run")
    code = b""
    for kind, flags, start, size in segments(program := native_program(name)):
        if kind == PT_LOAD and flags & EXECUTABLE:
            code += program.read_bytes()[start : start + size]
    assert len(CANARY.findall(code)) >= 4, "each such function reads it at its start and at its end"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the command that compiles each source, as CMake has it."""
    build = tmp_path_factory.mktemp("build")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    configure = ["cmake", "-S", str(CHECKOUT), "-B", str(build), "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    subprocess.run(configure, env=env, check=True, stdout=subprocess.DEVNULL)
    entries = json.loads((build / "compile_commands.json").read_text())
    return {os.path.relpath(entry["file"], CHECKOUT): shlex.split(entry["command"]) for entry in entries}


@pytest.mark.parametrize(
    ("source", "is_fortified"),
    [
        ("native/sandbox/root.c", True),
        ("native/preload/preload.c", True),
        ("native/launcher/search.c", False),
        ("native/front_end/main.c", False),
    ],
)
def test_an_overflow_on_the_stack_is_found(
    commands: dict[str, list[str]], tmp_path: Path, source: str, is_fortified: bool
) -> None:
    """The C library of the launcher and the front ends, musl, has no fortified functions."""
    words = commands[source]
    compiled = tmp_path / "compiled.o"
    words[words.index("-o") + 1] = str(compiled)
    subprocess.run(words, check=True)
    undefined = subprocess.run(["nm", "-u", compiled], check=True, capture_output=True, text=True).stdout.split()
    assert "__stack_chk_fail" in undefined
    assert not is_fortified or [symbol for symbol in undefined if symbol.startswith("__") and symbol.endswith("_chk")]


def test_every_source_is_compiled_with_the_same_protections(commands: dict[str, list[str]]) -> None:
    for source in map(str, (CHECKOUT / "native").rglob("*.c")):
        words = commands.get(os.path.relpath(source, CHECKOUT))
        if words is None:
            assert source.endswith("sanitizer_options.c"), "only for tests"
            continue
        assert {"-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"} <= set(words), source
