"""Cut a byte stream into frames, which carry the requests, replies and chunks of a connection.

    u32 length (big endian, of the rest)   u8 kind   u32 stream (big endian)   payload

The limits are checked as soon as a header has arrived, so a peer cannot make this side buffer more
than one frame of legal size.

The chunks of GetFile and GetBlob are pieces of a content, so that holes do not travel. Each begins
with a tag. Behind DATA the bytes follow, and behind HOLE the number of zeros, a little-endian u64.
"""

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from termite.engine.errors import Reason, RemoteProtocolError, Retryable

MAX_MESSAGE_BYTES = 256 * 1024  # they are decoded in some milliseconds at worst; longer messages come in parts
MAX_CHUNK_BYTES = 256 * 1024  # a chunk delays the requests behind it by one millisecond only
_HEADER = struct.Struct(">IBI")
_AFTER_LENGTH = _HEADER.size - 4

DATA = 1
HOLE = 2
DATA_BYTES = MAX_CHUNK_BYTES - 1  # in one chunk, at most
_TAG = bytes([DATA])
_LENGTH = struct.Struct("<Q")


class Kind(enum.IntEnum):
    """The kind of a frame (docs/develop/protocol.md, "Wire")."""

    REQUEST = 1
    REPLY = 2
    CHUNK = 3
    CREDIT = 4
    CANCEL = 5
    PART = 6


class Frame(NamedTuple):
    """A complete frame. `stream` is the number of its request."""

    kind: Kind
    stream: int
    payload: bytes


_MESSAGE_SIZES = range(1, MAX_MESSAGE_BYTES + 1)
_PAYLOAD_SIZES = {
    Kind.REQUEST: _MESSAGE_SIZES,
    Kind.REPLY: _MESSAGE_SIZES,
    Kind.CHUNK: range(1, MAX_CHUNK_BYTES + 1),
    Kind.CREDIT: range(4, 5),
    Kind.CANCEL: range(1),
    Kind.PART: _MESSAGE_SIZES,
}
_KINDS = {int(kind): kind for kind in Kind}


def encode_frame(kind: Kind, stream: int, payload: bytes) -> bytes:
    """Return the bytes of one frame.

    Raise Retryable, for the scheduler, if the payload is too large. This is no bug: a directory may
    be huge, and only the job that needs it cannot run on a worker.
    """
    size = len(payload)
    if size not in _PAYLOAD_SIZES[kind]:
        raise Retryable(Reason.TOO_LARGE, f"a {kind.name.lower()} of {size} bytes")
    return _HEADER.pack(_AFTER_LENGTH + size, kind, stream) + payload


class FrameReader:
    """A buffer that cuts received bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, received: bytes) -> Iterator[Frame]:
        """Take in more bytes, and yield each frame that is complete now.

        Raise RemoteProtocolError, upon which the connection is dropped, for an illegal header.
        """
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
        """The number of bytes of a frame that is not complete yet."""
        return len(self._buffer)


def pack_piece(piece: bytes | int) -> bytes:
    """Return the chunk for some bytes, or for a hole of that length."""
    return _TAG + piece if isinstance(piece, bytes) else bytes([HOLE]) + _LENGTH.pack(piece)


def parse_piece(chunk: bytes) -> memoryview | int:
    """Return the bytes of a chunk, or the length of its hole. Raise RemoteProtocolError."""
    kind = chunk[0] if chunk else 0
    if kind == DATA and len(chunk) > 1:
        return memoryview(chunk)[1:]
    if kind == HOLE and len(chunk) == 1 + _LENGTH.size:
        (length,) = _LENGTH.unpack_from(chunk, 1)
        if length:
            return int(length)
    raise RemoteProtocolError("a chunk that is neither data nor a hole")
