"""A master's connection to its coordinator: the list of workers, and questions of people."""

import logging
from collections.abc import Callable

import trio

from termite.engine.errors import Reason, RemoteProtocolError, Retryable, UserError
from termite.engine.fleet.coordinator import coordinator_error_text
from termite.engine.fleet.coordinator_dial import dial_coordinator, refuse_requests
from termite.engine.fleet.trouble import Trouble, trouble_of
from termite.engine.wire.protocol.fleet_messages import DrainWorker, GetWorkerReport, ListWorkers, WorkerReport, Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done
from termite.engine.wire.transport import Connection

LIST_TIMEOUT_S = 60.0  # the coordinator answers a long poll after at most 30 s
RECONNECT_S = (0.1, 0.5, 1.0, 2.0, 5.0)  # pauses before a lost coordinator is asked again
ANSWER_S = 10.0  # the coordinator waits half as long for a worker

log = logging.getLogger(__name__)


class CoordinatorLink:
    """The connection of the master `name` to the coordinator at a host and a port."""

    def __init__(self, address: tuple[str, int], secret: bytes, name: str) -> None:
        self._address = address
        self._secret = secret
        self._name = name
        self._connection: Connection | None = None

    async def follow(self, take: Callable[[Workers], None], note_unreachable: Callable[[Trouble], None]) -> None:
        """Give each new list of workers to `take`, until cancelled.

        `note_unreachable` gets why there is no list, whenever an attempt has failed.
        """
        host, port = self._address
        attempt = 0
        while True:
            try:
                async with dial_coordinator(self._address, self._secret, self._name, refuse_requests) as connection:
                    if attempt:
                        log.warning("coordinator-found coordinator=%s:%d", host, port)
                    attempt = 0
                    self._connection = connection
                    await _take_lists(connection, take)
            except (Retryable, RemoteProtocolError, UserError) as error:
                text = coordinator_error_text(error)
                trouble = trouble_of(error, f"coordinator: {text}")
                note_unreachable(trouble)
                if not attempt:
                    reason = trouble.reason
                    log.warning("coordinator-missing coordinator=%s:%d detail=%r reason=%s", host, port, text, reason)
            except Exception:  # around one connection: the leases go on, and the next attempt may succeed
                log.exception("coordinator-failed")
            self._connection = None
            await trio.sleep(RECONNECT_S[min(attempt, len(RECONNECT_S) - 1)])
            attempt += 1

    async def get_report(self, worker: str) -> WorkerReport:
        """Return the report of a worker of the farm, in which no other user is named.

        Raise UserError if there is no such worker, or if it cannot be asked.
        """
        answer = await self._ask(GetWorkerReport(PROTOCOL, worker))
        if not isinstance(answer, WorkerReport):
            raise UserError(f"the coordinator answered {type(answer).__name__}")
        return answer

    async def drain(self, worker: str, *, is_drained: bool) -> None:
        """Drain a worker of the farm, or end that. Raise UserError as `get_report` does."""
        answer = await self._ask(DrainWorker(PROTOCOL, worker, is_drained))
        if not isinstance(answer, Done):
            raise UserError(f"the coordinator answered {type(answer).__name__}")

    async def _ask(self, message: Message) -> Message:
        if self._connection is None:
            raise UserError("the coordinator is not reached", hint="see `termite-ctl status`")
        try:
            return await self._connection.request(message, timeout_s=ANSWER_S)
        except Retryable as error:
            raise UserError(f"the worker cannot be asked: {error}") from error


async def _take_lists(connection: Connection, take: Callable[[Workers], None]) -> None:
    version = 0
    while True:
        workers = await connection.request(ListWorkers(PROTOCOL, version), timeout_s=LIST_TIMEOUT_S)
        if not isinstance(workers, Workers):
            raise Retryable(Reason.BAD_ANSWER, f"ListWorkers was answered with {type(workers).__name__}")
        version = workers.version
        take(workers)
