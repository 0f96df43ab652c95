"""Protections that the linker gives the native programs, read from their ELF headers."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

PT_LOAD, PT_GNU_STACK, PT_GNU_RELRO = 1, 0x6474E551, 0x6474E552
EXECUTABLE, WRITABLE = 1, 2


def segments(program: Path) -> Iterator[tuple[int, int]]:
    """Yield type and flags of each segment of a 64-bit little-endian ELF file."""
    content = program.read_bytes()
    assert content[:6] == b"\x7fELF\x02\x01"
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for at in range(start, start + size * count, size):
        yield struct.unpack_from("<II", content, at)


@pytest.mark.parametrize("name", ["launcher", "sandbox_program", "preload_library"])
def test_no_memory_of_a_program_is_writable_and_executable(name: str, request: pytest.FixtureRequest) -> None:
    found = list(segments(request.getfixturevalue(name)))
    kinds = [kind for kind, _ in found]
    assert PT_GNU_RELRO in kinds
    assert PT_GNU_STACK in kinds
    for kind, flags in found:
        if kind in (PT_LOAD, PT_GNU_STACK):
            assert flags & (EXECUTABLE | WRITABLE) != EXECUTABLE | WRITABLE
