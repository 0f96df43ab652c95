"""Follow the master of a tree, and wait for the next one when it ends."""

from contextlib import suppress
from pathlib import Path

import trio

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.history.live_stream import open_live_stream
from termite.engine.history.logic.live_state import LiveState

RETRY_S = 1.0


class LiveFollower:
    """The live state of the master that listens at `path`.

    `state` is None while none is followed. Then `trouble` says why a master that runs cannot be
    followed, such as one of another version; it is "" if none runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: LiveState | None = None
        self.trouble = ""

    async def follow(self) -> None:
        """Follow one master after the other, until cancelled."""
        while True:
            trouble = ""
            try:
                with suppress(trio.BrokenResourceError):
                    await self._follow_one()
            except UserError as error:
                is_gone = isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError)
                trouble = "" if is_gone else str(error)
            except RemoteProtocolError as error:
                trouble = str(error)
            self.state, self.trouble = None, trouble
            await trio.sleep(RETRY_S)

    async def _follow_one(self) -> None:
        if not self.path.exists():
            return
        async with open_live_stream(self.path) as stream:
            state = LiveState()
            while events := await stream.wait_for_events():
                for event in events:
                    state.apply(event)
                self.state, self.trouble = state, ""
