"""Send and receive the control lines: one end of the socket pair between a worker and a mirror."""

import socket
from contextlib import suppress

import msgspec
import trio

from termite.engine.wire.protocol.control_lines import LINE_BYTES, LineSplitter, S, decode_line, encode_line


class LineSocket:
    """An end of the socket pair; it owns the socket."""

    def __init__(self, own: socket.socket) -> None:
        self._own = own
        self._waiting = trio.socket.from_stdlib_socket(own)
        self._lines = LineSplitter()

    async def receive(self, kind: type[S]) -> S | None:
        """Wait for the next line, and return its message; None if the other side is gone.

        Raise RemoteProtocolError if the line is too long or not a valid message; the caller ends
        the conversation.
        """
        while (line := self._lines.next_line()) is None:
            received = b""
            with suppress(OSError):  # a reset connection is one that has ended
                received = await self._waiting.recv(LINE_BYTES)
            if not received:
                return None
            self._lines.feed(received)
        return decode_line(line, kind)

    def send_nowait(self, message: msgspec.Struct) -> None:
        """Send a line without waiting.

        Raise OSError if the other side is gone, or has not read thousands of lines.
        """
        self._own.send(encode_line(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Close this end, which ends a `receive` of the other side."""
        self._waiting.close()
