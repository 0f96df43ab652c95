"""Looking again at what is settled, while the build that asked for it goes on: only its jobs for workers wait."""

import logging
from collections.abc import Awaitable, Callable

import trio

from termite.engine.errors import UserError

REPEAT_S = 1.0  # at most so often, where each of a thousand jobs asks again

log = logging.getLogger(__name__)


class SettledCheck:
    """`look` looks once at everything; it takes some 10 us for each file that was ever served."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._asked = self._done = 0
        self._is_asked = trio.Event()
        self._has_moved = trio.Event()
        self._looked_s = -REPEAT_S
        self._trouble: Exception | None = None

    def ask(self) -> None:
        """Look at it as it is from now on."""
        self._asked += 1
        self._is_asked.set()

    async def wait(self) -> None:
        """Until all that was asked for so far is done. UserError where that went wrong, so that nobody knows the files;
        who waits next has them looked at again."""
        is_old = trio.current_time() - self._looked_s >= REPEAT_S
        if self._trouble is not None and is_old and self._done == self._asked:
            self.ask()
        asked = self._asked
        while self._done < asked:
            await self._has_moved.wait()
        if self._trouble is not None:
            raise UserError(f"the files outside the tree could not be looked at: {self._trouble!r}")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._is_asked.wait()
            self._is_asked = trio.Event()
            asked = self._asked
            try:
                await self._look()
                self._trouble = None
            except Exception as error:  # one look, which launchers and jobs asked for: they are told
                if repr(error) != repr(self._trouble):
                    log.exception("settled-check-failed")
                self._trouble = error
            self._looked_s = trio.current_time()
            self._done = asked
            moved, self._has_moved = self._has_moved, trio.Event()
            moved.set()
