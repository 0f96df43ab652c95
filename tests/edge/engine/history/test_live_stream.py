"""The live stream over a real socket: fast, slow, stopped and leaving readers, and bad ones."""

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.history.live_stream import LiveStream, open_live_stream
from termite.engine.history.logic.event_queue import QUEUE_BYTES
from termite.engine.history.logic.live_events import (
    Missed,
    QueueWaits,
    Snapshot,
    pack_event,
)
from termite.engine.wire.protocol import launcher_frames
from tests.live_master import serving
from tests.synthetic_builds import events_of, synthetic_build


async def until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not is_true():  # noqa: ASYNC110  the product has no event for that
            await trio.sleep(0.005)


async def test_a_reader_gets_the_present_state_and_then_every_event(tmp_path: Path) -> None:
    synthetic = synthetic_build(200)
    events = events_of(synthetic)[1:]
    async with serving(tmp_path / "socket") as master:
        for event in events[:100]:
            master.emit(event)
        async with open_live_stream(tmp_path / "socket") as stream:
            first = await anext(stream)
            assert first == master.snapshot()
            for event in events[100:]:
                master.emit(event)
            assert [await anext(stream) for _ in events[100:]] == events[100:]
        await until(lambda: not master.watchers.are_there)


async def test_the_stream_ends_when_the_master_ends(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving(tmp_path / "socket") as master:
            stream = await stack.enter_async_context(open_live_stream(tmp_path / "socket"))
            await anext(stream)
            master.emit(QueueWaits("a worker"))
            assert await stream.wait_for_events() == [QueueWaits("a worker")]
        assert [event async for event in stream] == []
        assert await stream.wait_for_events() == []


async def test_a_stopped_reader_stops_nobody_and_is_told_what_it_missed(tmp_path: Path) -> None:
    big = "x" * (QUEUE_BYTES // 20)
    async with serving(tmp_path / "socket") as master:
        async with open_live_stream(tmp_path / "socket") as stopped, open_live_stream(tmp_path / "socket") as other:
            await anext(stopped)
            await anext(other)
            emitted = 0
            with trio.fail_after(30):
                for _ in range(15):
                    for _ in range(10):
                        emitted += 1
                        master.emit(QueueWaits(f"{emitted}{big}"))
                    for _ in range(10):
                        assert isinstance(await anext(other), QueueWaits)
                events = [await anext(stopped)]
                while not isinstance(events[-1], Snapshot):
                    events.append(await anext(stopped))
            *read, missed, snapshot = events
            assert isinstance(missed, Missed) and isinstance(snapshot, Snapshot)
            assert snapshot.waits_for == f"{emitted}{big}"
            assert missed.count > 50
            assert len(read) + missed.count == emitted
            master.emit(QueueWaits("later"))
            assert await anext(stopped) == QueueWaits("later")
        await until(lambda: not master.watchers.are_there)


async def test_a_reader_that_leaves_without_reading_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as master:
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(str(tmp_path / "socket"))
            reader.sendall(launcher_frames.frame(launcher_frames.CONTROL, json.dumps({"command": "watch"}).encode()))
            await until(lambda: master.watchers.are_there)
            big = QueueWaits("x" * 100_000)
            for _ in range(8):
                master.emit(big)
            await trio.sleep(0.1)  # the socket is full now, and `serve` waits for the reader
        await until(lambda: not master.watchers.are_there)


@pytest.mark.logs("launcher-dropped")
async def test_a_reader_that_sends_more_is_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path / "socket") as master:
        stream = await trio.open_unix_socket(str(tmp_path / "socket"))
        watch = launcher_frames.frame(launcher_frames.CONTROL, json.dumps({"command": "watch"}).encode())
        await stream.send_all(watch + watch)
        events = [event async for event in LiveStream(stream)]
        assert len(events) <= 1
        await until(lambda: not master.watchers.are_there)
        await stream.aclose()


async def test_there_is_an_error_without_a_master_and_with_an_old_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no master listens"):
        async with open_live_stream(tmp_path / "socket"):
            pass
    ours, theirs = socket.socketpair()
    stream = LiveStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    answer = {"error": "unknown command 'watch'", "hint": "the master may have another version"}
    theirs.sendall(launcher_frames.frame(launcher_frames.ANSWER, json.dumps(answer).encode()))
    with pytest.raises(UserError, match="unknown command"):
        await anext(stream)
    theirs.sendall(launcher_frames.frame(launcher_frames.NOTICE, b"x"))
    with pytest.raises(RemoteProtocolError, match="in its stream"):
        await anext(stream)
    ours.close()
    theirs.close()


async def test_events_that_arrive_in_pieces_are_read_whole() -> None:
    events = events_of(synthetic_build(3))
    content = b"".join(launcher_frames.frame(launcher_frames.EVENT, pack_event(event)) for event in events)
    send, receive = trio.testing.memory_stream_one_way_pair()
    stream = LiveStream(receive)
    for at in range(0, len(content), 7):
        await send.send_all(content[at : at + 7])
    send.close()
    assert [event async for event in stream] == events
