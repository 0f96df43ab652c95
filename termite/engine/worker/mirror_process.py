"""Start a mirror process with the socket of a master, and exchange lines of JSON with it.

The mirror talks to the network and is not trusted: its lines are limited in size, and an invalid
line ends it. docs/develop/protocol.md describes the protocol under "Control".
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import RemoteProtocolError
from termite.engine.host.native_programs import enter_command, own_variables
from termite.engine.host.process_state import STOPPED, children_of, process_state
from termite.engine.model import JobLimits, JobNetwork, MachineFacts, StoreLimits
from termite.engine.wire.identity import Identity
from termite.engine.wire.line_socket import LineSocket
from termite.engine.wire.protocol.control_lines import MirrorNotice, StartValues, WorkerOrder, encode_line
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.worker import worker_calls
from termite.engine.worker.job_group import lease_group
from termite.engine.worker.job_shares import store_limits
from termite.engine.worker.mirror_homes import MirrorHome

MAX_STDERR_BYTES = 64 * 1024  # of a line of stderr that has not ended
MAX_LOGGED_CHARACTERS = 4000  # of a line of stderr in the worker's log
LAST_LINES = 10  # lines of stderr that are logged if the mirror dies
STANDSTILL_CHECK_S = 5.0  # between two looks whether a mirror was stopped by a signal
STANDSTILL_CHECKS = 3  # so often a stopped mirror is resumed; if it is stopped again, it is killed
STOP_S = 5.0  # for a mirror to end by itself and remove its files; then it is killed
STDERR_DRAIN_S = 0.2  # for reading the rest of stderr after the mirror's end

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """The settings that all mirrors of a worker share.

    `program` is the mirror's command without its last argument, a descriptor number. Mirrors join
    groups below the control group whose cgroup.procs is `group`.
    """

    worker: str
    tmpfs: bool
    sandbox: Path
    machine: MachineFacts
    log_level: str
    store: StoreLimits
    network: JobNetwork
    limits: JobLimits
    group: Path | None = None
    program: tuple[str, ...] = (sys.executable, "-P", "-m", "termite.fuse.mirror")


class MirrorProcess:
    """A running mirror process and the connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, descriptor: int) -> None:
        """Take over the process, our end of the connection, and the process's descriptor."""
        self.pid = process.pid
        self.was_killed = False
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.stderr_ended = trio.Event()
        self._process = process
        self._descriptor = descriptor
        self._control = LineSocket(control)

    async def receive(self) -> MirrorNotice | None:
        """Wait for the next line. Return None if the mirror ended or sent an invalid line."""
        try:
            return await self._control.receive(MirrorNotice)
        except RemoteProtocolError as error:
            log.warning("mirror-line-invalid pid=%d reason=%s", self.pid, error)
            return None

    def send_nowait(self, order: WorkerOrder) -> None:
        """Send a line, and kill the mirror if that would block.

        The socket holds thousands of lines, so that a mirror that does not read them is stuck.
        """
        try:
            self._control.send_nowait(order)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is ending, and `receive` notices that
        except OSError:
            log.warning("mirror-unresponsive pid=%d", self.pid)
            self._kill()

    async def read_stderr(self) -> None:
        """Write the mirror's stderr to the worker's log, line by line, until its end."""
        assert self._process.stderr is not None
        rest = b""
        async with trio.lowlevel.FdStream(worker_calls.dup(self._process.stderr.fileno())) as stream:
            async for received in stream:
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    self._log_line(line)
                rest = rest[-MAX_STDERR_BYTES:]
        if rest:
            self._log_line(rest)
        self.stderr_ended.set()

    async def keep_running(self) -> None:
        """Resume the mirror whenever it was stopped by a signal, until cancelled.

        Kill it if that does not help. Its master would wait for it, and it would keep its slots.
        """
        checks = 0
        while True:
            await trio.sleep(STANDSTILL_CHECK_S)
            stopped = [pid for pid in (self.pid, *children_of(self.pid)) if process_state(pid) in STOPPED]
            checks = checks + 1 if stopped else 0
            if checks > STANDSTILL_CHECKS:
                self._kill()
            for pid in stopped:
                log.warning("mirror-stands-still pid=%d", pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def stop(self) -> int:
        """Wait for the mirror's end and return its exit code, as `subprocess` encodes it.

        Closing the connection makes the mirror end. It is killed after STOP_S.
        """
        self._control.close()
        descriptor = self._descriptor
        try:
            with trio.move_on_after(STOP_S) as patience:
                await trio.lowlevel.wait_readable(descriptor)
            if patience.cancelled_caught:
                self._kill()
                with trio.move_on_after(STOP_S) as patience:
                    await trio.lowlevel.wait_readable(descriptor)
            if patience.cancelled_caught:  # somebody stopped the termite-sandbox that waits for the mirror
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        return self._process.wait()

    def _kill(self) -> None:
        """Kill the child of termite-sandbox, and with it the mirror's whole pid namespace.

        termite-sandbox waits for that child, and then ends too.
        """
        self.was_killed = True
        for pid in children_of(self.pid) or [self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _log_line(self, line: bytes) -> None:
        text = printable(line.decode(errors="replace").rstrip(), MAX_LOGGED_CHARACTERS)
        if text:
            self.last_lines.append(text)
            log.info("mirror-said pid=%d line=%s", self.pid, text)


@asynccontextmanager
async def run_mirror(
    config: MirrorSettings, identity: Identity, home: MirrorHome, stream: trio.SocketStream
) -> AsyncIterator[MirrorProcess]:
    """Start a mirror process for the connection `stream`, and stop it at the end of the block.

    The worker's copy of the socket is closed as soon as the mirror has it. Raise OSError if the
    process cannot be started.
    """
    with lease_group(config.group) as group:
        with stream.socket:
            mirror = _start(config, group, identity, home, stream.socket.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mirror.read_stderr)
            nursery.start_soon(mirror.keep_running)
            try:
                yield mirror
            finally:
                with trio.CancelScope(shield=True):
                    code = await mirror.stop()
                    with trio.move_on_after(STDERR_DRAIN_S):
                        await mirror.stderr_ended.wait()
                _log_end(mirror, code)
                nursery.cancel_scope.cancel()


def _log_end(mirror: MirrorProcess, code: int) -> None:
    if mirror.was_killed:
        log.warning("mirror-killed pid=%d reason=it-did-not-end", mirror.pid)
    elif code:
        log.warning("mirror-died pid=%d code=%d said=%s", mirror.pid, code, " | ".join(mirror.last_lines))


def _start(
    config: MirrorSettings, group: Path | None, identity: Identity, home: MirrorHome, master_fd: int
) -> MirrorProcess:
    ours, theirs = worker_calls.socketpair()
    try:
        reader, writer = worker_calls.pipe()
    except OSError:
        ours.close()
        theirs.close()
        raise
    needed = (home.cache, home.scratch)
    with theirs:
        try:
            # This is not done through trio, which forks in a worker thread. PR_SET_PDEATHSIG is
            # sent when the forking thread ends.
            process = worker_calls.Popen(
                [*enter_command(config.sandbox, home.uid, *needed, group=group), *config.program, str(reader)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(reader, master_fd, theirs.fileno()),
                cwd="/",
                env=own_variables("PATH", "TERMITE_NATIVE"),
                start_new_session=True,  # Ctrl-C must reach the worker only, which then ends its mirrors
            )
            descriptor = _descriptor_of(process)
        except BaseException:
            ours.close()
            os.close(writer)
            raise
        finally:
            os.close(reader)
        with os.fdopen(writer, "wb") as file, suppress(BrokenPipeError):  # a pipe holds all of it
            file.write(encode_line(_start_values(config, identity, home, master_fd, theirs.fileno())))
    return MirrorProcess(process, ours, descriptor)


def _descriptor_of(process: subprocess.Popen[bytes]) -> int:
    """Return a descriptor of a new process, with which its end is awaited.

    Raise OSError, and end the process, if there is no descriptor left. At the end of the mirror it
    would be too late: nobody would wait for the process, whose home goes to the next one.
    """
    try:
        return worker_calls.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        raise


def _start_values(
    config: MirrorSettings, identity: Identity, home: MirrorHome, master_fd: int, control_fd: int
) -> StartValues:
    return StartValues(
        socket_fd=master_fd,
        control_fd=control_fd,
        certificate=identity.certificate,
        key=identity.key,
        authority=identity.authority,
        worker=config.worker,
        cache=str(home.cache),
        scratch=str(home.scratch),
        tmpfs=config.tmpfs,
        sandbox=str(config.sandbox),
        machine=config.machine,
        log_level=config.log_level,
        store=config.store if home.uid is None else store_limits(config.store, home.number),
        network=config.network,
        limits=config.limits,
    )
