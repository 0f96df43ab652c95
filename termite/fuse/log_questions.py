"""Pass the questions of a master for the worker's log on to the worker, one after the other."""

from contextlib import suppress

import trio

from termite.engine.wire.protocol.control_lines import MirrorNotice, WorkerOrder
from termite.engine.wire.protocol.messages import GetLog, LogRecords
from termite.fuse.worker_line import WorkerLine


class LogQuestions:
    """The questions of one master about the log of its worker."""

    def __init__(self, control: WorkerLine) -> None:
        self._control = control
        self._turn = trio.Lock()
        self._send, self._receive = trio.open_memory_channel[LogRecords](1)

    async def read(self, request: GetLog) -> LogRecords:
        """Return the records that the worker shows. Wait for the worker, and for earlier requests.

        Raise Retryable if the worker cannot be asked.
        """
        async with self._turn:
            with suppress(trio.WouldBlock):
                self._receive.receive_nowait()  # nobody has waited for that one
            self._control.ask_nowait(MirrorNotice(log_after=request.after, log_most=request.most))
            return await self._receive.receive()

    def take(self, order: WorkerOrder) -> None:
        """Take what an order of the worker says about its log, if it says anything about it."""
        if order.log_number is not None:
            with suppress(trio.WouldBlock):
                self._send.send_nowait(LogRecords(order.log_number, order.log))
