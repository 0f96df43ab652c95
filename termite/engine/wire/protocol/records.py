"""Records and frames, as the launcher and the master speak them (docs/develop/protocol.md, "Launcher").

Pure, and free of msgspec and trio: `termite-make` and `termite-ctl` import it, and a build waits for their start.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

from termite.engine.errors import RemoteProtocolError

# The largest thing said is an invocation: arguments and environment, which the kernel limits to 6 MiB.
FRAME_LIMIT_BYTES = 32 * 1024 * 1024

INVOKE, CONTROL, CANCEL = b"I", b"C", b"K"  # to the master
STDIN, PEEKED, UNREADABLE = b"S", b"P", b"F"  # to the master: the answers to READ
EXEC, STDOUT, STDERR, NOTICE, READ, EXIT, ANSWER = b"X", b"1", b"2", b"N", b"R", b"E", b"J"  # from it

_HEADER = struct.Struct("<Ic")

Records = Iterable[tuple[str, bytes]]


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame, ready to be sent."""
    return _HEADER.pack(len(payload), kind) + payload


def pack_records(records: Records) -> bytes:
    """Return `key=value` with a NUL after each. Raises ValueError if a key or a value would end its record."""
    packed = [_checked(key) + b"=" + content + b"\0" for key, content in records]
    whole = b"".join(packed)
    if whole.count(b"\0") != len(packed):
        raise ValueError("a NUL byte inside the value of a record")
    return whole


def pack_all(key: str, contents: Sequence[bytes]) -> bytes:
    """Return as many records of one key: what `pack_records` gives, for a command line or environment at once."""
    if not contents:
        return b""
    if b"\0" in b"".join(contents):
        raise ValueError("a NUL byte inside the value of a record")
    start = _checked(key) + b"="
    return start + (b"\0" + start).join(contents) + b"\0"


def _checked(key: str) -> bytes:
    if "=" in key or "\0" in key:
        raise ValueError(f"not the key of a record: {key!r}")
    return key.encode()


def parse_records(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """The records of a payload, in order. The last one ends with its NUL like the others."""
    if not payload:
        return
    if not payload.endswith(b"\0"):
        raise RemoteProtocolError("a record without its end")
    for record in payload[:-1].split(b"\0"):
        key, equals, content = record.partition(b"=")
        if not equals:
            raise RemoteProtocolError(f"a record without '=': {record[:40]!r}")
        yield key.decode("ascii", "replace"), content


def pack_numbers(**numbers: int) -> bytes:
    """Records that are all numbers."""
    return pack_records((key, b"%d" % number) for key, number in numbers.items())


class Frames:
    """Bytes in, whole frames out. A frame too large is an error at once, not after it was collected."""

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, received: bytes) -> list[tuple[bytes, bytes]]:
        """Take what was received and give the frames that are complete now, as (kind, payload)."""
        self._buffer += received
        frames = []
        while len(self._buffer) >= _HEADER.size:
            length, kind = _HEADER.unpack_from(self._buffer)
            if length > self._limit_bytes:
                raise RemoteProtocolError(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return frames
