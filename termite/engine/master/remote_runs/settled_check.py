"""Check the settled files again, at the beginning of a build or when a user requests it.

The build tool runs meanwhile; only jobs that go to a worker wait for the check.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from termite.engine.errors import FsError, Reason, UserError

RETRY_S = 1.0  # between failed checks, because each of a thousand waiting jobs requests another one

log = logging.getLogger(__name__)


class SettledCheck:
    """The queue of requested checks.

    `check` checks all settled files once; it takes about 10 us for each file that was ever served.
    """

    def __init__(self, check: Callable[[], Awaitable[object]]) -> None:
        self._check = check
        self._requested = self._done = 0
        self._is_requested = trio.Event()
        self._has_advanced = trio.Event()
        self._checked_s = -RETRY_S
        self._failure: Exception | None = None

    def request(self) -> None:
        """Request a check that starts after this call; do not wait for it."""
        self._requested += 1
        self._is_requested.set()

    @property
    def is_awaited(self) -> bool:
        """True if a check was requested that has not finished."""
        return self._done < self._requested

    async def wait(self) -> None:
        """Wait until every check requested so far has finished.

        Raise UserError, whose cause is the failure, if the last one failed. A caller that comes
        RETRY_S later starts another check.
        """
        is_old = trio.current_time() - self._checked_s >= RETRY_S
        if self._failure is not None and is_old and self._done == self._requested:
            self.request()
        requested = self._requested
        while self._done < requested:
            await self._has_advanced.wait()
        if self._failure is not None:
            raise UserError(f"{Reason.SETTLED_UNREADABLE.words}: {self._failure!r}") from self._failure

    async def run(self) -> None:
        """Run the requested checks, one at a time, until cancelled."""
        while True:
            await self._is_requested.wait()
            self._is_requested = trio.Event()
            requested = self._requested
            try:
                await self._check()
                self._failure = None
            except Exception as error:  # around one check: `wait` raises it for jobs and for termite-ctl
                if _kind_of(error) != _kind_of(self._failure):
                    log.exception("settled-check-failed")
                self._failure = error
            self._checked_s = trio.current_time()
            self._done = requested
            advanced, self._has_advanced = self._has_advanced, trio.Event()
            advanced.set()


def _kind_of(error: Exception | None) -> tuple[type, int | None]:
    """Return what is equal for two failures of which the second one needs no line in the log."""
    return type(error), error.errno if isinstance(error, OSError | FsError) else None
