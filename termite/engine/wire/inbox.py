"""Keep what has arrived for a request of ours until its task takes it."""

from collections import deque

import trio

from termite.engine.wire.protocol.peer import Chunked, Replied


class Inbox:
    """The chunks and the reply of one request of ours that its task has not processed yet."""

    __slots__ = ("arrived", "parked")

    def __init__(self) -> None:
        self.arrived: deque[Chunked | Replied] = deque()
        self.parked = trio.lowlevel.ParkingLot()

    def put(self, event: Chunked | Replied) -> None:
        """Add an event, and wake the task."""
        self.arrived.append(event)
        self.parked.unpark_all()
