"""Which lease gets the next job. Pure: times and loads are arguments."""

from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar


class Place(Protocol):
    """What the choice is made by; a lease is one."""

    @property
    def worker(self) -> str: ...

    @property
    def slots(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def is_open(self) -> bool: ...


P = TypeVar("P", bound=Place)


def choose(places: Iterable[P], avoid: Collection[str] = ()) -> P | None:
    """The place with the smallest part of its slots taken, or None where every slot is.

    Workers in `avoid` (they failed this very job) get it only where there is no other worker at all, full or not.
    """
    open_places = [place for place in places if place.is_open]
    welcome = [place for place in open_places if place.worker not in avoid] or open_places
    free = [place for place in welcome if place.running < place.slots]
    return min(free, key=lambda place: ((place.running + 1) / place.slots, place.worker), default=None)
