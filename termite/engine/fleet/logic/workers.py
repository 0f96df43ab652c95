"""Which workers there are, which of them are in trouble, and where one more lease should be opened.

Pure: `now` is an argument. Health is judged by failures of ours only (a connection, a sandbox), never by the exit
code of a command.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.wire.protocol.messages import Worker

LEASE_SLOTS = 16  # one mirror process serves so many jobs; more slots of one worker are one more lease
BACK_OFF_S = 0.5  # after the first failure, doubled with each further one
BACK_OFF_LIMIT_S = 60.0
PATIENCE_S = 3.0  # so long a job waits for a worker that nothing promises


@dataclass(slots=True)
class _Trouble:
    failures: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """Open a lease there, asking for so many slots."""

    worker: Worker
    slots: int


class Fleet:
    """The workers as the coordinator listed them, with what we found out ourselves."""

    def __init__(self, total_slots: int, now: float) -> None:
        """`total_slots`: lease not more than so many over all workers; 0: as many as there are."""
        self._total_slots = total_slots
        self._workers: dict[str, Worker] = {}
        self._trouble: dict[str, _Trouble] = {}
        self._opening: dict[str, int] = {}
        self._held: dict[str, list[int]] = {}
        self._short: set[str] = set()
        self._hope_until = now + PATIENCE_S

    def replace(self, workers: Iterable[Worker], now: float) -> None:
        """Take a new list. A worker that left and comes back was started anew: its old failures say nothing."""
        self._workers = {worker.name: worker for worker in workers if not worker.draining}
        self._trouble = {name: trouble for name, trouble in self._trouble.items() if name in self._workers}
        if self._workers:
            self._hope_until = now + PATIENCE_S

    def wishes(self, waiting: int, now: float) -> list[LeaseWish]:
        """Leases to open for so many waiting jobs, at most one on each worker at a time. They count as being opened."""
        wishes: list[LeaseWish] = []
        for worker in sorted(self._workers.values(), key=lambda worker: (worker.load, worker.name)):
            if len(self._opening) >= waiting:
                break
            slots = self._wanted(worker, now)
            if slots > 0:
                wishes.append(LeaseWish(worker, slots))
                self._opening[worker.name] = slots
        return wishes

    def opened(self, name: str, slots: int) -> None:
        """A lease was granted, of `slots` slots."""
        asked = self._opening.pop(name)
        self._held.setdefault(name, []).append(slots)
        if slots < asked:
            self._short.add(name)

    def refused(self, name: str, now: float, rest_s: float = 0.0) -> None:
        """No lease there now: it failed, or the worker has no slot to give."""
        del self._opening[name]
        self.failed(name, now, rest_s)

    def closed(self, name: str, slots: int, now: float) -> None:
        """A lease of `slots` slots ended. Its worker may be back in a moment."""
        self._hope_until = now + PATIENCE_S
        self._held[name].remove(slots)
        self._short.discard(name)

    def failed(self, name: str, now: float, rest_s: float = 0.0) -> None:
        """Something of ours went wrong there: leave it alone for a while.

        What comes while it is left alone is of the same trouble: a mirror that dies fails all its jobs at once, and
        each of them would double the pause.
        """
        trouble = self._trouble.setdefault(name, _Trouble())
        if now < trouble.until:
            trouble.until = max(trouble.until, now + rest_s)
            return
        trouble.failures += 1
        back_off_s = min(BACK_OFF_S * 2 ** (trouble.failures - 1), BACK_OFF_LIMIT_S)
        trouble.until = now + max(back_off_s, rest_s)

    def succeeded(self, name: str) -> None:
        """A job came back from there: old failures are forgotten."""
        self._trouble.pop(name, None)

    def next_retry(self, now: float) -> float | None:
        """When a worker in trouble may be asked again, the soonest; None: none is in trouble."""
        times = [trouble.until for name, trouble in self._trouble.items() if name in self._workers]
        return min((until for until in times if until > now), default=None)

    def is_hopeful(self, now: float) -> bool:
        """False where a job waits for nothing: no lease, none being opened, and no worker to open one on."""
        if self._opening or any(self._held.values()) or any(self._wanted(w, now) > 0 for w in self._workers.values()):
            self._hope_until = now + PATIENCE_S
        return now < self._hope_until

    @property
    def hope_ends(self) -> float:
        """When `is_hopeful` turns, if nothing else happens."""
        return self._hope_until

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All that are listed."""
        return tuple(self._workers.values())

    def _wanted(self, worker: Worker, now: float) -> int:
        name = worker.name
        trouble = self._trouble.get(name)
        if name in self._opening or name in self._short or (trouble and now < trouble.until):
            return 0
        held = sum(sum(slots) for slots in self._held.values()) + sum(self._opening.values())
        room = self._total_slots - held if self._total_slots else LEASE_SLOTS
        return min(LEASE_SLOTS, worker.slots - sum(self._held.get(name, ())), room)
