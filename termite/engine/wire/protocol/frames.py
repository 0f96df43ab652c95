"""Frames: how requests, replies and chunks follow each other on one byte stream.

    u32 length (big endian, of what follows)   u8 kind   u32 stream (big endian)   payload

The limits are checked as soon as a header is there, so a peer cannot make us buffer more than one legal frame.
"""

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from termite.engine.errors import Reason, RemoteProtocolError, Retryable

MAX_FRAME_BYTES = 16 * 1024 * 1024  # a directory of 150,000 names fits; more than one of them in memory does not hurt
MAX_CHUNK_BYTES = 256 * 1024  # small enough that a chunk in the way delays a request by a millisecond only
_HEADER = struct.Struct(">IBI")
_AFTER_LENGTH = _HEADER.size - 4


class Kind(enum.IntEnum):
    """What a frame is; docs/develop/protocol.md, Wire."""

    REQUEST = 1
    REPLY = 2
    CHUNK = 3
    CREDIT = 4
    CANCEL = 5


class Frame(NamedTuple):
    """One frame, whole."""

    kind: Kind
    stream: int
    payload: bytes


_MESSAGE_SIZES = range(1, MAX_FRAME_BYTES - _AFTER_LENGTH + 1)
_PAYLOAD_SIZES = {
    Kind.REQUEST: _MESSAGE_SIZES,
    Kind.REPLY: _MESSAGE_SIZES,
    Kind.CHUNK: range(1, MAX_CHUNK_BYTES + 1),
    Kind.CREDIT: range(4, 5),
    Kind.CANCEL: range(1),
}
_KINDS = {int(kind): kind for kind in Kind}


def encode_frame(kind: Kind, stream: int, payload: bytes) -> bytes:
    """The bytes of one frame. Too large a payload is nobody's bug (a directory may be huge): one job does without."""
    size = len(payload)
    if size not in _PAYLOAD_SIZES[kind]:
        raise Retryable(Reason.TOO_LARGE, f"a {kind.name.lower()} of {size} bytes")
    return _HEADER.pack(_AFTER_LENGTH + size, kind, stream) + payload


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, received: bytes) -> Iterator[Frame]:
        """Take in more bytes; yield every frame that is complete now."""
        buffer = self._buffer
        buffer += received
        while len(buffer) >= _HEADER.size:
            length, number, stream = _HEADER.unpack_from(buffer)
            kind = _KINDS.get(number)
            if kind is None:
                raise RemoteProtocolError(f"a frame of unknown kind {number}")
            if length - _AFTER_LENGTH not in _PAYLOAD_SIZES[kind]:
                raise RemoteProtocolError(f"a {kind.name.lower()} frame of {length} bytes")
            end = 4 + length
            if len(buffer) < end:
                return
            with memoryview(buffer) as view:
                payload = bytes(view[_HEADER.size : end])
            del buffer[:end]
            yield Frame(kind, stream, payload)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)
