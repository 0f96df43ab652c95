"""Data and holes travel as chunks with a tag."""

import pytest

from termite.engine.errors import RemoteProtocolError
from termite.engine.wire.protocol.frames import DATA_BYTES, MAX_CHUNK_BYTES, pack_piece, parse_piece


@pytest.mark.parametrize("piece", [b"x", b"\2" * 9, b"x" * DATA_BYTES, 1, 20 * 1024**3, 2**63])
def test_a_piece_comes_as_it_was_sent(piece: bytes | int) -> None:
    chunk = pack_piece(piece)
    assert len(chunk) <= MAX_CHUNK_BYTES
    parsed = parse_piece(chunk)
    assert (parsed if isinstance(parsed, int) else bytes(parsed)) == piece


BROKEN = [b"", b"\1", b"\0x", b"\2", b"\2" + bytes(7), b"\2" + bytes(8), b"\2" + b"\1" * 9, b"\3x"]


@pytest.mark.parametrize("chunk", BROKEN)
def test_anything_else_breaks_the_protocol(chunk: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_piece(chunk)
