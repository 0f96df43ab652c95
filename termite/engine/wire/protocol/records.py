"""Pack and parse the frames and records of launchers (docs/develop/protocol.md, "Launcher").

This module must not import msgspec or trio: `termite-make` and `termite-ctl` import it, and a build
waits for their start.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence

from termite.engine.errors import RemoteProtocolError

# The largest frame is an invocation. The kernel limits arguments and environment to 6 MiB.
FRAME_LIMIT_BYTES = 32 * 1024 * 1024

VERSION = "6"  # of this protocol; native/launcher/invocation.c has it too

INVOKE, CONTROL, CANCEL = b"I", b"C", b"K"  # to the master
ALIVE = b"A"  # to the master: a question; from the master: the answer
WINDOW = b"W"  # to the master: the new size of the terminal's window
STDIN, PEEKED, UNREADABLE = b"S", b"P", b"F"  # to the master: the answers to READ
EXEC, STDOUT, STDERR, NOTICE, READ, EXIT, ANSWER = b"X", b"1", b"2", b"N", b"R", b"E", b"J"  # from the master
EVENT = b"V"  # from the master, after the control command `watch`: one event of its live stream

ONCE = b"O"  # from the master: the command gets the network now, so a lost master is no reason to run it again

_HEADER = struct.Struct("<Ic")

Records = Iterable[tuple[str, bytes]]


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return _HEADER.pack(len(payload), kind) + payload


def pack_records(records: Records) -> bytes:
    """Return the bytes `key=value` with a NUL after each record.

    Raise ValueError if a key has a "=", or if a key or a value has a NUL.
    """
    packed = [_checked(key) + b"=" + content + b"\0" for key, content in records]
    whole = b"".join(packed)
    if whole.count(b"\0") != len(packed):
        raise ValueError("a NUL byte inside the value of a record")
    return whole


def pack_all(key: str, contents: Sequence[bytes]) -> bytes:
    """Return one record for each of `contents`, all with the same key, as `pack_records` does.

    This is faster for a command line or an environment. Raise ValueError like `pack_records`.
    """
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
    """Yield the records of a payload as (key, value), in order.

    Raise RemoteProtocolError if a record has no "=", or if the last one has no NUL.
    """
    if not payload:
        return
    if not payload.endswith(b"\0"):
        raise RemoteProtocolError("a record without a NUL at its end")
    for record in payload[:-1].split(b"\0"):
        key, equals, content = record.partition(b"=")
        if not equals:
            raise RemoteProtocolError(f"a record without '=': {record[:40]!r}")
        yield key.decode("ascii", "replace"), content


def parse_object(payload: bytes) -> dict[str, object]:
    """Return the JSON object of a frame CONTROL or ANSWER.

    Raise RemoteProtocolError if it is something else, or nested too deep.
    """
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a frame that is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise RemoteProtocolError("a frame that is no JSON object")
    return content


def pack_numbers(**numbers: int) -> bytes:
    """Return records whose values are decimal numbers."""
    return pack_records((key, b"%d" % number) for key, number in numbers.items())


class FrameBuffer:
    """A buffer that cuts received bytes into frames.

    A frame that is too large is an error as soon as its header has arrived.
    """

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, received: bytes) -> list[tuple[bytes, bytes]]:
        """Take in more bytes, and return the frames that are complete now, as (kind, payload).

        Raise RemoteProtocolError, upon which the connection is dropped, if a frame is too large.
        """
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
