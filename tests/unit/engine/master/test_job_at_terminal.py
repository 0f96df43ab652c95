"""The sizes of a window are sent behind the command whose window it is: before, nobody knows it."""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import trio
from trio.testing import MockClock

from termite.engine.fleet.lease import Lease
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import JobRequest
from termite.engine.launch.job_stdin import JobStdin
from termite.engine.launch.output import JobOutput
from termite.engine.master.job import Job, run_at_terminal
from termite.engine.model import Exit, TerminalWish, Usage, WindowSize
from termite.engine.wire.protocol.messages import Ran, Run, UseTerminal


class SlowLease:
    """A lease whose connection is busy: a command has to wait until it is sent."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    async def run(
        self, message: Run, on_chunk: Callable[[bytes], Awaitable[None]], on_posted: Callable[[], None]
    ) -> Ran:
        await trio.sleep(1)
        self.sent.append(message)
        on_posted()
        await trio.sleep(1)
        return Ran(Exit(0), Usage(), (), {}, 1, 2)

    async def use_terminal(self, message: UseTerminal) -> None:
        self.sent.append(message.size)


def job_at_terminal() -> Job:
    output = cast(JobOutput, SimpleNamespace(forward=None))
    job = Job(1, cast(Launcher, None), cast(JobRequest, None), output, cast(JobStdin, None))
    job.terminal = TerminalWish(WindowSize(24, 80, 0, 0), True, True, True)
    job.resized, job.posted = trio.Event(), trio.Event()
    return job


async def test_a_size_is_sent_behind_its_command_in_every_attempt(autojump_clock: MockClock) -> None:
    lease, job = SlowLease(), job_at_terminal()
    for rows in (11, 12):
        message = cast(Run, f"attempt {rows}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_at_terminal, job, cast(Lease, lease), message)
            await trio.sleep(0.5)
            job.resize(WindowSize(rows, 80, 0, 0))
        assert lease.sent == [message, WindowSize(rows, 80, 0, 0)]
        lease.sent.clear()
