"""Give each job on a worker, or on this machine, the number of the slot in which it runs."""

import heapq


class SlotNumbers:
    """The numbers of the slots of one place, from 0. The lowest free one is taken first.

    There are as many numbers as jobs were there at the same time.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        self._count = 0

    def take(self) -> int:
        """Take the lowest free number."""
        if self._free:
            return heapq.heappop(self._free)
        self._count += 1
        return self._count - 1

    def give_back(self, number: int) -> None:
        """Give a number back."""
        heapq.heappush(self._free, number)
