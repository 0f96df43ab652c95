"""Compute something long in a thread, so that the event loop goes on meanwhile.

This helps only with work that is Python's own: other threads run after 5 ms of it. A call of a C
library, such as a decoder, holds all threads up until it returns.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

MANY = 2000  # of what takes a microsecond or two: a thread costs 0.1 ms

T = TypeVar("T")


async def compute(count: int, work: Callable[[], T]) -> T:
    """Return `work()`, which deals with `count` things. It shares nothing that changes.

    If there are few, nothing blocks.
    """
    return work() if count <= MANY else await trio.to_thread.run_sync(work)
