"""Test that held output is shown before a plan is written, and that nobody waits for its reader."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing

from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import JobRequest, OutputKind
from termite.engine.launch.output import HeldOutputs, JobOutput
from termite.engine.wire.protocol import launcher_frames

LARGE_BYTES = 4 * 1024 * 1024  # more than a socket takes


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def output_to(connection: socket.socket) -> JobOutput:
    request = SimpleNamespace(out=OutputKind.COLLECTED, err=OutputKind.COLLECTED, is_stdin_terminal=False)
    return JobOutput(Launcher(connection), cast(JobRequest, request), HeldOutputs())


async def test_output_that_fits_is_shown_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    output = output_to(ends[0])
    assert output.show_held_nowait(), "there is none"
    await output.forward(b"1text")
    assert output.show_held_nowait() and output.has_shown
    assert ends[1].recv(99) == launcher_frames.frame(launcher_frames.STDOUT, b"text")


@pytest.mark.parametrize("is_released", [False, True], ids=["held", "released before"])
async def test_output_that_does_not_fit_is_left_to_somebody_who_can_wait(
    ends: tuple[socket.socket, socket.socket], is_released: bool
) -> None:
    output, received = output_to(ends[0]), bytearray()
    output.hold(1, b"x" * LARGE_BYTES)
    if is_released:  # by the timer of held outputs, which does not wait either
        assert not output.release_due()
    assert not output.show_held_nowait() and not output.show_held_nowait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.launcher.push)
        await trio.testing.wait_all_tasks_blocked()
        assert not output.show_held_nowait(), "another task sends it, and is not done"
        ends[1].setblocking(False)
        while len(received) < LARGE_BYTES:
            await trio.lowlevel.wait_readable(ends[1])
            received += ends[1].recv(LARGE_BYTES)
    assert output.show_held_nowait()
    assert received == launcher_frames.frame(launcher_frames.STDOUT, b"x" * LARGE_BYTES)
