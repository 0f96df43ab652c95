"""Send and receive the control lines: one end of the socket pair between a worker and a mirror."""

import socket

import msgspec
import trio

from termite.engine.wire import wire_calls
from termite.engine.wire.protocol.control_lines import LINE_BYTES, LineSplitter, S, decode_line, encode_line


class LineSocket:
    """An end of the socket pair; it owns the socket."""

    def __init__(self, own: socket.socket) -> None:
        self._own = own
        own.setblocking(False)
        self._lines = LineSplitter()

    async def receive(self, kind: type[S]) -> S | None:
        """Wait for the next line, and return its message; None if the other side is gone.

        Raise RemoteProtocolError if the line is too long or not a valid message; the caller ends
        the conversation.
        """
        while (line := self._lines.next_line()) is None:
            received = await self._receive_some()
            if not received:
                return None
            self._lines.feed(received)
        return decode_line(line, kind)

    def send_nowait(self, message: msgspec.Struct) -> None:
        """Send a line without waiting.

        Raise OSError if the other side is gone, or has not read thousands of lines.
        """
        wire_calls.send(self._own, encode_line(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    async def _receive_some(self) -> bytes:
        """Wait for bytes and return them; b"" if the other side is gone."""
        while True:
            await trio.lowlevel.wait_readable(self._own)
            try:
                return wire_calls.recv(self._own, LINE_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # a reset connection is one that has ended
                return b""

    def close(self) -> None:
        """Close this end, which ends a `receive` of the other side."""
        trio.lowlevel.notify_closing(self._own)
        self._own.close()
