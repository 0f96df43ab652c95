"""One task that waits for many descriptors."""

import os
import socket

import pytest
import trio

from termite.engine.loop.fd_watcher import FdWatcher


async def test_what_can_be_read_is_told_until_it_is_forgotten(nursery: trio.Nursery) -> None:
    fd_watcher, heard, both = FdWatcher(), list[bytes](), trio.Event()
    nursery.start_soon(fd_watcher.run)
    ours, theirs = socket.socketpair()

    def hear() -> None:
        heard.append(ours.recv(1))
        if len(heard) == 2:
            both.set()

    with ours, theirs:
        fd_watcher.watch(ours.fileno(), hear)
        theirs.send(b"ab")
        with trio.fail_after(10):
            await both.wait()
        fd_watcher.forget(ours.fileno())
        fd_watcher.forget(ours.fileno())
        theirs.send(b"c")
        await trio.sleep(0.05)
    assert heard == [b"a", b"b"]


async def test_an_error_ends_its_own_descriptor_only(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    fd_watcher, heard = FdWatcher(), trio.Event()
    nursery.start_soon(fd_watcher.run)
    bad, good = os.eventfd(1), os.eventfd(0)

    def hear() -> None:
        os.eventfd_read(good)
        heard.set()

    try:
        fd_watcher.watch(bad, lambda: [][0])
        fd_watcher.watch(good, hear)
        await trio.sleep(0.05)
        os.eventfd_write(good, 1)
        with trio.fail_after(10):
            await heard.wait()
    finally:
        os.close(bad)
        os.close(good)
    assert caplog.text.count("fd-call-failed") == 1


async def test_a_descriptor_that_another_call_has_closed_and_opened_again_is_not_called(nursery: trio.Nursery) -> None:
    """Both are ready at once; whichever is called first closes the other, whose number the next one gets."""
    fd_watcher, calls = FdWatcher(), list[str]()
    first, second = os.eventfd(1), os.eventfd(1)
    opened: list[int] = []

    def close_other(name: str, other: int) -> None:
        calls.append(name)
        for fd in (first, second):
            fd_watcher.forget(fd)
        os.close(other)
        opened.append(os.eventfd(0))
        assert opened == [other]
        fd_watcher.watch(other, lambda: calls.append("new"))

    fd_watcher.watch(first, lambda: close_other("first", second))
    fd_watcher.watch(second, lambda: close_other("second", first))
    nursery.start_soon(fd_watcher.run)
    await trio.sleep(0.05)
    assert len(calls) == 1
    for fd in (first, second):
        os.close(fd)
