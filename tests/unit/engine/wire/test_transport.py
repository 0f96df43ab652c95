"""Test requests, replies, cancellations and a loss between two ends of a connection in memory."""

import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from termite.engine.errors import (
    ConnectionLost,
    FsError,
    Reason,
    RemoteBug,
    RemoteProtocolError,
    Retryable,
    Stale,
    TermiteError,
    UserError,
)
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.paths import PATH_BYTES
from termite.engine.wire import transport
from termite.engine.wire.mailboxes import BACKLOG_BYTES
from termite.engine.wire.protocol.failure_replies import Failed, Failure
from termite.engine.wire.protocol.frames import MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    Directory,
    Done,
    GetBlob,
    GetDirectory,
    GetEntry,
    GetFile,
    Ping,
    Pong,
    ReadStdin,
    Run,
    StdinBytes,
)
from termite.engine.wire.protocol.peer import WINDOW_BYTES, Peer
from termite.engine.wire.silence_watch import ANSWER_S, SILENCE_S
from termite.engine.wire.transport import Connection, Handler, SendChunk, joined

Both = tuple[Connection, Connection]


async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


@asynccontextmanager
async def connected(handler: Handler, client_handler: Handler = refuse) -> AsyncIterator[Both]:
    ours, theirs = memory_stream_pair()
    async with (
        joined(ours, client_handler, client=True, peer="server") as client,
        joined(theirs, handler, client=False, peer="client") as server,
    ):
        yield client, server


async def echo(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    assert isinstance(message, ReadStdin)
    return StdinBytes(b"x" * message.size)


def raising(error: Exception) -> Handler:
    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        raise error

    return handler


async def test_a_request_gets_its_reply() -> None:
    async with connected(echo) as (client, _):
        assert await client.request(ReadStdin(1, 5)) == StdinBytes(b"xxxxx")


async def test_many_requests_are_answered_at_once_and_not_mixed_up() -> None:
    running = 0
    all_here = trio.Event()

    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        nonlocal running
        running += 1
        if running == 50:
            all_here.set()
        await all_here.wait()
        return await echo(connection, message, send_chunk)

    async with connected(handler) as (client, _), trio.open_nursery() as nursery:
        for size in range(50):
            nursery.start_soon(expect, client.request, ReadStdin(1, size), StdinBytes(b"x" * size))


async def expect(request: Callable[[Message], Awaitable[Message]], message: Message, reply: Message) -> None:
    assert await request(message) == reply


async def test_a_handler_may_ask_back_on_the_same_connection() -> None:
    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        return await connection.request(ReadStdin(1, 3))

    async with connected(handler, echo) as (client, _):
        assert await client.request(GetDirectory(b"")) == StdinBytes(b"xxx")


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (FsError(13, b"secret/path"), FsError),
        (Stale("changed"), Stale),
        (Retryable(Reason.DISK_FULL, "disk full"), Retryable),
        (ConnectionLost("elsewhere"), Retryable),
        (UserError("wrong version", hint="upgrade"), UserError),
    ],
)
async def test_an_error_of_the_handler_is_raised_where_it_was_asked(
    raised: TermiteError, seen: type[TermiteError]
) -> None:
    async with connected(raising(raised)) as (client, _):
        with pytest.raises(seen) as caught:
            await client.request(GetDirectory(b""))
    assert type(caught.value) is seen
    assert getattr(caught.value, "reason", None) is getattr(raised, "reason", None)
    assert not isinstance(raised, FsError) or caught.value.errno == 13  # type: ignore[attr-defined]  # an FsError then


