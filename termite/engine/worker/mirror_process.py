"""Start a mirror process with the socket of a master, and exchange lines of JSON with it.

The mirror talks to the network and is not trusted: its lines are limited in size, and an invalid
line ends it. docs/develop/protocol.md describes the protocol under "Control".
"""

import json
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

import msgspec
import trio

import termite
from termite.engine.host.native_programs import enter_command
from termite.engine.model import Count, Label, Slots
from termite.engine.wire.identity import Identity
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.worker.mirror_homes import MirrorHome

MAX_LINE_BYTES = 64 * 1024
MAX_LOGGED_CHARACTERS = 4000  # of a line of stderr in the worker's log
LAST_LINES = 10  # lines of stderr that are logged if the mirror dies
STOP_S = 5.0  # for a mirror to end by itself and remove its files; then it is killed
STDERR_DRAIN_S = 0.2  # for reading the rest of stderr after the mirror's end

log = logging.getLogger(__name__)


class MirrorLine(msgspec.Struct, frozen=True):
    """A line from a mirror, which sets some of the fields."""

    lease: Slots | None = None
    master: Label = ""
    running: Count | None = None
    jobs: Count = 0
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """The settings that all mirrors of a worker share.

    `program` is the mirror's command without its last argument, a descriptor number.
    """

    worker: str
    tmpfs: bool
    sandbox: Path
    cores: int
    log_level: str
    program: tuple[str, ...] = (sys.executable, "-P", "-m", "termite.fuse.mirror")


class MirrorProcess:
    """A running mirror process and the connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.pid = process.pid
        self.was_killed = False
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.stderr_ended = trio.Event()
        self._process = process
        self._ours = control
        self._control = trio.socket.from_stdlib_socket(control)
        self._received = bytearray()
        self._decoder = msgspec.json.Decoder(MirrorLine)

    async def receive(self) -> MirrorLine | None:
        """Wait for the next line. Return None if the mirror ended or sent an invalid line."""
        while (end := self._received.find(b"\n")) < 0:
            received = b""
            with suppress(OSError):
                received = await self._control.recv(MAX_LINE_BYTES)
            if not received or len(self._received) > MAX_LINE_BYTES:
                return None
            self._received += received
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("mirror-line-invalid pid=%d reason=%s", self.pid, error)
            return None

    def send_nowait(self, **values: int) -> None:
        """Send a line, and kill the mirror if that would block.

        The socket holds thousands of lines, so that a mirror that does not read them is stuck.
        """
        try:
            self._ours.send(json.dumps(values).encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            log.warning("mirror-unresponsive pid=%d", self.pid)
            self._kill()

    async def read_stderr(self) -> None:
        """Write the mirror's stderr to the worker's log, line by line, until its end."""
        assert self._process.stderr is not None
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(self._process.stderr.fileno())) as stream:
            async for received in stream:
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    self._log_line(line)
                rest = rest[-MAX_LINE_BYTES:]
        if rest:
            self._log_line(rest)
        self.stderr_ended.set()

    async def stop(self) -> int:
        """Wait for the mirror's end and return its exit code, as `subprocess` encodes it.

        Closing the connection makes the mirror end. It is killed after STOP_S.
        """
        self._control.close()
        descriptor = os.pidfd_open(self.pid)
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
        try:
            inside = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            inside = []
        for pid in inside or [str(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

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
    with stream.socket:
        mirror = _start(config, identity, home, stream.socket.fileno())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.read_stderr)
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


def _start(config: MirrorSettings, identity: Identity, home: MirrorHome, master_fd: int) -> MirrorProcess:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    needed = (home.cache, home.scratch)
    with theirs:
        try:
            # This is not done through trio, which forks in a worker thread. PR_SET_PDEATHSIG is
            # sent when the forking thread ends.
            process = subprocess.Popen(
                [*enter_command(config.sandbox, home.uid, *needed), *config.program, str(reader)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(reader, master_fd, theirs.fileno()),
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C must reach the worker only, which then ends its mirrors
            )
        except OSError:
            ours.close()
            os.close(writer)
            raise
        finally:
            os.close(reader)
        with os.fdopen(writer, "wb") as file, suppress(BrokenPipeError):  # a pipe holds all of it
            file.write(json.dumps(_start_values(config, identity, home, master_fd, theirs.fileno())).encode())
    return MirrorProcess(process, ours)


def _environment() -> dict[str, str]:
    """Return the variables with which the mirror finds termite, and no others."""
    package = str(Path(termite.__file__).parents[1])
    path = os.pathsep.join([package, os.environ["PYTHONPATH"]]) if os.environ.get("PYTHONPATH") else package
    kept = {name: os.environ[name] for name in ("PATH", "TERMITE_NATIVE") if name in os.environ}
    return {**kept, "PYTHONPATH": path, "LANG": "C.UTF-8"}


def _start_values(
    config: MirrorSettings, identity: Identity, home: MirrorHome, master_fd: int, control_fd: int
) -> dict[str, str | int | bool]:
    return {
        "socket_fd": master_fd,
        "control_fd": control_fd,
        "certificate": identity.certificate,
        "key": identity.key,
        "authority": identity.authority,
        "worker": config.worker,
        "cache": str(home.cache),
        "scratch": str(home.scratch),
        "tmpfs": config.tmpfs,
        "sandbox": str(config.sandbox),
        "cores": config.cores,
        "log_level": config.log_level,
    }
