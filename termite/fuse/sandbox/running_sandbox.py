"""Follow one job in its sandbox: send the order, forward the output, and end or kill the job.

Output is read only as fast as `on_output` takes it. A full pipe then stops the job, as it would on
the master's machine.
"""

import contextlib
import errno
import logging
import math
import os
import select
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from termite.engine.errors import Reason, Retryable
from termite.fuse import mirror_calls
from termite.fuse.job_terminal import JobTerminal
from termite.fuse.sandbox.sandbox_order import LARGE_ORDER, MAX_MESSAGE_BYTES, SandboxSpec, pack_order
from termite.fuse.sandbox.sandbox_report import REPORT_BYTES, parse_report
from termite.fuse.sandbox.spawner import WaitingSandbox, receive_last, receive_with_fds

PIPE_BYTES = 64 * 1024  # a pipe holds so much, so a larger read gets no more
# A sandbox that survives so many signals, one every KILL_S, is left to the kernel, and logged.
KILL_ATTEMPTS = 10
KILL_S = 1.0
MAX_PATHS_BYTES = 32 * 1024 * 1024  # of a trace; termite-sandbox writes less

OnOutput = Callable[[bytes], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class JobIo:
    """The directories of a job, the two pipes for its output, and an epoll that watches the pipes.

    `readers` and `writers` are the ends of the pipes for stdout and stderr.
    """

    scratch: Path
    readers: tuple[int, int]
    writers: tuple[int, ...]
    events: select.epoll

    def close(self) -> None:
        """Close all descriptors. The directories stay."""
        self.events.close()
        for fd in (*self.readers, *self.writers):
            os.close(fd)
        self.writers = ()

    def close_writers(self) -> None:
        """Close the ends for writing, when the sandbox has copies of them."""
        for fd in self.writers:
            os.close(fd)
        self.writers = ()


def make_job_io(make_directory: Callable[[], Path]) -> JobIo:
    """Make the pipes for a job, and its directories by `make_directory`. Raises OSError."""
    fds: list[int] = []
    try:
        for _ in range(2):
            fds += mirror_calls.pipe()
        events = mirror_calls.epoll()
        for fd in (fds[0], fds[2]):
            os.set_blocking(fd, False)
            events.register(fd, select.EPOLLIN)
        return JobIo(make_directory(), (fds[0], fds[2]), (fds[1], fds[3]), events)
    except OSError:
        for fd in fds:
            os.close(fd)
        raise


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox with its job. `tags` has the tag byte of each output pipe by descriptor.

    The terminals' descriptors are added to `tags` when the sandbox has sent them. `trace` is the
    memory file of a trace, or -1.
    """

    sandbox: WaitingSandbox
    io: JobIo
    tags: dict[int, bytes]
    terminal: JobTerminal | None = None
    trace: int = -1

    def close(self) -> None:
        """Close all descriptors, when the job is dead."""
        if self.trace >= 0:
            os.close(self.trace)
        self.sandbox.close()
        self.io.close()
        if self.terminal is not None:
            self.terminal.close()


def start_job(sandbox: WaitingSandbox, io: JobIo, spec: SandboxSpec) -> RunningSandbox:
    """Send the order to a waiting sandbox.

    Raises Retryable if the sandbox does not take it; then everything is closed.
    """
    trace = -1
    try:
        io.events.register(sandbox.channel, select.EPOLLIN)
        trace = mirror_calls.memfd_create("trace") if spec.trace else -1
        _send_order(sandbox, io, spec, trace)
    except BaseException as error:
        if trace >= 0:
            os.close(trace)
        io.close()
        sandbox.close()
        if isinstance(error, OSError):
            raise Retryable(Reason.SANDBOX_FAILED, error.strerror or "") from error
        raise
    tags = dict(zip(io.readers, (b"1",) if spec.merge else (b"1", b"2"), strict=False))
    if spec.terminal is not None:
        wish = spec.terminal.wish
        tags = {fd: tag for fd, tag in tags.items() if not (wish.stdout if tag == b"1" else wish.stderr)}
    for fd in io.readers:
        if fd not in tags:
            io.events.unregister(fd)  # this pipe has no writer, and would end now
    io.close_writers()
    return RunningSandbox(sandbox, io, tags, spec.terminal, trace)


def read_paths(running: RunningSandbox) -> bytes:
    """Return the paths of a trace when the job is dead, or b"" if there are none."""
    if running.trace < 0:
        return b""
    size = mirror_calls.fstat(running.trace).st_size
    return mirror_calls.pread(running.trace, size, 0) if size <= MAX_PATHS_BYTES else b""


def _send_order(sandbox: WaitingSandbox, io: JobIo, spec: SandboxSpec, trace: int) -> None:
    fds = [io.writers[0], io.writers[0 if spec.merge else 1]]
    order = pack_order(spec, io.scratch)
    large = -1
    try:
        if len(order) > MAX_MESSAGE_BYTES:
            large = mirror_calls.memfd_create("job")
            mirror_calls.write(large, order)
            os.lseek(large, 0, os.SEEK_SET)
            order = LARGE_ORDER
            fds.append(large)
        if spec.stdin_fd >= 0:
            fds.append(spec.stdin_fd)
        if trace >= 0:
            fds.append(trace)
        mirror_calls.send_fds(sandbox.channel, [order], fds)
    finally:
        if large >= 0:
            os.close(large)


async def follow_job(running: RunningSandbox, spec: SandboxSpec, on_output: OnOutput) -> tuple[dict[str, str], bool]:
    """Forward the output until the job is dead. Return its report, and whether its time was up.

    The report is empty if the sandbox was killed. A cancellation kills the job first.
    """
    try:
        if spec.on_pid is not None:
            spec.on_pid(running.sandbox.pid)
        with trio.move_on_after(spec.timeout_s or math.inf) as limit:
            await _forward(running, on_output)
        if limit.cancelled_caught:
            await _kill(running, spec)
            await _forward(running, on_output)
        report = _read_report(running)
        if not report:  # its init was killed, and the job with it, but that may take another moment
            await trio.lowlevel.wait_readable(running.sandbox.pidfd)
        for fd, tag in running.tags.items():
            while chunk := _read_nowait(fd):
                await on_output(tag + chunk)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _kill(running, spec)
        raise
    return report, limit.cancelled_caught


async def _forward(running: RunningSandbox, on_output: OnOutput) -> None:
    """Forward the output until the sandbox has sent its report. Nobody writes to the pipes then.

    One task serves both pipes, because a turn of the scheduler costs as much as forwarding a line.
    """
    if running.terminal is not None and not await _take_terminals(running, running.terminal):
        return
    channel, events, tags = running.sandbox.channel.fileno(), running.io.events, running.tags
    while True:
        await trio.lowlevel.wait_readable(events.fileno())
        ready = [fd for fd, _ in events.poll(0)]
        if channel in ready:
            return
        for fd in ready:
            chunk = _read_nowait(fd)
            if chunk:
                await on_output(tags[fd] + chunk)
            elif chunk is not None:  # its init was killed, and this pipe is the first to end
                events.unregister(fd)


async def _take_terminals(running: RunningSandbox, terminal: JobTerminal) -> bool:
    """Wait for the terminals of the job. Return False if there are none: the sandbox has ended."""
    if terminal.tags:
        return True  # the job is being killed
    if terminal.early_report is None:
        await trio.lowlevel.wait_readable(running.sandbox.channel)
        try:
            message, fds = receive_with_fds(running.sandbox.channel)
        except OSError:  # it is still being killed
            message, fds = b"", []
        if fds:
            terminal.open(fds)
            running.tags.update(terminal.tags)
            for fd in terminal.tags:
                running.io.events.register(fd, select.EPOLLIN)
            return True
        terminal.early_report = message
    return False


def _read_nowait(fd: int) -> bytes | None:
    """Return what is in the pipe, b"" at its end, or None if it is empty now.

    A pipe that was ready may be empty, because a job may read its own output.
    """
    try:
        return mirror_calls.read(fd, PIPE_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""  # of a terminal


async def _kill(running: RunningSandbox, spec: SandboxSpec) -> None:
    if spec.on_kill is not None:
        spec.on_kill()
    # At SIGTERM the sandbox's init kills the job, and reports the offset of its input. The init
    # ends when all of the job is gone. Somebody may have stopped the init.
    for _ in range(KILL_ATTEMPTS):
        _send_signal(running, signal.SIGTERM)
        _send_signal(running, signal.SIGCONT)
        with trio.move_on_after(KILL_S):
            await trio.lowlevel.wait_readable(running.sandbox.pidfd)
            return
    log.warning("sandbox-not-killed job=%d pid=%d", spec.job, running.sandbox.pid)
    _send_signal(running, signal.SIGKILL)


def _send_signal(running: RunningSandbox, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(running.sandbox.pidfd, number)


def _read_report(running: RunningSandbox) -> dict[str, str]:
    if running.terminal is not None and running.terminal.early_report is not None:
        return parse_report(running.terminal.early_report)
    try:
        return parse_report(receive_last(partial(running.sandbox.channel.recv, REPORT_BYTES)))
    except OSError:  # it is still being killed
        return {}
