"""Keep a worker registered with the coordinator, whether or not the coordinator runs."""

import logging
from collections.abc import Callable

import trio

from termite.engine.errors import Reason, RemoteProtocolError, Retryable, UserError
from termite.engine.fleet.coordinator import coordinator_error_text
from termite.engine.fleet.coordinator_dial import dial_coordinator
from termite.engine.fleet.trouble import trouble_of
from termite.engine.wire.addresses import join_address
from termite.engine.wire.protocol.fleet_messages import Deregister, Register, Registered
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.transport import Connection, Handler, SendChunk

ANSWER_S = 10.0
DEREGISTER_S = 0.5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0

log = logging.getLogger(__name__)


async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    """Answer no request of a coordinator."""
    raise RemoteProtocolError(f"a coordinator asked {type(message).__name__}")


async def stay_registered(
    host: str, port: int, secret: bytes, name: str, describe: Callable[[], Register], answer: Handler = refuse
) -> None:
    """Register the worker, again and again, until cancelled; then deregister it.

    `describe` returns the worker's present state. `answer` answers requests of the coordinator. A
    missing coordinator is logged once for each reason, and once when it is found.
    """
    address, pause_s = join_address(host, port), FIRST_PAUSE_S
    complaint: Reason | None = None
    while True:
        try:
            async with dial_coordinator((host, port), secret, name, answer) as connection:
                interval_s = await _register(connection, describe())
                log.info("coordinator-found coordinator=%s", address)
                pause_s, complaint = FIRST_PAUSE_S, None
                await _repeat(connection, describe, interval_s)
        except (Retryable, RemoteProtocolError, UserError) as error:
            trouble = trouble_of(error, coordinator_error_text(error))
            if trouble.reason is not complaint:
                complaint = trouble.reason
                log.warning(
                    "coordinator-missing coordinator=%s detail=%r reason=%s", address, trouble.text, trouble.reason
                )
        except Exception:  # around one connection: the masters are served, and the next attempt may succeed
            log.exception("coordinator-failed")
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def _repeat(connection: Connection, describe: Callable[[], Register], interval_s: float) -> None:
    try:
        while True:
            with trio.move_on_after(interval_s):
                await connection.lost.wait()
            interval_s = await _register(connection, describe())
    finally:
        with trio.move_on_after(DEREGISTER_S, shield=True):
            if not connection.lost.is_set():
                await connection.request(Deregister(describe().name))


async def _register(connection: Connection, message: Register) -> float:
    reply = await connection.request(message, timeout_s=ANSWER_S)
    if not isinstance(reply, Registered) or not reply.interval_s > 0:
        raise RemoteProtocolError(f"{connection.peer} is no coordinator: it answered {type(reply).__name__}")
    return reply.interval_s
