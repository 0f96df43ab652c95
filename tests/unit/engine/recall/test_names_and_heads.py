"""Test the parsers of names and heads: random names, overwriting tools, interpreters."""

import random
import string
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.recall.logic.interpreters import interpreter_of
from termite.engine.recall.logic.overwriters import always_overwrite, is_loader
from termite.engine.recall.logic.temporary_entries import is_temporary, looks_random
from termite.engine.recall.logic.traced_paths import AccessKind
from tests.unit.mutations import mutations
from tests.unit.tables import each_row


def test_most_names_of_mkstemp_look_random() -> None:
    rng = random.Random(1)
    names = ["".join(rng.choices(string.ascii_letters + string.digits, k=6)) for _ in range(1000)]
    for prefix, suffix in (("cc", ".s"), ("sed", ""), ("st", ".tar.gz"), ("", "")):
        found = sum(looks_random(f"{prefix}{name}{suffix}".encode()) for name in names)
        assert found > 850


@each_row(
    "name", [b"lock", b"build.lock", b"Packages.lock", b"lock12345", b"README", b"x86_64", b"index.lock", b"a", b""]
)
def test_other_names_do_not(name: bytes) -> None:
    assert not looks_random(name)


def test_names_of_known_tools_are_all_random() -> None:
    for name in (b"ccabcdef.s", b"ccABCDEF.le", b"cc123456", b"sedabcdef", b"sortabcdef", b"ccabcdef.cdtor.c"):
        assert looks_random(name)
    for name in (b"sthupRJP", b"tmpab_defgh", b"tmp.abcdefghij"):
        assert looks_random(name)
    for name in (b"ccabcde.s", b"ccabcdefg", b"xccabcdef.s", b"sedabcdef-x"):
        assert not looks_random(name)
    for name in (b"stlocked", b"tmplock", b"tmp.lock", b"state.lock"):
        assert not looks_random(name)


def test_only_what_a_job_made_first_is_temporary() -> None:
    assert is_temporary(b"ccAb12cD.s", AccessKind.EXCL | AccessKind.CREATE)
    assert is_temporary(b"CuXy7Z2q", AccessKind.MAKE)
    assert not is_temporary(b"ccAb12cD.s", AccessKind.STAT)
    assert not is_temporary(b"ccAb12cD.s", AccessKind.CREATE)


@each_row(
    ("tools", "argv", "expected"),
    [
        (["/usr/bin/gcc", "/usr/libexec/cc1", "/usr/bin/x86_64-linux-gnu-as"], ["gcc"], True),
        (["/usr/bin/x86_64-linux-gnu-gcc-12", "/usr/bin/ld.bfd", "/x/collect2"], ["gcc"], True),
        (["/usr/bin/dash", "/usr/bin/gcc"], ["sh"], False),
        (["/usr/bin/ar"], ["ar"], False),
        (["/usr/bin/install"], ["install", "-m", "755", "a", "b"], True),
        (["/usr/bin/install"], ["install", "-C", "a", "b"], False),
        (["/usr/bin/cp"], ["/usr/bin/cp", "a", "b"], True),
        (["/usr/bin/cp"], ["cp", "--update", "a", "b"], False),
        (["/usr/bin/cp", "/usr/bin/gcc"], ["cp", "a", "b"], False),
        ([], [], False),
    ],
)
def test_a_job_overwrites_if_all_of_its_tools_do(tools: list[str], argv: list[str], expected: bool) -> None:
    found = always_overwrite([tool.encode() for tool in tools], [word.encode() for word in argv])
    assert found is expected


@pytest.mark.parametrize("name", ["ld-linux-x86-64.so.2", "ld-2.31.so", "ld-musl-x86_64.so.1", "ld64.so.2", "ld.so.1"])
def test_a_loader_is_no_tool(name: str) -> None:
    assert is_loader(b"usr/lib/" + name.encode())
    assert not is_loader(b"usr/bin/ld.bfd")


def elf(*, bits: int, order: str, interpreter: bytes, at: int = 256) -> bytes:
    """Return the head of an ELF program with two program headers; the second is PT_INTERP."""
    word = "Q" if bits == 64 else "I"
    head = bytearray(at + len(interpreter) + 1)
    head[:6] = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if order == "<" else 2])
    table, size = 64, 56 if bits == 64 else 32
    struct.pack_into(order + word, head, 32 if bits == 64 else 28, table)
    struct.pack_into(order + "HH", head, 54 if bits == 64 else 42, size, 2)
    struct.pack_into(order + "I", head, table, 1)
    struct.pack_into(order + "I", head, table + size, 3)
    struct.pack_into(order + word, head, table + size + (8 if bits == 64 else 4), at)
    struct.pack_into(order + word, head, table + size + (32 if bits == 64 else 16), len(interpreter) + 1)
    head[at : at + len(interpreter)] = interpreter
    return bytes(head)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_loader_of_an_elf_program_is_found(bits: int, order: str) -> None:
    program = elf(bits=bits, order=order, interpreter=b"/lib/ld.so.2")
    assert interpreter_of(program) == b"/lib/ld.so.2"
    assert interpreter_of(program[:260]) is None  # the name is beyond the head
    assert interpreter_of(program[:70]) is None


@each_row(
    ("head", "expected"),
    [
        (b"#!/bin/sh\necho", b"/bin/sh"),
        (b"#! /usr/bin/env python3 -u\n", b"/usr/bin/env"),
        (b"#!\t/bin/sh", b"/bin/sh"),
        (b"#!./here\n", b"./here"),
        (b"#!\n", b""),
        (b"echo without a first line", b""),
        (b"", b""),
    ],
)
def test_the_interpreter_of_a_script_is_the_first_word(head: bytes, expected: bytes) -> None:
    assert interpreter_of(head) == expected


PROGRAMS = st.sampled_from([elf(bits=bits, order="<", interpreter=b"/lib/ld.so.2") for bits in (32, 64)])


@given(PROGRAMS.flatmap(mutations))
def test_no_head_is_too_strange(head: bytes) -> None:
    assert isinstance(interpreter_of(head), bytes | None)
