"""Share a worker's slots between the leases of its masters."""

from collections.abc import Mapping


def share_slots(slots: int, wanted: Mapping[int, int]) -> dict[int, int]:
    """Return the slots of each lease, by the lease's number in `wanted`.

    The shares are max-min fair: no lease gets more than it wants, and a lease gets fewer slots than
    another only if it wants fewer. If the slots do not divide evenly, older leases (earlier in
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
