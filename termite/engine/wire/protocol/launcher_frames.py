"""Pack and parse the frames of launchers (docs/develop/protocol.md, "Launcher").

This module must not import msgspec or trio: `termite-make` and `termite-ctl` import it, and a build
waits for their start.
"""

import json
import struct

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


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return _HEADER.pack(len(payload), kind) + payload


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
