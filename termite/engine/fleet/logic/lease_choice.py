"""Choose the lease that gets the next job."""

from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A lease that may get the next job, as far as the choice looks at it."""

    @property
    def worker(self) -> str: ...

    @property
    def slots(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def is_open(self) -> bool: ...


C = TypeVar("C", bound=Candidate)


def choose_lease(leases: Iterable[C], avoid: Collection[str] = ()) -> C | None:
    """Return the lease with the smallest part of its slots taken, or None if no slot is free.

    A worker in `avoid`, which failed this job before, is only chosen if no other worker has a
    lease, whether full or not.
    """
    open_leases = [lease for lease in leases if lease.is_open]
    welcome = [lease for lease in open_leases if lease.worker not in avoid] or open_leases
    free = [lease for lease in welcome if lease.running < lease.slots]
    return min(free, key=lambda lease: ((lease.running + 1) / lease.slots, lease.worker), default=None)
