"""A loop that several tasks run in turn: the listener receives an event and deals with it itself.

Most events need no waiting. To start or wake a task for each of them would cost more than all other
work on it. If the listener has to wait for anything but the next event, another task becomes the
listener.
"""

import functools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import trio

SPARE_TASKS = 2  # idle tasks that are kept, to listen while others wait

Loop = Callable[["Leader"], Coroutine[Any, Any, None]]

T = TypeVar("T")


class Leader:
    """A leader passes the role of the listener between tasks that all run the same loop.

    To a debugger (`Task.iter_await_frames`), each task seems to wait in `_drive`.
    """

    def __init__(self, nursery: trio.Nursery, loop: Loop, max_tasks: int = 2**31) -> None:
        """Prepare for tasks that each run `loop`, which awaits `wait_turn` before it listens.

        All tasks but the first run in `nursery`. While `max_tasks` tasks wait, nobody listens.
        """
        self._nursery = nursery
        self._loop = loop
        self._max_tasks = max_tasks
        self._listener: trio.lowlevel.Task | None = None  # it listens, or deals with an event without waiting
        self._spare = trio.lowlevel.ParkingLot()
        self._tasks = 0
        self._is_listening = False  # True while the running task is about to wait as the listener
        self._has_ended = False

    async def run(self) -> None:
        """Run the loop in this task. When the loop of the listener ends, all idle tasks end too."""
        self._tasks += 1
        try:
            await self._drive(self._loop(self))
        finally:
            self._tasks -= 1
            if self._listener is trio.lowlevel.current_task():
                self._has_ended = True
                self._spare.unpark_all()

    async def wait_turn(self) -> bool:
        """Wait until this task is the listener. Return False if it is not needed and must end."""
        task = trio.lowlevel.current_task()
        while self._listener is not task:
            if self._has_ended or (self._listener is not None and len(self._spare) >= SPARE_TASKS):
                return False
            if self._listener is None:
                self._listener = task
            else:
                await self.listen(self._spare.park)
        return True

    async def listen(self, hear: Callable[..., Awaitable[T]], *args: object) -> T:
        """Await `hear(*args)` as the listener, so that no other task takes over meanwhile."""
        self._is_listening = True
        try:
            return await hear(*args)
        finally:
            self._is_listening = False

    @types.coroutine
    def _drive(self, loop: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Await `loop`. If it waits for anything but its next event, let another task listen."""
        step: Callable[[], Any] = functools.partial(loop.send, None)
        try:
            while True:
                try:
                    awaited = step()
                except StopIteration:
                    return
                is_listening, self._is_listening = self._is_listening, False
                if not is_listening and self._listener is trio.lowlevel.current_task():
                    self._hand_over()
                try:
                    answer = yield awaited
                except BaseException as error:
                    step = functools.partial(loop.throw, error)
                else:
                    step = functools.partial(loop.send, answer)
                self._is_listening = is_listening
        finally:
            del step  # an error in it refers to this frame, and would keep it until a garbage collection

    def _hand_over(self) -> None:
        self._listener = None
        if self._spare:
            self._spare.unpark()
        elif self._tasks < self._max_tasks:
            self._nursery.start_soon(self.run)
