"""Say what the live stream shows of the workers and of the queue."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from termite.engine.errors import Reason
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.pool import Pool
from termite.engine.history.logic.live_events import (
    Event,
    QueueWaits,
    WorkerChanged,
    WorkerLeft,
    WorkerState,
)
from termite.engine.history.logic.recorded_text import recorded_line
from termite.engine.wire.protocol.fleet_messages import ListedWorker


@dataclass(frozen=True, slots=True)
class FleetView:
    """The workers of a master by their names, and what its queue waits for."""

    workers: Mapping[str, WorkerState]
    waits_for: str = ""


def view_fleet(pool: Pool, since_epoch_s: float, *, is_checking: bool) -> FleetView:
    """Return what is to be seen now.

    `since_epoch_s` is the time of the epoch at which trio's clock was 0. `is_checking`: jobs wait
    for the check of settled files.
    """
    listed = {worker.name: worker for worker in pool.fleet.workers}
    leases: dict[str, list[Lease]] = {}
    for lease in pool.leases:
        leases.setdefault(lease.worker, []).append(lease)
    drained = {worker.name: worker for worker in pool.fleet.drained}
    names = {*listed, *drained, *leases, *pool.refusals, *pool.fleet.foreign}
    silent, broken = pool.silences.since_s(), pool.fleet.broken

    def epoch_s(at_s: float | None) -> float:
        """Return a time of trio's clock as one since the epoch, the same at each look."""
        return 0.0 if at_s is None else round(since_epoch_s + at_s, 1)

    workers = {
        name: msgspec.structs.replace(
            _worker(name, {**listed, **drained}.get(name), leases.get(name, ()), pool),
            silent_since_s=epoch_s(silent.get(name)),
            broken_since_s=0.0 if name in leases else epoch_s(broken.get(name)),
        )
        for name in names
    }
    for name, departure in pool.fleet.gone.items():
        if name not in leases:  # the master may still reach one that the coordinator has lost
            gone_since_s = epoch_s(departure.at)
            workers[name] = WorkerState(name=recorded_line(name), gone_since_s=gone_since_s, is_lost=departure.is_lost)
    workers = dict(sorted(workers.items()))
    return FleetView(workers, _waits_for(pool, is_checking=is_checking))


def changes_of(old: FleetView, new: FleetView, now_s: float) -> list[Event]:
    """Return the events that lead from one view to another."""
    changed = [worker for name, worker in new.workers.items() if old.workers.get(name) != worker]
    left = [name for name in old.workers if name not in new.workers]
    events: list[Event] = [*map(WorkerChanged, changed), *(WorkerLeft(name, now_s) for name in left)]
    return [*events, QueueWaits(new.waits_for)] if new.waits_for != old.waits_for else events


def _worker(name: str, listed: ListedWorker | None, leases: Iterable[Lease], pool: Pool) -> WorkerState:
    open_leases = list(leases)
    foreign = pool.fleet.foreign.get(name, "") if listed is None else ""
    refusal = Reason.OTHER_ARCHITECTURE if foreign else None if open_leases else pool.refusals.get(name)
    machine = listed.machine if listed else None
    return WorkerState(
        name=recorded_line(name),
        address=recorded_line(listed.address) if listed else "",
        version=recorded_line(open_leases[0].release) if open_leases else "",
        slots=sum(lease.slots for lease in open_leases),
        running=sum(lease.running for lease in open_leases),
        jobs=sum(lease.jobs for lease in open_leases),
        cores=machine.cores if machine else 0,
        load=listed.load if listed else -1.0,
        free_memory_bytes=listed.free_memory_bytes if listed else 0,
        clock_offset_ms=open_leases[0].offset_ns // 1_000_000 if open_leases else 0,
        reason=refusal.value if refusal else "",
        detail=recorded_line(foreign),
        is_drained=bool(listed and listed.draining),
    )


def _waits_for(pool: Pool, *, is_checking: bool) -> str:
    if is_checking:
        return "the check of files outside the tree"
    if not pool.waiting or pool.leases:
        return ""
    return recorded_line(f"a worker: {pool.trouble.text}") if pool.trouble else "a worker"
