"""The call that blocks a thread, read from lines and memory as kernels give them."""

import struct

import pytest

from termite.fuse.stdin.logic.blocked_calls import (
    BlockedCall,
    UnknownArchitecture,
    parse_epoll,
    parse_polled,
    parse_select_set,
    parse_syscall,
    parse_vectors,
    polled_array,
    select_set,
    vector_array,
)
from tests.unit.tables import each_row

STACK, STACK_32 = 0x7FFC9AD9B1D8, 0xFF9AD9B1


def line(number: int, *arguments: int, stack: int = STACK) -> str:
    words = [*arguments, *[0] * (6 - len(arguments)), stack, 0x7F5FD2FDFB60]
    return " ".join([str(number), *map(hex, words)]) + "\n"


def call(number: int, *arguments: int, machine: str = "x86_64", stack: int = STACK) -> BlockedCall:
    parsed = parse_syscall(line(number, *arguments, stack=stack), machine)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("text", ["", "running\n", "-1 0x7ffc9ad9b1d8 0x7fb0\n", line(61, 43)])
def test_who_runs_or_waits_for_something_else_waits_for_no_pipe(text: str) -> None:
    assert parse_syscall(text, "x86_64") is None


@each_row(
    ("machine", "number", "stack", "kind", "word_bytes"),
    [
        ("x86_64", 0, STACK, "read", 8),
        ("aarch64", 63, STACK, "read", 8),
        ("x86_64", 3, STACK_32, "read", 4),
        ("x86_64", 276, STACK, "tee", 8),
        ("x86_64", 219, STACK, "poll again", 8),
        ("x86_64", 0, STACK_32, "poll again", 4),
    ],
)
def test_a_call_has_the_number_of_its_own_architecture(
    machine: str, number: int, stack: int, kind: str, word_bytes: int
) -> None:
    assert call(number, 5, 4096, 77, machine=machine, stack=stack) == BlockedCall(
        kind,  # type: ignore[arg-type]  # one of its literals
        (5, 4096, 77, 0, 0, 0),
        word_bytes,
    )


@pytest.mark.parametrize(("machine", "stack"), [("riscv64", STACK), ("aarch64", STACK_32)])
def test_of_an_unknown_architecture_nothing_can_be_said(machine: str, stack: int) -> None:
    with pytest.raises(UnknownArchitecture, match=machine):
        parse_syscall(line(63, stack=stack), machine)


def test_a_poll_names_an_array_of_descriptors_and_events() -> None:
    poll = call(7, 0x1000, 3)
    assert polled_array(poll) == (0x1000, 24)
    memory = struct.pack("<ihhihhihh", 0, 1, 0, -1, 1, 0, 5, 4, 0)
    assert parse_polled(memory) == [0]
    assert parse_polled(b"") == []
    assert polled_array(call(7, 0x1000, 0x7FFFFFFF))[1] == 0


@pytest.mark.parametrize(("number", "stack", "size"), [(270, STACK, 16), (142, STACK_32, 12)])
def test_a_select_names_a_set_of_whole_words(number: int, stack: int, size: int) -> None:
    select = call(number, 70, 0x1000, stack=stack)
    assert select_set(select) == (0x1000, size)
    assert parse_select_set(((1 << 69) | (1 << 70) | 1).to_bytes(16, "little"), select) == [0, 69]
    assert select_set(call(number, 70, 0, stack=stack)) == (0, 0)


def test_vectors_are_added_up() -> None:
    readv = call(19, 0, 0x1000, 2)
    assert vector_array(readv) == (0x1000, 32)
    assert parse_vectors(struct.pack("<QQQQ", 1, 100, 2, 11), readv) == 111
    compat = call(145, 0, 0x1000, 2, stack=STACK_32)
    assert vector_array(compat) == (0x1000, 16)
    assert parse_vectors(struct.pack("<IIII", 1, 100, 2, 11), compat) == 111


def test_an_epoll_lists_what_it_waits_for() -> None:
    text = """pos:	0
flags:	02000002
mnt_id:	15
ino:	1054
tfd:        0 events:       19 data:                0  pos:0 ino:1234 sdev:d
tfd:        7 events:       1c data:                7  pos:0 ino:1235 sdev:d
tfd:        9 events: 80000001 data:                9  pos:0 ino:1236 sdev:d
"""
    assert parse_epoll(text) == [0, 9]
