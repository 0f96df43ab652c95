"""Data and holes travel as chunks with a tag."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError
from termite.engine.wire.protocol.frames import DATA_BYTES, MAX_CHUNK_BYTES, pack_piece, parse_piece
from tests.unit.mutations import mutations
from tests.unit.tables import each_row


@each_row("piece", [b"x", b"\2" * 9, b"x" * DATA_BYTES, 1, 20 * 1024**3, 2**63])
def test_a_piece_comes_as_it_was_sent(piece: bytes | int) -> None:
    chunk = pack_piece(piece)
    assert len(chunk) <= MAX_CHUNK_BYTES
    parsed = parse_piece(chunk)
    assert (parsed if isinstance(parsed, int) else bytes(parsed)) == piece


BROKEN = [b"", b"\1", b"\0x", b"\2", b"\2" + bytes(7), b"\2" + bytes(8), b"\2" + b"\1" * 9, b"\3x"]


@each_row("chunk", BROKEN)
def test_anything_else_breaks_the_protocol(chunk: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_piece(chunk)


@given(st.binary(max_size=64) | mutations(pack_piece(b"content")) | mutations(pack_piece(20 * 1024**3)))
def test_a_chunk_is_refused_or_is_what_its_piece_is_sent_as(chunk: bytes) -> None:
    try:
        piece = parse_piece(chunk)
    except RemoteProtocolError:
        return
    assert piece, "a piece that is nothing never ends"
    assert pack_piece(piece if isinstance(piece, int) else bytes(piece)) == chunk


@given(st.binary(min_size=1, max_size=64) | st.integers(1, 2**64 - 1))
def test_a_piece_that_is_cut_is_another_one_or_refused(piece: bytes | int) -> None:
    chunk = pack_piece(piece)
    for end in range(len(chunk)):
        try:
            parsed = parse_piece(chunk[:end])
        except RemoteProtocolError:
            continue
        assert isinstance(piece, bytes) and not isinstance(parsed, int)
        assert bytes(parsed) == piece[: end - 1]