async def test_a_bug_of_the_handler_is_logged_there_and_retryable_here(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(raising(ZeroDivisionError("oops"))) as (client, _):
        with pytest.raises(RemoteBug, match="ZeroDivisionError: oops"):
            await client.request(GetDirectory(b""))
        with pytest.raises(RemoteBug):
            await client.request(GetDirectory(b""))  # and the connection lives
    assert "Traceback" in caplog.text


async def test_a_request_that_must_not_be_made_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(raising(RemoteProtocolError("not you"))) as (client, server):
        with pytest.raises(ConnectionLost):
            await client.request(GetDirectory(b""))
        assert server.lost.is_set()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def send_three(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    for content in (b"one", b"", b"two", b"three"):
        await send_chunk(content)
    return Done()


async def test_chunks_come_in_order_and_before_the_reply() -> None:
    chunks: list[bytes] = []

    async def keep(content: bytes) -> None:
        await trio.lowlevel.checkpoint()
        chunks.append(content)

    async with connected(send_three) as (client, _):
        assert await client.request(GetBlob(Digest(b"?" * 32, 11)), keep) == Done()
    assert chunks == [b"one", b"two", b"three"]


async def test_a_slow_reader_stops_the_sender_and_nobody_else() -> None:
    sent = 0

    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        nonlocal sent
        if isinstance(message, ReadStdin):
            return await echo(connection, message, send_chunk)
        for _ in range(16):
            await send_chunk(b"x" * MAX_CHUNK_BYTES)
            sent += MAX_CHUNK_BYTES
        return Done()

    may_read = trio.Event()
    received = 0

    async def slow(content: bytes) -> None:
        nonlocal received
        await may_read.wait()
        received += len(content)

    async with connected(handler) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.request, GetBlob(Digest(b"?" * 32, 1)), slow)
        await wait_all_tasks_blocked()
        assert sent == WINDOW_BYTES
        assert await client.request(ReadStdin(1, 2)) == StdinBytes(b"xx")
        may_read.set()
    assert received == sent == 16 * MAX_CHUNK_BYTES


async def test_an_error_in_on_chunk_cancels_the_request() -> None:
    async def fail(content: bytes) -> None:
        raise OSError("disk full")

    cancelled = trio.Event()
    async with connected(blocking(cancelled, b"x")) as (client, _):
        with pytest.raises(OSError, match="disk full"):
            await client.request(GetBlob(Digest(b"?" * 32, 1)), fail)
        await cancelled.wait()


def blocking(cancelled: trio.Event, chunk: bytes = b"") -> Handler:
    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        await send_chunk(chunk)
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError("not reached")

    return handler


async def test_being_cancelled_cancels_the_handler_there() -> None:
    cancelled = trio.Event()
    async with connected(blocking(cancelled)) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, GetDirectory(b""))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await cancelled.wait()
        await wait_all_tasks_blocked()
        assert client.statistics()["asking"] == server.statistics()["answering"] == 0


async def test_a_request_cancelled_before_its_handler_started_is_harmless() -> None:
    async with connected(echo) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, ReadStdin(1, 1))
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert await client.request(ReadStdin(1, 1)) == StdinBytes(b"x")
        assert server.statistics()["answering"] == 0


async def test_a_request_may_take_only_so_long(autojump_clock: MockClock) -> None:
    cancelled = trio.Event()
    async with connected(blocking(cancelled)) as (client, _):
        with pytest.raises(Retryable, match="no answer in time: server, GetDirectory in 3 s"):
            await client.request(GetDirectory(b""), timeout_s=3)
        await cancelled.wait()


async def test_a_lost_connection_fails_requests_and_cancels_handlers() -> None:
    cancelled = trio.Event()
    ours, theirs = memory_stream_pair()
    async with joined(theirs, blocking(cancelled), client=False, peer="client") as server:
        async with joined(ours, refuse, client=True, peer="server") as client, trio.open_nursery() as nursery:
            nursery.start_soon(expect_lost, client)
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(theirs)
        await server.lost.wait()
        await cancelled.wait()
        with pytest.raises(ConnectionLost):
            await server.request(Ping())


async def expect_lost(client: Connection) -> None:
    with pytest.raises(ConnectionLost):
        await client.request(GetDirectory(b""))
    assert client.lost.is_set()


async def test_last_words_are_sent_before_the_connection_closes() -> None:
    ours, theirs = memory_stream_pair()
    async with joined(ours, refuse, client=True, peer="server") as client, trio.open_nursery() as nursery:
        nursery.start_soon(expect, client.request, ReadStdin(1, 4), StdinBytes(b"xxxx"))
        async with joined(theirs, echo, client=False, peer="client"):
            await wait_all_tasks_blocked()


