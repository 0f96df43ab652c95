"""The coordinator's list of the workers that are alive.

A restart loses the list. The heartbeats of the workers rebuild it within one interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from termite.engine.wire.protocol.fleet_messages import (
    MOST_GONE,
    FarmWorker,
    GoneWorker,
    ListedWorker,
    Register,
    SlotUse,
)

SHOWN_GONE_S = 3600.0  # so long people see a worker that was lost or stopped
MOST_ADDRESSES = 16  # of one name; a member may give another one with each heartbeat


@dataclass(frozen=True, slots=True)
class _Entry:
    """A worker, and the addresses that have lately registered under its name, with their times.

    `seen_s` is the time of its last message, which is a goodbye if it `is_stopped`.
    """

    worker: ListedWorker
    seen_s: float
    addresses: Mapping[str, float]
    release: str = ""
    uses: tuple[SlotUse, ...] = ()
    is_stopped: bool = False


class Registry:
    """The list of live workers. Its version grows whenever masters must get the new list."""

    def __init__(self, first_version: int, forget_after_s: float) -> None:
        """Start with no worker. A worker is lost after `forget_after_s` without a heartbeat.

        `first_version` must be larger than any version of an earlier coordinator. Otherwise a
        master that knows the earlier list could take the new list for the old one.
        """
        self.version = first_version
        self._forget_after_s = forget_after_s
        self._entries: dict[str, _Entry] = {}
        self._gone: dict[str, _Entry] = {}

    def register(self, message: Register, address: str, now: float) -> bool:
        """Record a heartbeat, with the worker's address. Return True if the version has changed."""
        known = self._entries.get(message.name)
        rival, addresses = self._rival(known, address, now)
        worker = ListedWorker(
            name=message.name,
            address=address,
            slots=message.slots,
            leased=message.leased,
            load=message.load,
            free_memory_bytes=message.free_memory_bytes,
            draining=message.draining,
            machine=message.machine,
            rival=rival,
        )
        self._entries[message.name] = _Entry(worker, now, addresses, message.release, message.uses)
        self._gone.pop(message.name, None)
        return self._changed(known is None or _notified_fields(known.worker) != _notified_fields(worker))

    def rival_of(self, name: str) -> str:
        """Return the address of another worker that uses the name of this one, or ""."""
        return self._entries[name].worker.rival if name in self._entries else ""

    def _rival(self, known: _Entry | None, address: str, now: float) -> tuple[str, dict[str, float]]:
        """Return the address of a rival, and all addresses of the name with their times.

        A worker that was restarted has another address once. Two workers take turns, so that an
        address comes back after another one.
        """
        if known is None:
            return "", {address: now}
        recent = {place: then for place, then in known.addresses.items() if now - then <= self._forget_after_s}
        others = [place for place in recent if place != address]
        for place in [*recent][: max(len(recent) - MOST_ADDRESSES, 0)]:
            del recent[place]
        is_back = address in recent and (known.worker.address != address or known.worker.rival)
        return (others[-1] if others and is_back else ""), {**recent, address: now}

    def deregister(self, name: str, now: float) -> bool:
        """Remove a worker that leaves. Return True if the version has changed."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return False
        self._gone[name] = replace(entry, seen_s=now, uses=(), is_stopped=True)
        self._forget_gone(now)
        return self._changed(True)

    def forget(self, now: float) -> list[str]:
        """Remove the workers whose heartbeats have stopped, and return their names."""
        lost = [name for name, entry in self._entries.items() if now - entry.seen_s > self._forget_after_s]
        for name in lost:
            self._gone[name] = self._entries.pop(name)
        self._forget_gone(now)
        self._changed(bool(lost))
        return lost

    def _forget_gone(self, now: float) -> None:
        for name in [name for name, entry in self._gone.items() if now - entry.seen_s > SHOWN_GONE_S]:
            del self._gone[name]
        for name in [*self._gone][: max(len(self._gone) - MOST_GONE, 0)]:
            del self._gone[name]

    def workers(self) -> tuple[ListedWorker, ...]:
        """Return all workers, in the order of their names."""
        return tuple(entry.worker for _, entry in sorted(self._entries.items()))

    def gone(self, now: float) -> tuple[GoneWorker, ...]:
        """Return the workers that were lost or stopped in the last SHOWN_GONE_S."""
        return tuple(
            GoneWorker(name, max(now - entry.seen_s, 0.0), not entry.is_stopped) for name, entry in self._gone.items()
        )

    def drain(self, name: str, *, is_drained: bool) -> bool:
        """Record that a worker drains, or not any more. Return True if the version has changed."""
        entry = self._entries.get(name)
        if entry is None or entry.worker.draining == is_drained:
            return False
        worker = msgspec.structs.replace(entry.worker, draining=is_drained)
        self._entries[name] = replace(entry, worker=worker)
        return self._changed(True)

    def farm(self, now: float) -> tuple[FarmWorker, ...]:
        """Return all workers, and those that are gone since SHOWN_GONE_S, in the order of names."""
        entries = sorted([*self._entries.items(), *self._gone.items()])
        return tuple(
            FarmWorker(
                entry.worker,
                max(now - entry.seen_s, 0.0),
                is_lost=name in self._gone and not entry.is_stopped,
                release=entry.release,
                uses=entry.uses,
                is_stopped=entry.is_stopped,
            )
            for name, entry in entries
        )

    def _changed(self, changed: bool) -> bool:
        self.version += changed
        return changed


def _notified_fields(worker: ListedWorker) -> tuple[str, int, bool]:
    """Return the fields whose change must reach the masters at once, unlike the load."""
    return worker.address, worker.slots, worker.draining
