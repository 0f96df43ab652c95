"""Test when a connection is pinged, when its other side counts as silent, and when it is lost."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from termite.engine.errors import ConnectionLost
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import Done, GetDirectory, Ping, Pong
from termite.engine.wire.protocol.peer import Peer, Requested
from termite.engine.wire.silence_watch import (
    ANSWER_S,
    CLOSE_ANSWER_S,
    CLOSE_SILENCE_S,
    OVERSLEPT_S,
    SILENCE_S,
    LinkProgress,
    SilenceWatch,
    WatchedLine,
)
from termite.engine.wire.transport import Connection, SendChunk, joined

SILENT_AFTER_S = CLOSE_SILENCE_S + CLOSE_ANSWER_S


class OtherSide:
    """The other end of a connection, which answers pings while `answers` is set."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.answers = True
        self.pings: list[float] = []
        self._stream = stream
        self._peer = Peer(client=False)
        self._waiting: list[int] = []

    async def run(self) -> None:
        async for received in self._stream:
            for event in self._peer.receive(bytes(received)):
                match event:
                    case Requested(stream=stream, message=Ping()):
                        self.pings.append(trio.current_time())
                        if self.answers:
                            await self._stream.send_all(self._peer.answer(stream, Pong(time.time_ns())))
                    case Requested(stream=stream):
                        self._waiting.append(stream)

    async def finish(self) -> None:
        """Answer the oldest request."""
        await self._stream.send_all(self._peer.answer(self._waiting.pop(0), Done()))


async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Connection, OtherSide]]:
    """Yield a connection that is watched closely, and its other side."""
    ours, theirs = memory_stream_pair()
    other = OtherSide(theirs)
    async with joined(ours, refuse, client=True, peer="worker") as connection, trio.open_nursery() as nursery:
        connection.silence.watch_closely()
        nursery.start_soon(other.run)
        yield connection, other
        nursery.cancel_scope.cancel()


async def ask(connection: Connection) -> None:
    await connection.request(GetDirectory(b""))


async def test_a_side_that_answers_pings_is_never_silent(autojump_clock: MockClock) -> None:
    async with watched() as (connection, other), trio.open_nursery() as nursery:
        nursery.start_soon(ask, connection)
        await trio.sleep(60.5 * CLOSE_SILENCE_S)
        assert len(other.pings) == 60
        assert not connection.silence.is_silent
        await other.finish()


async def test_bytes_that_come_make_pings_unnecessary(autojump_clock: MockClock) -> None:
    async with watched() as (connection, other), trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, connection)
        await wait_all_tasks_blocked()
        for _ in range(10):
            await trio.sleep(0.9 * CLOSE_SILENCE_S)
            await other.finish()
    assert other.pings == []


async def test_without_a_request_it_is_pinged_as_seldom_as_any_other(autojump_clock: MockClock) -> None:
    async with watched() as (connection, other):
        other.answers = False
        await trio.sleep(SILENCE_S + CLOSE_ANSWER_S + 1)
        assert len(other.pings) == 1
        assert not connection.silence.is_silent


@pytest.mark.parametrize("idle_s", [0.0, 0.5, 5.0, SILENCE_S + 1])
async def test_a_side_that_does_not_answer_is_silent_from_the_third_second_until_its_next_byte(
    autojump_clock: MockClock, idle_s: float
) -> None:
    async with watched() as (connection, other), trio.open_nursery() as nursery:
        await trio.sleep(idle_s)
        other.answers = False
        began = trio.current_time()
        nursery.start_soon(ask, connection)
        await connection.silence.wait_change()
        assert connection.silence.is_silent
        assert SILENT_AFTER_S - 0.6 <= trio.current_time() - began <= SILENT_AFTER_S
        await trio.sleep(SILENT_AFTER_S)
        nursery.start_soon(other.finish)
        await connection.silence.wait_change()
        assert not connection.silence.is_silent


async def test_a_silent_side_is_lost_after_the_same_time_as_any_other(autojump_clock: MockClock) -> None:
    async with watched() as (connection, other):
        other.answers = False
        began = trio.current_time()
        with pytest.raises(ConnectionLost, match="silent"):
            await ask(connection)
        assert trio.current_time() - began == pytest.approx(SILENCE_S + ANSWER_S, abs=2)


async def test_silence_in_which_this_process_stood_still_does_not_count(mock_clock: MockClock) -> None:
    pings = 0

    def ping() -> None:
        nonlocal pings
        pings += 1

    watch = SilenceWatch(WatchedLine(lambda: True, ping, LinkProgress))
    watch.watch_closely()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await wait_all_tasks_blocked()
        for _ in range(5):  # each time the process is stopped amid its waiting for an answer
            mock_clock.jump(CLOSE_SILENCE_S)
            await wait_all_tasks_blocked()
            mock_clock.jump(ANSWER_S + SILENCE_S + OVERSLEPT_S)
            await wait_all_tasks_blocked()
            assert not watch.is_silent
        assert pings == 5
        nursery.cancel_scope.cancel()


async def test_a_link_that_still_moves_bytes_is_slow_and_not_silent(autojump_clock: MockClock) -> None:
    taken = 0

    def progress() -> LinkProgress:
        nonlocal taken
        taken += 1
        return LinkProgress(min(taken, 40), 0, is_under_way=True)

    watch = SilenceWatch(WatchedLine(lambda: True, lambda: None, progress))
    watch.watch_closely()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await watch.wait_change()
        assert watch.is_silent
        assert trio.current_time() - began > 10 * SILENT_AFTER_S
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("now", "is_beyond"),
    [
        (LinkProgress(10, 5, is_under_way=True), False),
        (LinkProgress(11, 5, is_under_way=True), True),
        (LinkProgress(11, 5, is_under_way=False), False),
        (LinkProgress(10, 6, is_under_way=False), True),
    ],
)
def test_bytes_that_a_kernel_takes_count_while_others_wait(now: LinkProgress, is_beyond: bool) -> None:
    assert now.is_beyond(LinkProgress(10, 5, is_under_way=True)) is is_beyond
