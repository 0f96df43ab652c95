"""Know the workers of which a master has heard, and decide on which the next lease is opened.

Only failures of termite (a connection, a sandbox) count against a worker, never the exit code of a
command.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.wire.protocol.fleet_messages import GoneWorker, ListedWorker

LEASE_SLOTS = 16  # jobs that one mirror process serves; for more slots of one worker, there are more leases
BACK_OFF_S = 0.5  # after the first failure; each further failure doubles it
BACK_OFF_LIMIT_S = 60.0
SILENCE_S = 20.0  # without any lease: then a job stops waiting, even if a worker may still answer
NO_WORKER_GRACE_S = 3.0  # then a job stops waiting, if no worker has a slot or may get one


@dataclass(slots=True)
class _BackOff:
    failures: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """A request to open a lease on a worker with a number of slots."""

    worker: ListedWorker
    slots: int


@dataclass(frozen=True, slots=True)
class Departure:
    """The time at which a worker left the list, because it `is_lost` or else because it stopped."""

    at: float
    is_lost: bool


class Fleet:
    """The workers that the coordinator has listed, with their leases and failures.

    All times are in seconds of the clock that gives `now`.
    """

    def __init__(self, total_slots: int, now: float, architecture: str = "") -> None:
        """Start without workers. All leases get at most `total_slots` in sum; 0 means no limit.

        Workers of another `architecture` cannot run the master's programs. "" means that it is not
        known; then nobody is left out for it.
        """
        self._architecture = architecture
        self.foreign: dict[str, str] = {}  # the architectures of workers that were left out, by name
        self._total_slots = total_slots
        self._workers: dict[str, ListedWorker] = {}
        self.drained: tuple[ListedWorker, ...] = ()
        self.gone: dict[str, Departure] = {}  # the workers that have left the list lately, by name
        self.broken: dict[str, float] = {}  # when the connection of a worker's last lease broke, by name
        self._back_offs: dict[str, _BackOff] = {}
        self._opening: dict[str, int] = {}
        self._held: dict[str, list[int]] = {}
        self._saturated: set[str] = set()
        self._expected_until = now + NO_WORKER_GRACE_S
        self._last_held = now  # when the last lease has ended

    def replace(self, workers: Iterable[ListedWorker], now: float, gone: Iterable[GoneWorker] = ()) -> list[str]:
        """Replace the list of workers. Those that drain are left out, and are in `drained`.

        Those that are `gone` are only remembered for people.

        Workers of another architecture are left out too. Return the name of each new one.

        The failures of a worker are forgotten when it leaves the list, because it was restarted if
        it comes back.
        """
        listed = {worker.name: worker for worker in workers}
        foreign = {name: one.machine.architecture for name, one in listed.items() if self._is_foreign(one)}
        self.gone = {one.name: Departure(now - one.gone_s, one.is_lost) for one in gone if one.name not in listed}
        new = [name for name, architecture in foreign.items() if self.foreign.get(name) != architecture]
        self.foreign |= foreign
        self.drained = tuple(worker for name, worker in listed.items() if worker.draining and name not in foreign)
        self._workers = {name: worker for name, worker in listed.items() if not worker.draining and name not in foreign}
        self._back_offs = {name: back_off for name, back_off in self._back_offs.items() if name in self._workers}
        self.broken = {name: at for name, at in self.broken.items() if name in listed}
        if self._workers:
            self._expected_until = now + NO_WORKER_GRACE_S
        return new

    def wishes(self, waiting: int, now: float) -> list[LeaseWish]:
        """Return the leases to open for this number of waiting jobs, at most one for each worker.

        The leases count as being opened: report each by `opened` or `refused`.
        """
        wishes: list[LeaseWish] = []
        for worker in sorted(self._workers.values(), key=lambda worker: (worker.load, worker.name)):
            if len(self._opening) >= waiting:
                break
            slots = self._slots_to_ask(worker, now)
            if slots > 0:
                wishes.append(LeaseWish(worker, slots))
                self._opening[worker.name] = slots
        return wishes

    def opened(self, name: str, slots: int) -> None:
        """Record that the worker has granted a lease with `slots` slots."""
        asked = self._opening.pop(name)
        self.broken.pop(name, None)
        self._held.setdefault(name, []).append(slots)
        if slots < asked:
            self._saturated.add(name)

    def refused(self, name: str, now: float, rest_s: float = 0.0) -> None:
        """Record that no lease was opened: that failed, or the worker has no free slot.

        The worker is not asked again for `rest_s`, or for the usual pause if that is longer.
        """
        del self._opening[name]
        self.failed(name, now, rest_s)

    def closed(self, name: str, slots: int, now: float) -> None:
        """Record that a lease with `slots` slots ended. Its worker may come back in a moment."""
        self._expected_until = now + NO_WORKER_GRACE_S
        self._last_held = now
        self._held[name].remove(slots)
        self._saturated.discard(name)

    def broke(self, name: str, now: float) -> None:
        """Record that an open lease has ended by a failure, as that of its connection."""
        self.broken[name] = now
        self.failed(name, now)

    def failed(self, name: str, now: float, rest_s: float = 0.0) -> None:
        """Record a failure of termite on the worker, and pause requests to it.

        The pause is at least `rest_s`. Further failures during the pause do not double it, because
        they usually have the same cause: a mirror that dies fails all its jobs at once.
        """
        back_off = self._back_offs.setdefault(name, _BackOff())
        if now < back_off.until:
            back_off.until = max(back_off.until, now + rest_s)
            return
        back_off.failures += 1
        back_off_s = min(BACK_OFF_S * 2 ** (back_off.failures - 1), BACK_OFF_LIMIT_S)
        back_off.until = now + max(back_off_s, rest_s)

    def succeeded(self, name: str) -> None:
        """Forget the worker's failures, because a job came back from it."""
        self._back_offs.pop(name, None)

    def next_retry(self, now: float) -> float | None:
        """Return the time at which the first pause of a worker ends, or None if none is paused."""
        times = [back_off.until for name, back_off in self._back_offs.items() if name in self._workers]
        return min((until for until in times if until > now), default=None)

    def is_worker_expected(self, now: float) -> bool:
        """Return False if it is no use to wait for a slot.

        This is the case after NO_WORKER_GRACE_S in which there was no lease, none was being opened,
        and no worker could be asked for one.
        """
        may_ask = any(self._slots_to_ask(worker, now) > 0 for worker in self._workers.values())
        if may_ask or self._opening or self._has_hopeful_lease:
            self._expected_until = now + NO_WORKER_GRACE_S
        return now < self._expected_until

    def patience_ends(self, waiting_since: float, now: float) -> float:
        """Return the time at which a job stops waiting, because no worker has answered for long.

        The job waits since `waiting_since`. As long as there is a lease of a worker that takes
        jobs, it waits for its turn.
        """
        since = now if self._has_hopeful_lease else self._last_held
        return max(since, waiting_since) + SILENCE_S

    def is_drained(self, name: str) -> bool:
        """Return True if this worker takes no new jobs."""
        return any(worker.name == name for worker in self.drained)

    @property
    def _has_hopeful_lease(self) -> bool:
        """True if a lease may have a slot soon. Those of drained workers have none."""
        return any(slots for name, slots in self._held.items() if not self.is_drained(name))

    @property
    def expected_until(self) -> float:
        """The time at which `is_worker_expected` becomes False if nothing else happens."""
        return self._expected_until

    @property
    def workers(self) -> tuple[ListedWorker, ...]:
        """All listed workers that do not drain."""
        return tuple(self._workers.values())

    def _is_foreign(self, worker: ListedWorker) -> bool:
        theirs = worker.machine.architecture
        return bool(theirs and self._architecture) and theirs != self._architecture

    def _slots_to_ask(self, worker: ListedWorker, now: float) -> int:
        name = worker.name
        back_off = self._back_offs.get(name)
        if name in self._opening or name in self._saturated or (back_off and now < back_off.until):
            return 0
        held = sum(sum(slots) for slots in self._held.values()) + sum(self._opening.values())
        room = self._total_slots - held if self._total_slots else LEASE_SLOTS
        return min(LEASE_SLOTS, worker.slots - sum(self._held.get(name, ())), room)
