"""Ask the coordinator of a farm, as a program for people."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from termite.engine.errors import Retryable, UserError
from termite.engine.fleet.coordinator import coordinator_error_text
from termite.engine.fleet.coordinator_dial import dial_coordinator, refuse_requests
from termite.engine.wire.protocol.fleet_messages import DrainWorker, GetWorkerReport, ListFarm, WholeFarm, WorkerReport
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done
from termite.engine.wire.transport import Connection

CONNECT_S = 10.0
ANSWER_S = 10.0  # the coordinator waits half as long for a worker


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The coordinator at a host and a port, which we ask under the name `name`.

    `key` is that of the coordinator's own pages, or b"": then answers name no users. Each method
    raises UserError if there is no proper answer.
    """

    address: tuple[str, int]
    secret: bytes
    name: str
    key: bytes = b""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Desk"]:
        """Connect, and close the connection afterwards."""
        try:
            async with dial_coordinator(self.address, self.secret, self.name, refuse_requests, CONNECT_S) as connection:
                yield Desk(connection, self.key)
        except Retryable as error:
            raise UserError(f"the coordinator does not answer: {coordinator_error_text(error)}") from error

    async def drain(self, worker: str, *, is_drained: bool) -> None:
        """Drain a worker, or end that, over a connection of its own."""
        async with self.connected() as desk:
            await desk.drain(worker, is_drained=is_drained)


@dataclass(frozen=True, slots=True)
class Desk:
    """The desk of a coordinator, over one connection. `key` is as in Coordinator."""

    connection: Connection
    key: bytes

    async def list_farm(self) -> WholeFarm:
        """Return all workers as they are now."""
        answer = await self._ask(ListFarm(PROTOCOL, self.key), "the coordinator does not answer")
        if not isinstance(answer, WholeFarm):
            raise _wrong(answer)
        return answer

    async def get_report(self, worker: str) -> WorkerReport:
        """Return the report of a worker."""
        answer = await self._ask(GetWorkerReport(PROTOCOL, worker, self.key))
        if not isinstance(answer, WorkerReport):
            raise _wrong(answer)
        return answer

    async def drain(self, worker: str, *, is_drained: bool) -> None:
        """Drain a worker, or end that."""
        answer = await self._ask(DrainWorker(PROTOCOL, worker, is_drained))
        if not isinstance(answer, Done):
            raise _wrong(answer)

    async def _ask(self, message: Message, trouble: str = "the worker cannot be asked") -> Message:
        try:
            return await self.connection.request(message, timeout_s=ANSWER_S)
        except Retryable as error:
            raise UserError(f"{trouble}: {error}") from error


def _wrong(answer: Message) -> UserError:
    return UserError(f"a coordinator answered {type(answer).__name__}", hint="it may have another version")
