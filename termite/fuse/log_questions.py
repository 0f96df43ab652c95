"""Pass the questions of a master for the worker's log on to the worker, one after the other."""

from contextlib import suppress

import trio

from termite.engine.wire.protocol.control_lines import MirrorNotice, WorkerOrder
from termite.engine.wire.protocol.messages import GetLog, LogRecords
from termite.fuse.worker_line import WorkerLine


class LogQuestions:
    """The questions of one master about the log of its worker.

    Each has a number, which its answer repeats. If the worker stands still, a question is
    cancelled, and its late answer must not be taken for that to the next one.
    """

    def __init__(self, control: WorkerLine) -> None:
        self._control = control
        self._turn = trio.Lock()
        self._asked = 0  # the number of the last question
        self._send, self._receive = trio.open_memory_channel[LogRecords](1)

    async def read(self, request: GetLog) -> LogRecords:
        """Return the records that the worker shows. Wait for the worker, and for earlier requests.

        Raise Retryable if the worker cannot be asked.
        """
        async with self._turn:
            with suppress(trio.WouldBlock):
                self._receive.receive_nowait()  # nobody has waited for that one
            self._asked += 1
            self._control.ask_nowait(
                MirrorNotice(log_after=request.after, log_most=request.most, log_question=self._asked)
            )
            return await self._receive.receive()

    def take(self, order: WorkerOrder) -> None:
        """Take what an order of the worker says about its log, if it answers the last question."""
        if order.log_number is not None and order.log_question == self._asked:
            with suppress(trio.WouldBlock):
                self._send.send_nowait(LogRecords(order.log_number, order.log))
