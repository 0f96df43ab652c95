"""A loop that several tasks run in turn: one of them listens, and deals with what it hears at once.

Mostly that needs no waiting, and to start a task for each thing that is heard, or only to wake one, would cost more
than all else that is done about it. Where dealing with it does have to wait, another task goes on listening meanwhile.
"""

import functools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import trio

SPARE_TASKS = 2  # that are kept, to listen while others wait

Loop = Callable[["Leader"], Coroutine[Any, Any, None]]

T = TypeVar("T")


class Leader:
    """`loop` is what each task does: before it listens, it asks for its `turn`. There are no more than `most` tasks,
    all but the first in `nursery`: while all of them wait, nobody listens, until one is done.

    A task that is looked at from outside (`Task.iter_await_frames`) seems to wait in `_followed`.
    """

    def __init__(self, nursery: trio.Nursery, loop: Loop, most: int = 2**31) -> None:
        self._nursery = nursery
        self._loop = loop
        self._most = most
        self._listener: trio.lowlevel.Task | None = None  # or it deals with what it has heard
        self._spare = trio.lowlevel.ParkingLot()
        self._tasks = 0
        self._is_listening = False  # what the task that runs now is about to wait for, it waits for as the listener
        self._has_ended = False

    async def run(self) -> None:
        """The first task, and each further one. Where the loop of the listener ends, all tasks do."""
        self._tasks += 1
        try:
            await self._followed(self._loop(self))
        finally:
            self._tasks -= 1
            if self._listener is trio.lowlevel.current_task():
                self._has_ended = True
                self._spare.unpark_all()

    async def turn(self) -> bool:
        """Wait until it is this task that listens. False: it is one too many, and has to end."""
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
        """`await hear(*args)`; nobody else listens meanwhile."""
        self._is_listening = True
        try:
            return await hear(*args)
        finally:
            self._is_listening = False

    @types.coroutine
    def _followed(self, loop: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Await `loop`; whenever it waits for something else than its next news, another task has to listen."""
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
            del step  # an error in it would keep this frame, and all that it has, until garbage is collected

    def _hand_over(self) -> None:
        self._listener = None
        if self._spare:
            self._spare.unpark()
        elif self._tasks < self._most:
            self._nursery.start_soon(self.run)
