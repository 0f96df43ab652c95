"""Connections to a daemon in the same process."""

import errno
from contextlib import suppress

import pytest
import trio
import trio.testing

from termite.engine.errors import ConnectionLost, UserError
from termite.engine.wire import wire_calls
from termite.engine.wire.addresses import BACKLOG, INPROC, connect_to, listen, peer_name, port_of
from termite.engine.wire.strangers import HERE, source_of

NAME = f"{INPROC}test"


async def test_bytes_go_both_ways_and_an_end_is_seen() -> None:
    (listener,) = listeners = await listen(NAME, 0, "test")
    near = await connect_to(NAME, 0)
    far = await listener.accept()
    assert (port_of(listeners), peer_name(near), source_of(far)) == (0, HERE, HERE)
    await near.send_all(b"there")
    assert await far.receive_some() == b"there"
    await far.send_all(b"back")
    assert await near.receive_some() == b"back"
    await far.aclose()
    assert await near.receive_some() == b""
    await near.aclose()
    await listener.aclose()


async def test_a_closed_listener_refuses_and_ends_what_nobody_has_accepted() -> None:
    (listener,) = await listen(NAME, 0, "test")
    waiting = [await connect_to(NAME, 0) for _ in range(BACKLOG)]
    with pytest.raises(ConnectionLost, match="no connection"):
        await connect_to(NAME, 0, limit_s=0.01)
    async with trio.open_nursery() as nursery:

        async def late() -> None:
            waiting.append(await connect_to(NAME, 0))

        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    for stream in waiting:
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        await stream.aclose()
    with pytest.raises(ConnectionLost, match="refused"):
        await connect_to(NAME, 0)
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_name_is_taken_once_and_is_free_again_after_it() -> None:
    (listener,) = await listen(NAME, 0, "test")
    with pytest.raises(UserError, match="in use"):
        await listen(NAME, 0, "test")
    await listener.aclose()
    (again,) = await listen(NAME, 0, "test")
    await listener.aclose()  # a second time: it is no longer the one of this name
    near = await connect_to(NAME, 0)
    await near.aclose()
    await again.aclose()


async def test_a_process_without_descriptors_refuses_and_serves_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    (listener,) = await listen(NAME, 0, "test")
    with monkeypatch.context() as patch:
        patch.setattr(wire_calls, "socketpair", none_left)
        with pytest.raises(ConnectionLost, match="Too many open files"):
            await connect_to(NAME, 0)
    near = await connect_to(NAME, 0)
    await (await listener.accept()).aclose()
    await near.aclose()
    await listener.aclose()
