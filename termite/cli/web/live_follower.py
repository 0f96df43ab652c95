"""Follow the master of a tree, and wait for the next one when it ends."""

from contextlib import suppress
from pathlib import Path

import trio

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.history.live_stream import open_live_stream
from termite.engine.history.logic.live_state import LiveState

RETRY_S = 1.0


class LiveFollower:
    """The live state of the master that listens at `path`. `state` is None while none runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state: LiveState | None = None

    async def follow(self) -> None:
        """Follow one master after the other, until cancelled."""
        while True:
            # After an error the page says that no master runs.
            with suppress(UserError, RemoteProtocolError, trio.BrokenResourceError):
                await self._follow_one()
            self.state = None
            await trio.sleep(RETRY_S)

    async def _follow_one(self) -> None:
        if not self._path.exists():
            return
        async with open_live_stream(self._path) as stream:
            state = LiveState()
            while events := await stream.wait_for_events():
                for event in events:
                    state.apply(event)
                self.state = state
