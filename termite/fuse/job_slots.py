"""The slots of a lease, on the side of the worker: they limit how many jobs run at once."""

import trio

from termite.engine.errors import Reason, Retryable


class JobSlots:
    """The slots of one lease; a job holds one for the length of a block.

    A lease without slots gives its jobs back, because it may be long until there are slots again:
    the worker drains, or others have its slots. If a slot is free, the scheduler does not run other
    tasks in between.
    """

    def __init__(self) -> None:
        self._count = 0
        self._limiter = trio.CapacityLimiter(0)
        self._waiting: set[trio.CancelScope] = set()

    def set_count(self, count: int) -> None:
        """Set the number of slots. Jobs that hold one keep it."""
        self._count = self._limiter.total_tokens = count
        if not count:
            for scope in self._waiting:
                scope.cancel()

    async def __aenter__(self) -> None:
        """Wait for a slot. Raise Retryable if there are no slots."""
        try:
            self._limiter.acquire_nowait()
        except trio.WouldBlock:
            await self._wait()

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release()

    async def _wait(self) -> None:
        if self._count:
            with trio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    return await self._limiter.acquire()
                finally:
                    self._waiting.discard(scope)
        raise Retryable(Reason.WORKER_BUSY, "it takes no jobs now")
