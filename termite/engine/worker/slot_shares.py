"""Share a worker's slots between the leases of its masters."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def share_among_masters(slots: int, wanted: Mapping[int, tuple[str, int]]) -> dict[int, int]:
    """Return the slots of each lease, by the lease's number in `wanted`.

    `wanted` has the name of the master and the slots that it wants. Masters share first, and then
    the leases of each master: more leases bring a master no more slots.
    """
    of_master: dict[str, dict[int, int]] = {}
    for lease, (master, count) in wanted.items():
        of_master.setdefault(master, {})[lease] = count
    shares = share_slots(slots, {master: sum(leases.values()) for master, leases in of_master.items()})
    granted: dict[int, int] = {}
    for master, leases in of_master.items():
        granted |= share_slots(shares[master], leases)
    return granted


def share_slots(slots: int, wanted: Mapping[K, int]) -> dict[K, int]:
    """Return the share of each one in `wanted`.

    The shares are max-min fair: nobody gets more than he wants, and one gets fewer slots than
    another only if he wants fewer. If the slots do not divide evenly, older ones (earlier in
    `wanted`) get one more.
    """
    granted = dict.fromkeys(wanted, 0)
    hungry = [lease for lease, count in wanted.items() if count > 0]
    free = slots
    while free > 0 and hungry:
        portion = max(1, free // len(hungry))
        for lease in hungry:
            more = min(portion, wanted[lease] - granted[lease], free)
            granted[lease] += more
            free -= more
        hungry = [lease for lease in hungry if granted[lease] < wanted[lease]]
    return granted
