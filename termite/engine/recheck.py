"""Looking again at what is settled, while the build that asked for it goes on: only its jobs for workers wait."""

import logging
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)


class Recheck:
    """`look` looks once at everything; it takes some 10 us for each file that was ever served."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._asked = self._done = 0
        self._is_asked = trio.Event()
        self._has_moved = trio.Event()
        self._trouble: Exception | None = None

    def ask(self) -> None:
        """Look at it as it is from now on."""
        self._asked += 1
        self._is_asked.set()

    async def wait(self) -> None:
        """Until all that was asked for so far is done. Raises what has gone wrong: then nobody knows the files."""
        asked = self._asked
        while self._done < asked:
            await self._has_moved.wait()
        if self._trouble is not None:
            raise RuntimeError("the files outside the tree could not be looked at") from self._trouble

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._is_asked.wait()
            self._is_asked = trio.Event()
            asked = self._asked
            try:
                await self._look()
                self._trouble = None
            except Exception as error:
                log.exception("recheck-failed")
                self._trouble = error
            self._done = asked
            moved, self._has_moved = self._has_moved, trio.Event()
            moved.set()
