"""Call functions when descriptors can be read. One task waits for all of them, with its own epoll.

A task for each descriptor would cost two turns of the scheduler for every message of a launcher and
for every command that ends. Most of these need no waiting at all.
"""

import contextlib
import logging
import select
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from termite.engine.loop.leader import Leader

MAX_CALLS = 100  # in a row; then other tasks run

log = logging.getLogger(__name__)


class FdWatcher:
    """A watcher of descriptors, each with a function to call.

    The caller of `watch` must call `unwatch` before the descriptor is closed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._next: deque[Callable[[], Awaitable[object]]] = deque()

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        """Call `call` whenever `fd` can be read or is at its end, until `unwatch`.

        `call` must not block. If it raises an exception, the error is logged and `fd` is unwatched.
        Raise OSError if the kernel cannot watch `fd`.
        """
        self._calls[fd] = call
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            del self._calls[fd]
            raise

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`. The call has no effect if `fd` is not watched."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run_next(self, rest: Callable[[], Awaitable[object]]) -> None:
        """Run `rest` next, in the same task.

        Only call this from a function that this object has called. If `rest` has to wait, another
        task goes on calling functions.
        """
        self._next.append(rest)

    async def run(self) -> None:
        """Watch descriptors and call functions until cancelled."""
        async with trio.open_nursery() as nursery:
            await Leader(nursery, self._serve).run()

    async def _serve(self, leader: Leader) -> None:
        while await leader.wait_turn():
            if self._next:
                await self._next.popleft()()
            else:
                await leader.listen(trio.lowlevel.wait_readable, self._epoll.fileno())
                self._call_some()

    def _call_some(self) -> None:
        # Poll for one descriptor at a time. With several, an earlier call may close the descriptor
        # of a later one, and a new descriptor may get its number.
        for _ in range(MAX_CALLS):
            ready = self._epoll.poll(0, 1)
            if not ready:
                break
            self._call(ready[0][0])
            if self._next:
                break

    def _call(self, fd: int) -> None:
        try:
            self._calls[fd]()
        except Exception:  # around one launcher or command: the others and the master go on
            log.exception("fd-call-failed fd=%d", fd)
            self._calls.pop(fd, None)
            with contextlib.suppress(OSError):  # the call had closed it
                self._epoll.unregister(fd)  # otherwise epoll would report it for ever
