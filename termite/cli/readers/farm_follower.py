"""Follow the list of workers that a coordinator knows."""

from collections.abc import Awaitable, Callable

import trio

from termite.cli.display.farm_screen import FarmView
from termite.engine.errors import Retryable, UserError
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import ListWorkers, Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL
from termite.engine.wire.transport import Connection, SendChunk, dial

CONNECT_S = 10.0
RETRY_S = 2.0


async def list_workers(host: str, port: int, secret: bytes, view: FarmView) -> None:
    """Ask once. Raise UserError or Retryable if the coordinator does not answer."""
    async with dial(host, port, mint(secret, "top", Role.CLIENT), _refuse, CONNECT_S) as connection:
        await _ask(connection, view)


async def follow_workers(
    host: str, port: int, secret: bytes, view: FarmView, changed: Callable[[], Awaitable[None]]
) -> None:
    """Ask again and again until cancelled; `changed` is awaited before each next question.

    While the coordinator does not answer, the view has the last list, and says why.
    """
    while True:
        try:
            async with dial(host, port, mint(secret, "top", Role.CLIENT), _refuse, CONNECT_S) as connection:
                while True:
                    await _ask(connection, view)
                    await changed()
        except (UserError, Retryable) as error:
            view.trouble = f"the coordinator does not answer: {error}"
            await trio.sleep(RETRY_S)


async def _ask(connection: Connection, view: FarmView) -> None:
    """Put the present list into the view. With version 0, the answer comes at once."""
    answer = await connection.request(ListWorkers(PROTOCOL, 0), timeout_s=CONNECT_S)
    if not isinstance(answer, Workers):
        raise UserError(f"a coordinator answered {type(answer).__name__}", hint="it may have another version")
    view.workers, view.trouble = answer.workers, ""


async def _refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise UserError(f"a coordinator asks nothing, but sent {type(message).__name__}")
