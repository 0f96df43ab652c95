"""The mirror's line to the worker that started it: JSON lines, described in docs/develop/protocol.md, "Control"."""

import json
import logging
import socket
from contextlib import suppress

import msgspec
import trio

MAX_LINE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True):
    """What the worker says: each line sets one of these."""

    granted: int | None = None
    slots: int | None = None


class Control:
    """Our end of the socket pair."""

    def __init__(self, fd: int) -> None:
        self._ours = socket.socket(fileno=fd)
        self._socket = trio.socket.from_stdlib_socket(self._ours)
        self._received = bytearray()

    async def receive(self) -> Order | None:
        """The next line; None when the worker is gone."""
        while (end := self._received.find(b"\n")) < 0:
            received = b""
            with suppress(OSError):
                received = await self._socket.recv(MAX_LINE_BYTES)
            if not received:
                return None
            self._received += received
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return msgspec.json.decode(line, type=Order)

    def tell_nowait(self, **values: str | int) -> None:
        """Say something. The worker always reads; if it does not, it is gone or will be seen to be."""
        with suppress(OSError):
            self._ours.send(json.dumps(values).encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
