"""Answer what people ask a worker through its coordinator: how it is, and that it drains.

The questions come over the connection on which the worker registers, so that they cost no mirror
process. TLS has shown that the other side is the coordinator of the cluster.
"""

from typing import Protocol

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.host.log_tail import LogTail
from termite.engine.wire.protocol.fleet_messages import (
    LOG_CHARACTERS,
    MOST_LEASES,
    MOST_LOG_RECORDS,
    DrainWorker,
    GetWorkerReport,
    LeaseReport,
    WorkerReport,
)
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import Done
from termite.engine.wire.transport import Connection, SendChunk
from termite.engine.worker.reports.store_sizes import StoreSizes
from termite.engine.worker.shown_log import is_about_a_mirror


class AskedWorker(Protocol):
    """The worker as its coordinator may see and drain it."""

    name: str
    is_drained: bool

    def drain(self, *, is_drained: bool) -> None:
        """Take no new jobs, or take jobs again."""

    def lease_reports(self, *, is_private: bool) -> tuple[LeaseReport, list[LeaseReport]]:
        """Return the sum over all leases since the start, and each open lease."""
        ...


class WorkerQuestions:
    """The questions that a worker answers to its coordinator."""

    def __init__(self, worker: AskedWorker, tail: LogTail, sizes: StoreSizes) -> None:
        self._worker = worker
        self._tail = tail
        self._sizes = sizes

    async def answer(self, connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        """Return the answer to a request of the coordinator.

        Raise RemoteProtocolError, which drops the connection, if it may not ask that.
        """
        match message:
            case GetWorkerReport(name=name, is_private=is_private):
                self._check_name(name)
                return await self._report(is_private=is_private)
            case DrainWorker(name=name, is_drained=is_drained):
                self._check_name(name)
                self._worker.drain(is_drained=is_drained)
                return Done()
        raise RemoteProtocolError(f"a coordinator asked {type(message).__name__}")

    async def _report(self, *, is_private: bool) -> WorkerReport:
        stores = await self._sizes.read()
        total, leases = self._worker.lease_reports(is_private=is_private)
        return WorkerReport(
            name=self._worker.name,
            is_drained=self._worker.is_drained,
            up_s=total.since_s,
            total=total,
            leases=tuple(leases[:MOST_LEASES]),
            stores=stores,
            log=self._log(is_private=is_private),
        )

    def _log(self, *, is_private: bool) -> tuple[str, ...]:
        """Return the end of the log. Records about mirrors name users, commands and files."""
        records = self._tail.records_after(
            0,
            MOST_LOG_RECORDS,
            lambda record: is_private or not is_about_a_mirror(record),
            LOG_CHARACTERS,
        )
        # A name of a file that is no UTF-8 has surrogates, which the wire does not take.
        return tuple(record.text.encode("utf-8", "backslashreplace").decode() for record in records)

    def _check_name(self, name: str) -> None:
        if name != self._worker.name:
            raise UserError(f"this worker is {self._worker.name}, not {name}")
