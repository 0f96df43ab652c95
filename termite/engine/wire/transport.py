"""Carry many requests in both directions over one secure connection.

    async with dial(host, port, identity, handler) as connection:
        reply = await connection.request(GetFile(...), on_chunk=write)

One task reads, and answers requests that need no waiting. If an answer has to wait, another task
continues to read (loop/leader.py). A posted frame is written immediately. If the socket is full,
the frame and all later ones are queued, and a writer task sends the queue as one TLS write. Another
task notices a silent connection (silence_watch.py). Reading never waits for writing or for a
handler, so the two sides cannot block each other. If the connection is lost, the handlers are
cancelled and the requests fail; the body of the `async with` continues, and `lost` is set.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext

import trio

from termite.engine.errors import (
    ConnectionLost,
    FsError,
    Reason,
    RemoteProtocolError,
    Retryable,
    Stale,
    UserError,
)
from termite.engine.loop.leader import Leader
from termite.engine.wire.addresses import CONNECT_S, connect_to, peer_name
from termite.engine.wire.identity import SERVER_NAME, Identity
from termite.engine.wire.mailboxes import BACKLOG_BYTES, Inbox, Outbox
from termite.engine.wire.protocol.failure_replies import Failed, Failure, failed, result_of
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.frames import MAX_CHUNK_BYTES
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import GetDirectory, GetEntry, GetFile, Ping, Pong
from termite.engine.wire.protocol.peer import Cancelled, Chunked, Credited, Peer, PeerEvent, Replied, Requested
from termite.engine.wire.silence_watch import ANSWER_S, SILENCE_S, LinkProgress, Patience, SilenceWatch, WatchedLine
from termite.engine.wire.tls import READ_BYTES, TlsStream, why_broken

FLUSH_S = 1.0  # for queued frames when a connection is closed
# Answers to pings wait for no room. Nothing else makes the queue so long.
MOST_UNREAD_BYTES = 4 * BACKLOG_BYTES

SHORT_BYTES = 64  # a ping or its answer is not longer

log = logging.getLogger(__name__)

OnChunk = Callable[[bytes], Awaitable[None]]
SendChunk = Callable[[bytes], Awaitable[None]]
Handler = Callable[["Connection", Message, SendChunk], Awaitable[Message]]


class Connection:
    """A connection, which `dial`, `accepted` or `joined` makes. `lost` is set when it is lost.

    `peer` names the other side for people. `on_answered` is called after each request of the other
    side that was answered; None: nothing is called. `messages` counts the requests of both sides by
    kind, without pings. `silence` says whether the other side is silent. `patience` bounds waits
    for what comes over the connection.
    """

    def __init__(self, stream: trio.abc.Stream, handler: Handler, *, client: bool, peer: str) -> None:
        self.peer = peer
        self.lost = trio.Event()
        self.on_answered: Callable[[], None] | None = None
        self.patience = Patience()
        self._stream = stream
        self._handler = handler
        self._protocol = Peer(client=client)
        self._scope = trio.CancelScope(shield=True)  # a body that is cancelled may still send frames
        self._events: deque[PeerEvent] = deque()  # received, but not processed yet
        self._loss = ""
        self._inboxes: dict[int, Inbox] = {}
        self._handlers: dict[int, trio.CancelScope] = {}
        self._credited: dict[int, trio.lowlevel.ParkingLot] = {}
        self._outbox = Outbox(stream, self._lose)
        progress = stream.progress if isinstance(stream, TlsStream) else LinkProgress
        self.silence = SilenceWatch(WatchedLine(lambda: bool(self._inboxes), self._ping, progress))
        self._counts = {"asked": 0, "answered": 0, "received_bytes": 0}
        self.messages: Counter[str] = Counter()

    async def request(
        self,
        message: Message,
        on_chunk: OnChunk | None = None,
        timeout_s: float | None = None,
        on_posted: Callable[[], None] | None = None,
    ) -> Message:
        """Send a request, wait for its reply and return it.

        `on_posted` is called when whatever is sent from now on comes after the request. Before
        that, the request may wait for room, and others may pass between its parts.

        Chunks are passed to `on_chunk` one after the other, all before the reply; if it is None,
        the request brings no chunks. Raise the error that the other side's handler raised (FsError,
        Stale, Retryable or UserError; RemoteBug for any other). Raise Retryable after `timeout_s`
        (None: never), and ConnectionLost if the connection is lost. If the caller is cancelled, the
        other side's handler is cancelled too.
        """
        if timeout_s is None:
            return await self._request(message, on_chunk, on_posted)
        with trio.move_on_after(timeout_s):
            return await self._request(message, on_chunk, on_posted)
        raise Retryable(Reason.NO_ANSWER, f"{self.peer}, {type(message).__name__} in {timeout_s:g} s")

    def statistics(self) -> dict[str, int]:
        """Return counts since the start, and the numbers of open requests and queued bytes."""
        asking, answering = self._protocol.open_streams
        box = self._outbox
        sending = {"sent_bytes": box.sent_bytes, "writes": box.writes, "backlog_bytes": box.backlog_bytes}
        return {**self._counts, **sending, "asking": asking, "answering": answering}

    @property
    def traffic(self) -> tuple[int, int, int]:
        """The bytes sent and received, and the requests of both sides, since the start."""
        counts = self._counts
        return self._outbox.sent_bytes, counts["received_bytes"], counts["asked"] + counts["answered"]

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _request(
        self, message: Message, on_chunk: OnChunk | None, on_posted: Callable[[], None] | None
    ) -> Message:
        await self._wait_for_backlog()
        stream, frame = self._protocol.ask(message, chunks=on_chunk is not None)
        self._counts["asked"] += 1
        self.messages[type(message).__name__] += 1
        inbox = self._inboxes[stream] = Inbox()
        if self.silence.is_resting:
            self.silence.wake()
        try:
            if frame:
                self._outbox.post(frame)
            else:
                await self._outbox.post_parts(self._protocol.parts(stream, message))
            if on_posted is not None:
                on_posted()
            return result_of(await self._collect(stream, inbox, on_chunk))
        finally:
            del self._inboxes[stream]
            self._outbox.post(self._protocol.give_up(stream))

    async def _collect(self, stream: int, inbox: Inbox, on_chunk: OnChunk | None) -> Message:
        while True:
            while not inbox.arrived:
                if self._loss:
                    raise ConnectionLost(f"{self.peer}: {self._loss}")
                await inbox.parked.park()
            match inbox.arrived.popleft():
                case Replied(message=message):
                    return message
                case Chunked(content=content):
                    assert on_chunk is not None
                    await on_chunk(content)
                    self.patience.note_piece()
                    self._outbox.post(self._protocol.consumed(stream, len(content)))

    # -- answering ----------------------------------------------------------------------------------------------------

    async def _answer(self, stream: int, message: Message, scope: trio.CancelScope) -> None:
        reply: Message = Failed(Failure.RETRYABLE, "", reason=Reason.CANCELLED)
        with scope:
            if isinstance(message, GetFile | GetDirectory | GetEntry) and self._outbox.is_full:
                await self._outbox.wait_for_room()  # the content would wait in memory
            reply = await self._reply(stream, message)
        del self._handlers[stream]
        self._credited.pop(stream, None)
        await self._outbox.wait_for_room()
        try:
            await self._send_reply(stream, reply)
        except Retryable as error:
            log.warning("reply-too-large peer=%s request=%s reason=%s", self.peer, type(message).__name__, error)
            await self._send_reply(stream, failed(error))
        self._counts["answered"] += 1
        if self.on_answered is not None:
            try:
                self.on_answered()
            except Exception:  # around one callback: its request was answered, and others must be
                log.exception("connection-callback-failed peer=%s", self.peer)

    async def _send_reply(self, stream: int, reply: Message) -> None:
        if frame := self._protocol.answer(stream, reply):
            self._outbox.post(frame)
        else:
            await self._outbox.post_parts(self._protocol.parts(stream, reply))

    async def _reply(self, stream: int, message: Message) -> Message:
        async def send_chunk(content: bytes) -> None:
            await self._send_chunk(stream, content)

        try:
            return await self._handler(self, message, send_chunk)
        except (FsError, Stale, Retryable, UserError) as error:
            return failed(error)
        except RemoteProtocolError as error:
            self._drop(error)
            return Failed(Failure.REFUSED, printable(str(error)), reason=Reason.BAD_ANSWER)
        except Exception as error:  # around one request: it fails, and all others go on
            log.exception("request-failed peer=%s request=%s", self.peer, type(message).__name__)
            return Failed(Failure.BUG, printable(f"{type(error).__name__}: {error}"))

    async def _send_chunk(self, stream: int, content: bytes) -> None:
        assert len(content) <= MAX_CHUNK_BYTES
        if not content:
            return
        while self._protocol.room(stream) < len(content):
            await self._credited.setdefault(stream, trio.lowlevel.ParkingLot()).park()
        await self._wait_for_backlog()
        self._outbox.post(self._protocol.chunk(stream, content))

    # -- the tasks of a connection ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the tasks of the connection until it is lost or closed; `joined` calls this."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._outbox.run)
                    nursery.start_soon(self._listen_for_silence)
                    await Leader(nursery, self._read).run()
        except* MemoryError:  # around one connection: its requests fail, and all others go on
            self._lose("no memory")
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _read(self, leader: Leader) -> None:
        try:
            while await leader.wait_turn():
                if self._events:
                    await self._take(self._events.popleft())
                elif received := await leader.listen(self._stream.receive_some, READ_BYTES):
                    self.silence.heard_s = trio.current_time()
                    if self.silence.is_pinged:
                        self.silence.note_answer()
                    self._counts["received_bytes"] += len(received)
                    pieces = self._protocol.pieces
                    self._events.extend(self._protocol.receive(bytes(received)))
                    if self._protocol.pieces != pieces or self._protocol.buffered_bytes > SHORT_BYTES:
                        self.patience.note_piece()
                else:
                    is_whole = not self._protocol.buffered_bytes
                    self._lose("closed" if is_whole else "closed in the middle of a message")
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(why_broken(error))
        except RemoteProtocolError as error:
            self._drop(error)

    async def _take(self, event: PeerEvent) -> None:
        match event:
            case Requested(stream=stream, message=Ping()):
                if self._outbox.backlog_bytes > MOST_UNREAD_BYTES:
                    raise RemoteProtocolError("more pings than it reads answers")
                self._outbox.post(self._protocol.answer(stream, Pong(time.time_ns())))
            case Requested(stream=stream, message=message):
                self.messages[type(message).__name__] += 1
                scope = self._handlers[stream] = trio.CancelScope()
                await self._answer(stream, message, scope)
            case Replied(stream=stream) | Chunked(stream=stream):
                if inbox := self._inboxes.get(stream):  # a ping of ours has none
                    inbox.put(event)
            case Credited(stream=stream):
                if waiting := self._credited.get(stream):
                    waiting.unpark_all()
            case Cancelled(stream=stream):
                if running := self._handlers.get(stream):
                    running.cancel()

    async def _listen_for_silence(self) -> None:
        await self.silence.run()
        self._lose(f"silent for {SILENCE_S + ANSWER_S:.0f} s")

    def _ping(self) -> None:
        try:
            self._outbox.post(self._protocol.ask(Ping(), chunks=False)[1])
        except ConnectionLost as error:
            self._lose(str(error))

    # -- sending and losing -------------------------------------------------------------------------------------------

    async def _wait_for_backlog(self) -> None:
        await self._outbox.wait_for_room()
        if self._loss:
            raise ConnectionLost(f"{self.peer}: {self._loss}")

    def _drop(self, error: RemoteProtocolError) -> None:
        log.warning("connection-dropped peer=%s reason=%s", self.peer, error)
        self._lose(f"dropped: {error}")

    def _lose(self, reason: str) -> None:
        if self._loss:
            return
        self._loss = reason
        self.lost.set()
        self._scope.cancel()
        for event in self._events:  # received before the loss, so their requests still succeed
            if isinstance(event, Replied | Chunked) and (inbox := self._inboxes.get(event.stream)):
                inbox.put(event)
        self._outbox.close()
        for inbox in self._inboxes.values():
            inbox.parked.unpark_all()

    async def close(self) -> None:
        """Send the queued frames, for at most FLUSH_S, and end the tasks; `joined` calls this."""
        with trio.move_on_after(FLUSH_S, shield=True):
            await self._outbox.wait_until_written()
        self._lose("closed by this side")


@asynccontextmanager
async def joined(stream: trio.abc.Stream, handler: Handler, *, client: bool, peer: str) -> AsyncIterator[Connection]:
    """Open a connection over a stream that is already secure, and close it afterwards.

    `client` is True on the side that connected. `peer` names the other side for people.
    """
    connection = Connection(stream, handler, client=client, peer=peer)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                yield connection
            finally:
                await connection.close()
    except BaseExceptionGroup as group:
        # The tasks of a connection raise no errors, so a single exception is that of the body.
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


@asynccontextmanager
async def dial(
    host: str, port: int, identity: Identity, handler: Handler, connect_s: float = CONNECT_S, name: str = SERVER_NAME
) -> AsyncIterator[Connection]:
    """Connect to a daemon within `connect_s`, and close the connection afterwards.

    Raise ConnectionLost if it does not answer, UserError if its certificate is not for `name`, and
    Retryable if this process has no descriptors or no memory left.
    """
    peer = f"{host}:{port}"
    socket = await connect_to(host, port, connect_s)
    async with _secured(socket, identity.client_context, name, handler, peer) as connection:
        yield connection


@asynccontextmanager
async def accepted(stream: trio.SocketStream, identity: Identity, handler: Handler) -> AsyncIterator[Connection]:
    """Serve a socket that was accepted, as the other end of `dial`, and close it afterwards.

    Raise the same errors as `dial`.
    """
    peer = peer_name(stream)
    async with _secured(stream, identity.server_context, None, handler, peer) as connection:
        yield connection


@asynccontextmanager
async def _secured(
    socket: trio.SocketStream, context: Callable[[], SSLContext], name: str | None, handler: Handler, peer: str
) -> AsyncIterator[Connection]:
    async with socket:
        try:
            secure = TlsStream(socket, context(), name)
            await secure.shake_hands(peer)
        except (OSError, MemoryError) as error:  # a key is read from a descriptor
            detail = error.strerror if isinstance(error, OSError) else "no memory"
            raise Retryable(Reason.NO_RESOURCES, f"{peer}: {detail}") from error
        async with joined(secure, handler, client=secure.is_client, peer=peer) as connection:
            yield connection
