"""Choose the lease that gets the next job."""

from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar


class Place(Protocol):
    """A place for jobs, such as a lease."""

    @property
    def worker(self) -> str: ...

    @property
    def slots(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def is_open(self) -> bool: ...


P = TypeVar("P", bound=Place)


def choose_place(places: Iterable[P], avoid: Collection[str] = ()) -> P | None:
    """Return the place with the smallest part of its slots taken, or None if no slot is free.

    A worker in `avoid`, which failed this job before, is only chosen if no other worker has a
    place, whether full or not.
    """
    open_places = [place for place in places if place.is_open]
    welcome = [place for place in open_places if place.worker not in avoid] or open_places
    free = [place for place in welcome if place.running < place.slots]
    return min(free, key=lambda place: ((place.running + 1) / place.slots, place.worker), default=None)
