"""Test what is read of a build tool's program: whole, cut at every offset, and damaged."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.cli.build_commands.build_tools import is_static
from tests.unit.mutations import mutations

LOAD, INTERPRETER = 1, 3


def program(*kinds: int, offset: int = 64, size: int = 56, order: str = "<") -> bytes:
    """Return an ELF program of 64 bits with these entries in its table."""
    head = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(10)
    head += struct.pack(order + "HHIQQQIHHHHHH", 2, 62, 1, 0, offset, 0, 0, 64, size, len(kinds), 0, 0, 0)
    return head + b"".join(struct.pack(order + "I", kind) + bytes(52) for kind in kinds)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_program_is_static_if_it_names_no_linker(order: str) -> None:
    assert is_static(BytesIO(program(LOAD, LOAD, order=order)))
    assert not is_static(BytesIO(program(LOAD, INTERPRETER, order=order)))


@pytest.mark.parametrize("whole", [program(LOAD, LOAD), program(LOAD, INTERPRETER)])
def test_a_program_that_was_cut_is_not_judged(whole: bytes) -> None:
    for length in range(len(whole)):
        assert not is_static(BytesIO(whole[:length]))


@pytest.mark.parametrize(
    "damaged",
    [
        program(LOAD, offset=2**64 - 1),
        program(LOAD, offset=2**63),
        program(LOAD, offset=2**63 - 1),
        program(LOAD, size=0),
        program(LOAD, size=65535),
    ],
)
def test_a_table_that_lies_nowhere_is_not_judged(damaged: bytes) -> None:
    assert not is_static(BytesIO(damaged))


@given(mutations(program(LOAD, INTERPRETER)) | st.binary(max_size=200))
def test_any_file_is_judged(content: bytes) -> None:
    assert is_static(BytesIO(content)) in (True, False)
