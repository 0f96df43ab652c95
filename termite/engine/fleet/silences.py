"""Know which workers are silent while they have jobs, and since when.

A worker is silent if one of its leases is: the connection brings no byte, although the worker was
pinged. Whoever wants to know each change follows `wait_beyond`.
"""

import enum
import logging
from collections import deque
from dataclasses import dataclass

import trio

from termite.engine.fleet.lease import Lease
from termite.engine.wire.silence_watch import SilenceWatch

KEPT_CHANGES = 256  # for followers that are late; an older change is of no use to anybody

log = logging.getLogger(__name__)


class Silence(enum.StrEnum):
    """A step in the silence of a worker."""

    BEGAN = "silent"
    ENDED = "answers"
    LOST = "lost"  # the last silent lease has ended; its jobs start again elsewhere


@dataclass(frozen=True, slots=True)
class SilenceChange:
    """A change of a worker. `lasted_s` is the time since its last byte, `jobs` how many wait."""

    worker: str
    step: Silence
    lasted_s: float
    jobs: int


class SilentLeases:
    """The silent leases of a master's pool, and the changes so far, which are numbered from 1."""

    def __init__(self) -> None:
        self.number = 0  # of the last change
        self._since_s: dict[Lease, float] = {}
        self._changes: deque[SilenceChange] = deque(maxlen=KEPT_CHANGES)
        self._changed = trio.lowlevel.ParkingLot()

    def since_s(self) -> dict[str, float]:
        """Return the silent workers, with the time of trio's clock since which each is silent."""
        since_s: dict[str, float] = {}
        for lease, began_s in self._since_s.items():
            since_s[lease.worker] = min(began_s, since_s.get(lease.worker, began_s))
        return since_s

    async def wait_beyond(self, number: int) -> tuple[SilenceChange, ...]:
        """Wait until there are changes after change `number`, and return them.

        Only the last KEPT_CHANGES are returned. The caller goes on with `number`.
        """
        while self.number <= number:
            await self._changed.park()
        return tuple(self._changes)[number - self.number :]

    async def watch(self, lease: Lease, watch: SilenceWatch) -> None:
        """Watch the connection of a lease closely, until cancelled."""
        watch.watch_closely()
        try:
            while True:
                await watch.wait_change()
                if watch.is_silent:
                    self._begin(lease, watch.silent_since_s)
                else:
                    self._end(lease, Silence.ENDED)
        finally:
            self._end(lease, Silence.LOST)

    def _begin(self, lease: Lease, since_s: float) -> None:
        is_new = lease.worker not in self.since_s()
        self._since_s[lease] = since_s
        if is_new:
            change = self._note(lease, Silence.BEGAN, since_s)
            log.warning("worker-silent worker=%s jobs=%d seconds=%d", lease.worker, change.jobs, round(change.lasted_s))

    def _end(self, lease: Lease, step: Silence) -> None:
        since_s = self.since_s().get(lease.worker)
        if self._since_s.pop(lease, None) is None or since_s is None or lease.worker in self.since_s():
            return
        change = self._note(lease, step, since_s)
        if step is Silence.ENDED:
            log.warning("worker-answers worker=%s seconds=%d", lease.worker, round(change.lasted_s))

    def _note(self, lease: Lease, step: Silence, since_s: float) -> SilenceChange:
        change = SilenceChange(lease.worker, step, trio.current_time() - since_s, lease.running)
        self._changes.append(change)
        self.number += 1
        self._changed.unpark_all()
        return change
