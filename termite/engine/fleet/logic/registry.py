"""The workers that are alive, as the coordinator knows them: soft state, rebuilt from heartbeats after a restart."""

from dataclasses import dataclass

from termite.engine.wire.protocol.messages import Register, Worker


@dataclass(frozen=True, slots=True)
class _Entry:
    worker: Worker
    seen_s: float


class Registry:
    """`version` is another one whenever the list is another one.

    It starts at a number that no earlier coordinator had got to, so that a master that outlived a coordinator's restart
    does not take the new list for the one it knows.
    """

    def __init__(self, first_version: int, forget_after_s: float) -> None:
        self.version = first_version
        self._forget_after_s = forget_after_s
        self._entries: dict[str, _Entry] = {}

    def register(self, message: Register, address: str, now: float) -> bool:
        """A worker starts, or is still there. True if the list has changed."""
        worker = Worker(
            name=message.name,
            address=address,
            slots=message.slots,
            leased=message.leased,
            load=message.load,
            free_memory_bytes=message.free_memory_bytes,
            draining=message.draining,
        )
        known = self._entries.get(message.name)
        self._entries[message.name] = _Entry(worker, now)
        return self._changed(known is None or _standing(known.worker) != _standing(worker))

    def deregister(self, name: str) -> bool:
        """A worker leaves. True if the list has changed."""
        return self._changed(self._entries.pop(name, None) is not None)

    def forget(self, now: float) -> list[str]:
        """Drop the workers that were not heard of for too long; their names."""
        lost = [name for name, entry in self._entries.items() if now - entry.seen_s > self._forget_after_s]
        for name in lost:
            del self._entries[name]
        self._changed(bool(lost))
        return lost

    def workers(self) -> tuple[Worker, ...]:
        """All of them, by name."""
        return tuple(entry.worker for _, entry in sorted(self._entries.items()))

    def _changed(self, changed: bool) -> bool:
        self.version += changed
        return changed


def _standing(worker: Worker) -> tuple[str, int, bool]:
    """What a master must hear of at once; load and the like only go along."""
    return worker.address, worker.slots, worker.draining
