"""A value that was damaged, or that another program has written, counts as missing."""

import hashlib
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.model import Attr, Change, Digest
from termite.engine.recall.look_up import stored_rows
from termite.engine.recall.look_up.stored_rows import (
    CHECKSUM_BYTES,
    LastRun,
    OutputPiece,
    RecordedResult,
    ResultRow,
    pack_value,
    unpack_value,
)
from tests.unit.mutations import mutations

DIGEST = Digest(bytes(range(32)), 7)
CHANGES = (Change(b"p/x.o", Attr(0o100644, 7, 1, DIGEST)), Change(b"p/l", Attr(0o120777, 1, 2, None, b"x")))
RESULT = RecordedResult(CHANGES, (OutputPiece(1, b"out"),), 1, 2, job="cc x.c", tools=(b"usr/bin/cc",))
ROW = ResultRow(b"t" * 32, b"b" * 32, b"p" * 32, RESULT, known=("cc",))
LONG = msgspec.structs.replace(ROW, result=msgspec.structs.replace(RESULT, tools=(b"usr/bin/cc",) * 300))
RUN = LastRun((b"cc", b"x.c"), {b"PATH": bytes(8)}, {"cwd": b"/p"})
VALUES = [ROW, LONG, RUN]


def sealed(body: bytes) -> bytes:
    """Return a body with the checksum that it should have."""
    return hashlib.sha256(body).digest()[:CHECKSUM_BYTES] + body


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_whole_and_never_in_part(value: msgspec.Struct) -> None:
    packed = pack_value(value)
    assert unpack_value(packed, type(value)) == value
    for end in range(len(packed)):
        assert unpack_value(packed[:end], type(value)) is None
        if end >= CHECKSUM_BYTES:  # an error of another program, not of the disk
            assert unpack_value(sealed(packed[CHECKSUM_BYTES:end]), type(value)) in (None, value)


@given(st.sampled_from(VALUES).flatmap(lambda value: mutations(pack_value(value))))
def test_a_damaged_value_is_missing(packed: bytes) -> None:
    if packed not in map(pack_value, VALUES):
        for kind in (ResultRow, LastRun):
            assert unpack_value(packed, kind) is None


@given(
    st.sampled_from(VALUES).flatmap(lambda value: mutations(pack_value(value)[CHECKSUM_BYTES:]))
    | mutations(msgspec.msgpack.encode(ROW)).map(lambda body: b"\1" + zlib.compress(body))
    | st.binary(max_size=40)
)
def test_a_value_with_a_right_checksum_is_of_its_kind_or_missing(body: bytes) -> None:
    for kind in (ResultRow, LastRun, RecordedResult):
        assert isinstance(unpack_value(sealed(body), kind), kind | None)


def test_a_value_that_is_nested_without_end_is_missing() -> None:
    for body in (b"\x91" * 100_000, b"\x81" * 100_000):
        assert unpack_value(sealed(b"\0" + body), ResultRow) is None


def test_a_value_that_grows_when_it_is_unpacked_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_value(LONG)
    monkeypatch.setattr(stored_rows, "MOST_UNPACKED_BYTES", 1000)
    assert unpack_value(packed, ResultRow) is None
