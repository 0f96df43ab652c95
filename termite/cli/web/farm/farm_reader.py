"""Ask the coordinator for what pages show, over one connection that stays.

Nothing is asked while nobody looks. Answers are kept for a second, so that many browsers cost the
coordinator no more than one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from termite.cli.readers.farm_questions import Coordinator, Desk
from termite.engine.errors import UserError
from termite.engine.wire.protocol.fleet_messages import FarmWorker, WholeFarm, WorkerReport

FRESH_S = 1.0
RETRY_S = 1.0
LIST_S = 3.0  # a page waits so long for the coordinator
REPORT_S = 8.0  # and so long for a worker, for which the coordinator waits 5 s
MOST_REPORTS = 1000  # workers whose last report is remembered

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """The last answer to a question, None if there is none, and why it is not the present one."""

    value: T | None = None
    trouble: str = ""
    at_s: float = float("-inf")


class FarmReader:
    """The reader of one farm, whose `follow` keeps the connection."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._desk: Desk | None = None
        self._connected = trio.Event()
        self._trouble = ""
        self._turn = trio.Lock()
        self._farm: Answered[WholeFarm] = Answered()
        self._reports: dict[str, Answered[WorkerReport]] = {}

    async def follow(self) -> None:
        """Keep a connection to the coordinator, until cancelled."""
        while True:
            try:
                async with self._coordinator.connected() as desk:
                    self._desk, self._trouble = desk, ""
                    self._connected.set()
                    await desk.connection.lost.wait()
                    self._trouble = "the coordinator is gone"
            except UserError as error:
                self._trouble = str(error)
            self._desk, self._connected = None, trio.Event()
            await trio.sleep(RETRY_S)

    async def farm(self) -> Answered[WholeFarm]:
        """Return the state of the farm, or the last known one."""
        async with self._turn:
            self._farm = await self._renewed(self._farm, LIST_S, lambda desk: desk.list_farm())
        return self._farm

    async def worker(self, name: str) -> tuple[FarmWorker | None, float, Answered[WorkerReport]]:
        """Return what is known of a worker, the interval of heartbeats, and its report."""
        farm = (await self.farm()).value
        known = next((one for one in farm.workers if one.worker.name == name), None) if farm else None
        interval_s = farm.interval_s if farm else 0.0
        if known is None or known.is_gone:
            return known, interval_s, Answered(None, _why_gone(known))
        last = self._reports.get(name, Answered())
        report = await self._renewed(last, REPORT_S, lambda desk: desk.get_report(name))
        self._reports.pop(name, None)
        self._reports[name] = report
        if len(self._reports) > MOST_REPORTS:
            del self._reports[next(iter(self._reports))]
        return known, interval_s, report

    async def drain(self, name: str, *, is_drained: bool) -> None:
        """Drain a worker, or end that. Raise UserError if it cannot be asked."""
        await (await self._wait_for_desk()).drain(name, is_drained=is_drained)
        self._farm = Answered(self._farm.value, self._farm.trouble)  # the next page must show it
        self._reports.pop(name, None)

    async def _renewed(self, known: Answered[T], limit_s: float, ask: Callable[[Desk], Awaitable[T]]) -> Answered[T]:
        """Return a new answer, or the known one with the reason why there is no new one."""
        if trio.current_time() - known.at_s < FRESH_S:
            return known
        trouble = self._trouble or "the coordinator does not answer"
        with trio.move_on_after(limit_s):
            try:
                return Answered(await ask(await self._wait_for_desk()), "", trio.current_time())
            except UserError as error:
                trouble = str(error)
        return Answered(known.value, trouble, trio.current_time())

    async def _wait_for_desk(self) -> Desk:
        with trio.move_on_after(LIST_S):
            await self._connected.wait()
        if self._desk is None:
            raise UserError(self._trouble or "the coordinator does not answer")
        return self._desk


def _why_gone(known: FarmWorker | None) -> str:
    if known is None:
        return "it is not registered"
    return "it was stopped" if known.is_stopped else "it is lost"
