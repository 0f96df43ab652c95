"""Answer what people ask a coordinator about its farm, and pass their wishes on to workers.

A worker is reached over the connection on which it registers. Therefore only its coordinator asks
it, and it needs no port for this.
"""

import hmac
import logging

import msgspec

from termite import __version__
from termite.engine.errors import Reason, Retryable, UserError
from termite.engine.fleet.logic.worker_registry import Registry
from termite.engine.nearest_name import wrong_name
from termite.engine.wire.protocol.fleet_messages import DrainWorker, GetWorkerReport, WholeFarm, WorkerReport
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import Done
from termite.engine.wire.transport import Connection

ANSWER_S = 5.0  # a worker answers from its memory

log = logging.getLogger(__name__)


class FarmDesk:
    """The desk of a coordinator for people.

    Only readers who know `pages_key` learn who uses the workers, and what their logs say of jobs;
    b"": nobody does.
    """

    def __init__(self, registry: Registry, interval_s: float, pages_key: bytes) -> None:
        self._registry = registry
        self._interval_s = interval_s
        self._pages_key = pages_key
        self._lines: dict[str, Connection] = {}

    def note_line(self, name: str, connection: Connection) -> None:
        """Note the connection on which a worker has registered."""
        if self._lines.get(name) is not connection:
            self._lines = {known: line for known, line in self._lines.items() if not line.lost.is_set()}
            self._lines[name] = connection

    def is_line(self, name: str, connection: Connection) -> bool:
        """Return whether this is the connection on which the worker has registered last."""
        return self._lines.get(name) is connection

    def list_farm(self, key: bytes, now: float) -> WholeFarm:
        """Return all workers, and those that were lost lately."""
        workers = self._registry.farm(now)
        if not self._is_private(key):
            workers = tuple(msgspec.structs.replace(one, uses=()) for one in workers)
        return WholeFarm(workers, self._interval_s, __version__)

    async def get_report(self, request: GetWorkerReport) -> WorkerReport:
        """Return the report of a worker. Raise UserError if there is no such worker.

        Raise Retryable if it does not answer.
        """
        is_private = self._is_private(request.key)
        asked = msgspec.structs.replace(request, key=b"", is_private=is_private)
        answer = await self._ask(request.name, asked)
        if not isinstance(answer, WorkerReport):
            raise Retryable(Reason.BAD_ANSWER, f"{request.name} answered with {type(answer).__name__}")
        return answer

    async def drain(self, request: DrainWorker, peer: str) -> bool:
        """Drain a worker, or end that. Return True if masters must be notified.

        `peer` names in the log who wants that. Raise the same errors as `get_report`.
        """
        answer = await self._ask(request.name, request)
        if not isinstance(answer, Done):
            raise Retryable(Reason.BAD_ANSWER, f"{request.name} answered with {type(answer).__name__}")
        log.info("drain-asked worker=%s drained=%s peer=%s", request.name, request.is_drained, peer)
        return self._registry.drain(request.name, is_drained=request.is_drained)

    async def _ask(self, name: str, request: Message) -> Message:
        line = self._lines.get(name)
        if line is None or line.lost.is_set():
            names = [one.name for one in self._registry.workers()]
            wrong = wrong_name("worker", name, names, "termite-ctl top -coordinator")
            raise UserError(wrong.message, hint=wrong.hint)
        try:
            return await line.request(request, timeout_s=ANSWER_S)
        except UserError as error:
            raise Retryable(Reason.BAD_ANSWER, f"{name}: {error}") from error

    def _is_private(self, key: bytes) -> bool:
        return bool(self._pages_key) and hmac.compare_digest(key, self._pages_key)
