"""How a worker's slots are shared between the masters that want some."""

from collections.abc import Mapping


def share(slots: int, wanted: Mapping[int, int]) -> dict[int, int]:
    """Slots for each lease, by its number: nobody gets more than wanted, and nobody has less than another for whom
    there would have been more. What does not divide goes to the older leases (the order of `wanted`)."""
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
