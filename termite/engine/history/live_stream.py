"""Read the live stream of a running master, from its control socket."""

import os
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.history.logic.live_events import Event, parse_event
from termite.engine.socket_peers import peer_ids
from termite.engine.status.control_requests import AskWatch
from termite.engine.wire.protocol import launcher_frames

READ_BYTES = 64 * 1024
CONNECT_S = 30.0  # a master that does not accept so long is stopped


class LiveStream:
    """The events of a master: iterate with `async for`. The first one is a Snapshot.

    The iteration ends when the master does, or when it closes the connection. Its errors are
    RemoteProtocolError if the master has another version, and UserError if it refuses the stream.
    Events that arrived together come without waiting between them.
    """

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._frames = launcher_frames.FrameBuffer()
        self._unread: deque[Event] = deque()

    def __aiter__(self) -> "LiveStream":
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event, and return it."""
        while not self._unread:
            await self._receive()
        return self._unread.popleft()

    async def wait_for_events(self) -> list[Event]:
        """Wait until there are events, and return all that have arrived. [] means the end."""
        try:
            self._unread.appendleft(await self.__anext__())
        except StopAsyncIteration:
            return []
        events = list(self._unread)
        self._unread.clear()
        return events

    async def _receive(self) -> None:
        try:
            received = await self._stream.receive_some(READ_BYTES)
        except trio.BrokenResourceError:
            raise StopAsyncIteration from None
        if not received:
            raise StopAsyncIteration
        for kind, payload in self._frames.feed(bytes(received)):
            if kind == launcher_frames.EVENT:
                self._unread.append(parse_event(payload))
                continue
            if kind != launcher_frames.ANSWER:
                raise RemoteProtocolError(f"a master sent {kind!r} in its stream")
            answer = launcher_frames.parse_object(payload)
            if "error" in answer:
                raise UserError(str(answer["error"]), hint=str(answer.get("hint", "")))


@asynccontextmanager
async def open_live_stream(path: Path) -> AsyncIterator[LiveStream]:
    """Connect to the master that listens at `path`, and ask for its events.

    Raise UserError if no master of this user listens there.
    """
    try:
        with trio.fail_after(CONNECT_S):
            connection = await _connect(path)
    except (OSError, trio.TooSlowError) as error:
        text = error.strerror if isinstance(error, OSError) else "it does not answer"
        raise UserError(f"no master listens at {path}: {text}", hint="start one with `termite-ctl start`") from error
    async with trio.SocketStream(connection) as stream:
        if peer_ids(connection.getsockopt)[1] != os.geteuid():
            raise UserError(f"the master that listens at {path} belongs to another user")
        await stream.send_all(launcher_frames.frame(launcher_frames.CONTROL, AskWatch().pack()))
        yield LiveStream(stream)


async def _connect(path: Path) -> trio.socket.SocketType:
    """Connect to a socket by its directory's descriptor, because an address holds 107 bytes."""
    connection = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = -1
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        await connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        connection.close()
        raise
    finally:
        if directory >= 0:
            os.close(directory)
    return connection
