"""Pack a file's content into chunks, so that holes do not travel.

Each chunk of GetFile and GetBlob begins with a tag. Behind DATA the bytes follow, and behind HOLE
the number of zeros, a little-endian u64.
"""

import struct

from termite.engine.errors import RemoteProtocolError
from termite.engine.wire.protocol.frames import MAX_CHUNK_BYTES

DATA = 1
HOLE = 2
DATA_BYTES = MAX_CHUNK_BYTES - 1  # in one chunk, at most
_TAG = bytes([DATA])
_LENGTH = struct.Struct("<Q")


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
