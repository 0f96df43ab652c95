"""Follow the workers of a farm, as its coordinator knows them."""

from collections.abc import Awaitable, Callable

import trio

from termite.cli.display.farm_screen import FarmView
from termite.cli.readers.farm_questions import Coordinator
from termite.engine.errors import UserError

RETRY_S = 2.0


async def list_workers(coordinator: Coordinator, view: FarmView) -> None:
    """Ask once. Raise UserError if the coordinator does not answer."""
    async with coordinator.connected() as desk:
        view.show(await desk.list_farm())


async def follow_workers(coordinator: Coordinator, view: FarmView, changed: Callable[[], Awaitable[None]]) -> None:
    """Ask again and again until cancelled; `changed` is awaited before each next question.

    While the coordinator does not answer, the view has the last list, and says why.
    """
    while True:
        try:
            async with coordinator.connected() as desk:
                while True:
                    view.show(await desk.list_farm())
                    await changed()
        except UserError as error:
            view.trouble = str(error)
            await trio.sleep(RETRY_S)