async def test_rubbish_drops_that_connection_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = memory_stream_pair()
    async with joined(theirs, echo, client=False, peer="somebody") as server:
        await ours.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await server.lost.wait()
    assert [(record.levelno, "somebody" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


async def test_a_reply_that_does_not_fit_fails_that_request_only(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(echo) as (client, _):
        with pytest.raises(Retryable, match="too large"):
            await client.request(ReadStdin(1, MAX_MESSAGE_BYTES))
        assert await client.request(ReadStdin(1, 1)) == StdinBytes(b"x")
    assert "reply-too-large" in caplog.text


@pytest.mark.logs("reply-too-large")
async def test_a_file_dated_after_2554_fails_the_request_that_tells_of_it_only() -> None:
    """A job makes such a file with touch, if the file system allows it."""
    odd = Directory(1, Attr(0o40755, 0, 2**64), {})

    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        return odd if isinstance(message, GetDirectory) else await echo(connection, message, send_chunk)

    async with connected(handler) as (client, server):
        with pytest.raises(Retryable) as caught:
            await client.request(GetDirectory(b""))
        assert caught.value.reason is Reason.TOO_LARGE
        with pytest.raises(Retryable):
            await client.request(GetFile(b"f", 1, 2**64))
        assert await client.request(ReadStdin(1, 1)) == StdinBytes(b"x")
        assert client.statistics()["asking"] == server.statistics()["answering"] == 0


@pytest.mark.parametrize(
    "error", [UserError, Stale, pytest.param(ZeroDivisionError, marks=pytest.mark.logs("request-failed"))]
)
async def test_what_the_other_side_says_of_an_error_cannot_pass_for_lines_of_ours(error: type[Exception]) -> None:
    async with connected(raising(error("a\nb \x1b[2J \udce9" + "x" * 10_000))) as (client, _):
        with pytest.raises(TermiteError) as caught:
            await client.request(GetDirectory(b""))
        assert "a\\nb \\x1b[2J \\xe9".replace("\\n", "\\x0a") in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", [Failure.REFUSED, Failure.STALE, Failure.BUG, Failure.RETRYABLE])
async def test_a_hostile_sides_error_text_is_escaped_here(kind: Failure) -> None:
    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        return Failed(kind, "a\nb \x1b[2J" + "x" * 10_000)

    async with connected(handler) as (client, _):
        with pytest.raises(TermiteError) as caught:
            await client.request(GetDirectory(b""))
    assert "a\\x0ab \\x1b[2J" in str(caught.value)
    assert len(str(caught.value)) < 1000


async def test_an_error_of_the_file_system_without_a_number_is_an_error() -> None:
    async with connected(raising(FsError(0))) as (client, _):
        with pytest.raises(FsError) as caught:
            await client.request(GetDirectory(b""))
    assert caught.value.errno == errno.EIO


async def test_pings_are_answered_without_the_handler() -> None:
    async with connected(refuse) as (client, _):
        assert isinstance(await client.request(Ping()), Pong)


async def test_a_silent_connection_is_pinged_and_lives(autojump_clock: MockClock) -> None:
    async with connected(echo) as (client, server):
        await trio.sleep(300)
        assert not client.lost.is_set()
        assert not server.lost.is_set()
        assert client.statistics()["received_bytes"] > 0


async def test_a_connection_that_answers_nothing_is_lost_after_its_time(autojump_clock: MockClock) -> None:
    ours, _theirs = memory_stream_pair()
    began = trio.current_time()
    async with joined(ours, refuse, client=True, peer="server") as client:
        with pytest.raises(ConnectionLost, match="silent"):
            await client.request(GetDirectory(b""))
    assert trio.current_time() - began == pytest.approx(SILENCE_S + ANSWER_S, abs=2)


async def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    with pytest.raises(FsError):
        async with connected(echo):
            raise FsError(2)


async def test_a_cancelled_body_ends_quietly(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with connected(echo):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_small_messages_that_are_ready_together_go_out_in_one_write() -> None:
    async with connected(echo) as (client, server), trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(client.request, ReadStdin(1, 1))
        await wait_all_tasks_blocked()
        assert client.statistics()["writes"] == 1
        assert server.statistics()["answered"] == 30


async def test_what_can_wait_is_done_when_the_answer_is_on_its_way() -> None:
    done: list[int] = []
    async with connected(echo) as (client, server):
        server.on_answered = lambda: done.append(server.statistics()["sent_bytes"])
        await client.request(ReadStdin(1, 100))
        assert len(done) == 1
        assert done[0] > 100


async def test_an_error_in_what_can_wait_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(echo) as (client, server):
        server.on_answered = lambda: [][0]
        for _ in range(2):
            assert await client.request(ReadStdin(1, 1)) == StdinBytes(b"x")
    assert caplog.text.count("connection-callback-failed") == 2


WIDE = Directory(1, Attr(0o40755, 0, 1), {b"%06d" % number: Attr(0o100644, 1, 1) for number in range(50_000)})
LONG_RUN = Run(1, 1, (), (b"word" * 100,) * 20_000, b"cc", True, (), b"/", 0o22, False, False)


async def wide(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    return WIDE if isinstance(message, GetDirectory) else await echo(connection, message, send_chunk)


async def test_small_requests_are_answered_while_a_large_reply_comes() -> None:
    answered: list[str] = []
    async with connected(wide) as (client, server), trio.open_nursery() as nursery:

        async def get() -> None:
            assert await client.request(GetDirectory(b"")) == WIDE
            answered.append("directory")

        nursery.start_soon(get)
        while not server.statistics()["sent_bytes"]:
            await trio.lowlevel.checkpoint()
        assert await client.request(ReadStdin(1, 1)) == StdinBytes(b"x")
        answered.append("stdin")
    assert answered == ["stdin", "directory"]


async def test_what_is_sent_when_a_large_request_is_posted_comes_after_it() -> None:
    came: list[str] = []

    async def note(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        came.append(type(message).__name__)
        return StdinBytes(b"")

    posted = trio.Event()
    async with connected(note) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.request(LONG_RUN, on_posted=posted.set))
        await posted.wait()
        await client.request(ReadStdin(1, 1))
    assert came == ["Run", "ReadStdin"]


async def test_two_large_replies_come_one_after_the_other() -> None:
    async with connected(wide) as (client, _), trio.open_nursery() as nursery:

        async def get() -> None:
            assert await client.request(GetDirectory(b"")) == WIDE

        nursery.start_soon(get)
        nursery.start_soon(get)


async def test_a_large_request_that_is_cancelled_halfway_leaves_the_connection_as_it_was() -> None:
    async with connected(echo) as (client, server):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.request, LONG_RUN)
                while client.statistics()["sent_bytes"] < 500_000:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert await client.request(ReadStdin(1, 1)) == StdinBytes(b"x")
        assert client.statistics()["asking"] == server.statistics()["answering"] == 0


async def test_a_connection_that_is_lost_between_two_parts_fails_the_request() -> None:
    async with connected(echo) as (client, server), trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(ConnectionLost):
                await client.request(LONG_RUN)

        nursery.start_soon(run)
        while not client.statistics()["sent_bytes"]:
            await trio.lowlevel.checkpoint()
        await server.close()


@asynccontextmanager
async def flooded(handler: Handler, flood: bytes) -> AsyncIterator[Connection]:
    """Open a connection whose other side sends these bytes, and never reads."""
    theirs, ours = lockstep_stream_pair()
    async with joined(ours, handler, client=False, peer="flooder") as server, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await theirs.send_all(flood)

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        yield server
        nursery.cancel_scope.cancel()


def requests(message: Message, count: int) -> bytes:
    peer = Peer(client=True)
    return b"".join(peer.ask(message, chunks=False)[1] for _ in range(count))


@pytest.mark.logs("connection-dropped")
async def test_who_sends_pings_and_reads_no_answers_is_dropped(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with flooded(refuse, requests(Ping(), 9000)) as server:
        assert not server.lost.is_set(), "an honest side may be slow"
    monkeypatch.setattr(transport, "MOST_UNREAD_BYTES", limit := 100_000)  # two megabytes take a second
    async with flooded(refuse, requests(Ping(), 2 * limit // 20)) as server:
        assert server.lost.is_set()
        assert server.statistics()["backlog_bytes"] < limit + 100


@pytest.mark.parametrize("message", [GetFile(b"a", 1, 1), GetDirectory(b"a"), GetEntry(b"a")])
async def test_no_content_is_read_for_who_reads_no_answers(autojump_clock: MockClock, message: Message) -> None:
    made = 0

    async def handler(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        nonlocal made
        made += 1
        return StdinBytes(b"x" * 64 * 1024)

    async with flooded(handler, requests(message, 100)) as server:
        assert not server.lost.is_set()
        assert made <= BACKLOG_BYTES // (64 * 1024) + 3


@pytest.mark.parametrize("kind", [GetDirectory, GetEntry, lambda path: GetFile(path, 1, 1)])
def test_a_path_of_a_request_has_an_end(kind: Callable[[bytes], Message]) -> None:
    for length, is_good in ((2 * PATH_BYTES, True), (2 * PATH_BYTES + 1, False)):
        peer = Peer(client=False)
        said = requests(kind(b"x" * length), 1)
        if is_good:
            assert len(list(peer.receive(said))) == 1
        else:
            with pytest.raises(RemoteProtocolError):
                list(peer.receive(said))


def large_directory() -> Directory:
    return Directory(1, Attr(0o040755, 0, 0), {b"%06d" % number: Attr(0o100644, 1, 0) for number in range(5000)})


def pieces_of(peer: Peer, stream: int, what: str) -> list[bytes]:
    """Return what a slow side sends piece by piece, without the last piece of the answer."""
    match what:
        case "parts of a reply":
            return list(peer.parts(stream, large_directory()))[:-1]
        case "parts of a request":
            changes = (Change(b"a/b", None),) * 4
            run = Run(1, 2, (Changeset(1, changes),) * 2000, (b"cc",), b"cc", True, (), b"/", 0o22, False, False)
            return list(peer.parts(peer.ask(run, chunks=True)[0], run))[:-1]
        case "bytes of one message":
            frame = peer.answer(stream, Directory(1, Attr(0o040755, 0, 0), {b"x" * 200: Attr(0o100644, 1, 0)}))
            return [frame[:100], frame[100:101], frame[101:102], frame[102:103]]
        case "chunks":
            return [peer.chunk(stream, b"c" * 10) for _ in range(4)]
    return [peer.ask(Ping(), chunks=False)[1] for _ in range(4)]


@pytest.mark.parametrize(
    ("what", "moves"),
    [
        ("parts of a reply", True),
        ("parts of a request", True),
        ("bytes of one message", True),
        ("chunks", True),
        ("pings", False),
    ],
)
async def test_a_deadline_of_silence_counts_pieces_and_no_pings(
    autojump_clock: MockClock, what: str, moves: bool
) -> None:
    async def take(chunk: bytes) -> None:
        pass

    ours, theirs = memory_stream_pair()
    peer, pause_s, silence_s = Peer(client=False), 3.0, 5.0
    async with joined(ours, refuse, client=True, peer="server") as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.request, GetFile(b"f", 1, 1), take)
        (event,) = list(peer.receive(bytes(await theirs.receive_some())))
        pieces = pieces_of(peer, event.stream, what)
        assert len(pieces) >= 4

        async def send() -> None:
            for piece in pieces:
                await trio.sleep(pause_s)
                await theirs.send_all(piece)

        nursery.start_soon(send)
        with client.patience.within(silence_s) as waited:
            await trio.sleep_forever()
        assert waited.cancelled_caught
        assert trio.current_time() == pytest.approx((len(pieces) * pause_s if moves else 0) + silence_s)
        nursery.cancel_scope.cancel()
