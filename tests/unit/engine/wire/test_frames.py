"""Test the frames of a connection: whole, cut at each offset, and made of random bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError, Retryable
from termite.engine.wire.protocol.frames import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    Frame,
    FrameReader,
    Kind,
    encode_frame,
)
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

FRAMES = [
    Frame(Kind.REQUEST, 1, b"\x91\xa4Ping"),
    Frame(Kind.CHUNK, 1, b"x" * 100),
    Frame(Kind.CREDIT, 2, b"\0\1\0\0"),
    Frame(Kind.CANCEL, 2**32 - 1, b""),
    Frame(Kind.REPLY, 1, b"\x92\xa4Pong\x01"),
]
BYTES = b"".join(encode_frame(*frame) for frame in FRAMES)


def read(*pieces: bytes) -> list[Frame]:
    reader = FrameReader()
    return [frame for piece in pieces for frame in reader.receive(piece)]


def test_frames_come_out_as_they_went_in() -> None:
    assert read(BYTES) == FRAMES


def test_frames_survive_being_fed_byte_by_byte() -> None:
    assert read(*(bytes([byte]) for byte in BYTES)) == FRAMES


def test_frames_survive_a_cut_at_every_offset() -> None:
    for cut in range(len(BYTES) + 1):
        assert read(BYTES[:cut], BYTES[cut:]) == FRAMES


def test_an_incomplete_frame_is_known_to_be_incomplete() -> None:
    reader = FrameReader()
    assert list(reader.receive(BYTES[:-1])) == FRAMES[:-1]
    assert reader.buffered_bytes
    assert list(reader.receive(BYTES[-1:])) == FRAMES[-1:]
    assert not reader.buffered_bytes


def header(length: int, kind: int, stream: int = 1) -> bytes:
    return struct.pack(">IBI", length, kind, stream)


@pytest.mark.attack
@each_row(
    "bad",
    [
        header(5, 0),
        header(5, 6),
        header(5, 255),
        header(0, Kind.CANCEL),
        header(4, Kind.CANCEL),
        header(6, Kind.CANCEL),
        header(5, Kind.REQUEST),
        header(5, Kind.CHUNK),
        header(8, Kind.CREDIT),
        header(10, Kind.CREDIT),
        header(MAX_CHUNK_BYTES + 6, Kind.CHUNK),
        header(MAX_MESSAGE_BYTES + 6, Kind.REPLY),
        header(MAX_MESSAGE_BYTES + 6, Kind.PART),
        header(2**32 - 1, Kind.REQUEST),
    ],
)
def test_a_bad_header_is_refused_before_its_payload_comes(bad: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(bad)


def test_the_largest_frames_are_allowed() -> None:
    largest = [Frame(Kind.REPLY, 1, b"r" * MAX_MESSAGE_BYTES), Frame(Kind.CHUNK, 1, b"c" * MAX_CHUNK_BYTES)]
    assert read(b"".join(encode_frame(*frame) for frame in largest)) == largest


def test_a_message_that_is_too_large_is_the_schedulers_problem() -> None:
    with pytest.raises(Retryable, match="too large"):
        encode_frame(Kind.REPLY, 1, b"r" * (MAX_MESSAGE_BYTES + 1))


@pytest.mark.attack
@given(st.lists(st.binary(max_size=40)))
def test_rubbish_is_read_or_refused(pieces: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for piece in pieces:
            for frame in reader.receive(piece):
                assert read(encode_frame(*frame)) == [frame]
    except RemoteProtocolError:
        return
    assert reader.buffered_bytes <= sum(map(len, pieces))


def read_until_refused(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    reader, frames = FrameReader(), []
    try:
        for piece in pieces:
            frames += list(reader.receive(piece))
    except RemoteProtocolError:
        return frames, True
    return frames, False


@pytest.mark.attack
@given(mutations(BYTES))
def test_damaged_frames_are_read_or_refused_alike_however_they_are_cut(damaged: bytes) -> None:
    frames, is_refused = read_until_refused([damaged[at : at + 1] for at in range(len(damaged))])
    assert read_until_refused([damaged])[1] == is_refused
    assert all(read(encode_frame(*frame)) == [frame] for frame in frames)
