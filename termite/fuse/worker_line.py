"""Talk to the worker that started this mirror, in lines of JSON.

The schema is `termite/engine/wire/protocol/control_lines.py`.
"""

import socket
from contextlib import suppress

from termite.engine.errors import Reason, Retryable
from termite.engine.wire.line_socket import LineSocket
from termite.engine.wire.protocol.control_lines import MirrorNotice, WorkerOrder


class WorkerLine:
    """The mirror's end of the line; `fd` is the descriptor that the mirror was started with."""

    def __init__(self, fd: int) -> None:
        self._socket = LineSocket(socket.socket(fileno=fd))

    async def receive(self) -> WorkerOrder | None:
        """Wait for the next order of the worker; return None if the worker is gone.

        Raise RemoteProtocolError if it is not valid: then the worker has another version.
        """
        return await self._socket.receive(WorkerOrder)

    def send_nowait(self, notice: MirrorNotice) -> None:
        """Send a notice without waiting. It is lost if the kernel does not take it.

        Use this for a notice that nobody waits for.
        """
        with suppress(OSError):
            self._socket.send_nowait(notice)

    def ask_nowait(self, notice: MirrorNotice) -> None:
        """Send a notice that the worker answers with an order.

        Raise Retryable if the kernel does not take it, because no order would ever come.
        """
        try:
            self._socket.send_nowait(notice)
        except OSError as error:
            raise Retryable(Reason.NO_RESOURCES, f"the worker is not reached: {error.strerror}") from error
