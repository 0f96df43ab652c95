"""Connect to the coordinator of a cluster, and to nobody else who has a certificate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from termite.engine.errors import RemoteProtocolError
from termite.engine.wire.addresses import CONNECT_S
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.identity import COORDINATOR_NAME
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.transport import Connection, Handler, SendChunk, dial


@asynccontextmanager
async def dial_coordinator(
    address: tuple[str, int], secret: bytes, name: str, handler: Handler, connect_s: float = CONNECT_S
) -> AsyncIterator[Connection]:
    """Connect to the coordinator at a host and a port, as `name`, and close the connection at last.

    Each connection has a new certificate, because a daemon may outlive one. Raise the errors of
    `dial`. The certificate of a mirror is none of a coordinator.
    """
    host, port = address
    async with dial(host, port, mint(secret, name, Role.CLIENT), handler, connect_s, COORDINATOR_NAME) as connection:
        yield connection


async def refuse_requests(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    """Refuse a request of a coordinator, which asks its clients nothing."""
    raise RemoteProtocolError(f"a coordinator asks nothing, but sent {type(message).__name__}")
