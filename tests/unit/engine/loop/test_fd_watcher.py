"""Tests of the task that waits for many descriptors."""

import os
import socket

import pytest
import trio
import trio.testing

from termite.engine.loop.fd_watcher import FdWatcher


async def test_a_readable_descriptor_is_reported_until_it_is_unwatched(nursery: trio.Nursery) -> None:
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
        fd_watcher.unwatch(ours.fileno())
        fd_watcher.unwatch(ours.fileno())
        theirs.send(b"c")
        await trio.testing.wait_all_tasks_blocked(0.01)
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
        await trio.testing.wait_all_tasks_blocked(0.01)
        os.eventfd_write(good, 1)
        with trio.fail_after(10):
            await heard.wait()
    finally:
        os.close(bad)
        os.close(good)
    assert caplog.text.count("fd-call-failed") == 1


async def test_a_descriptor_that_another_call_has_closed_and_opened_again_is_not_called(nursery: trio.Nursery) -> None:
    """Test two ready descriptors: the first call closes the other, whose number is reused."""
    fd_watcher, calls = FdWatcher(), list[str]()
    first, second = os.eventfd(1), os.eventfd(1)
    opened: list[int] = []

    def close_other(name: str, other: int) -> None:
        calls.append(name)
        for fd in (first, second):
            fd_watcher.unwatch(fd)
        os.close(other)
        opened.append(os.eventfd(0))
        assert opened == [other]
        fd_watcher.watch(other, lambda: calls.append("new"))

    fd_watcher.watch(first, lambda: close_other("first", second))
    fd_watcher.watch(second, lambda: close_other("second", first))
    nursery.start_soon(fd_watcher.run)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(calls) == 1
    for fd in (first, second):
        os.close(fd)
