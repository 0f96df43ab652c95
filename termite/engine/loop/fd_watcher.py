"""Calls back when a descriptor can be read. One task waits for all of them, by an epoll of its own.

A task for each would cost two turns of the scheduler for everything that a launcher says, mostly nothing, and for every
command that ends.
"""

import contextlib
import logging
import select
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from termite.engine.loop.leader import Leader

AT_ONCE = 100  # calls; then it is the turn of other tasks

log = logging.getLogger(__name__)


class FdWatcher:
    """What is watched, and what to call. Whoever watches a descriptor forgets it before it is closed."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._rests: deque[Callable[[], Awaitable[object]]] = deque()

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        """Call whenever `fd` can be read, or has come to its end, until it is forgotten."""
        self._calls[fd] = call
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            del self._calls[fd]
            raise

    def forget(self, fd: int) -> None:
        """It may be forgotten already."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def go_on(self, rest: Callable[[], Awaitable[object]]) -> None:
        """For whom is called: `rest` is done next, by the same task; others are called as soon as it has to wait."""
        self._rests.append(rest)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            await Leader(nursery, self._serve).run()

    async def _serve(self, leader: Leader) -> None:
        while await leader.turn():
            if self._rests:
                await self._rests.popleft()()
            else:
                await leader.listen(trio.lowlevel.wait_readable, self._epoll.fileno())
                self._call_some()

    def _call_some(self) -> None:
        # One at a time: of several, an earlier call may close the descriptor of a later one, and open another.
        for _ in range(AT_ONCE):
            ready = self._epoll.poll(0, 1)
            if not ready:
                break
            self._call(ready[0][0])
            if self._rests:
                break

    def _call(self, fd: int) -> None:
        try:
            self._calls[fd]()
        except Exception:  # one launcher, one command: the others and the master live on
            log.exception("fd-call-failed fd=%d", fd)
            self._calls.pop(fd, None)
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)  # else it would be told of for ever
