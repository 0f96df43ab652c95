"""A mirror process as its worker sees it: started with the master's socket, spoken to in lines of JSON.

It talks to the network, so it is not trusted: its lines are limited, and nonsense ends it. Protocol:
docs/develop/protocol.md, "Control".
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
from termite.engine.worker.mirror_homes import Quarters

MAX_LINE_BYTES = 64 * 1024
LONGEST_LINE = 4000  # characters of its stderr in one line of our log
LAST_LINES = 10  # of stderr, for the log when it dies
STOP_S = 5.0  # to end by itself, removing its files, before it is killed
LAST_WORDS_S = 0.2  # to read what it said when it died

log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True):
    """What a mirror says: each line sets some of these."""

    lease: Slots | None = None
    master: Label = ""
    running: Count | None = None
    jobs: Count = 0
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    """What is equal for all mirrors of a worker. `program` is the command without its last argument, the descriptor."""

    worker: str
    tmpfs: bool
    sandbox: Path
    cores: int
    log_level: str
    program: tuple[str, ...] = (sys.executable, "-P", "-m", "termite.fuse.mirror")


class Mirror:
    """One running mirror process."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.pid = process.pid
        self.was_killed = False
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.stderr_ended = trio.Event()
        self._process = process
        self._ours = control
        self._control = trio.socket.from_stdlib_socket(control)
        self._received = bytearray()
        self._decoder = msgspec.json.Decoder(Line)

    async def receive(self) -> Line | None:
        """The next line; None at the end, or if it talks nonsense."""
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

    def tell_nowait(self, **values: int) -> None:
        """Send a line. One that does not read is stuck, and ended: the socket holds thousands of lines."""
        try:
            self._ours.send(json.dumps(values).encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            log.warning("mirror-unresponsive pid=%d", self.pid)
            self._kill()

    async def read_stderr(self) -> None:
        """Pass on what it logs."""
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
        """End it, if it has not ended; its exit code, as subprocess has it."""
        self._control.close()
        descriptor = os.pidfd_open(self.pid)
        try:
            with trio.move_on_after(STOP_S) as patience:
                await trio.lowlevel.wait_readable(descriptor)
            if patience.cancelled_caught:
                self._kill()
                with trio.move_on_after(STOP_S) as patience:
                    await trio.lowlevel.wait_readable(descriptor)
            if patience.cancelled_caught:  # somebody has stopped termite-sandbox, which waits for the mirror
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        return self._process.wait()

    def _kill(self) -> None:
        """Its whole pid namespace: termite-sandbox waits for the mirror, so its end is the end of all."""
        self.was_killed = True
        try:
            inside = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            inside = []
        for pid in inside or [str(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def _log_line(self, line: bytes) -> None:
        text = printable(line.decode(errors="replace").rstrip(), LONGEST_LINE)
        if text:
            self.last_lines.append(text)
            log.info("mirror-said pid=%d line=%s", self.pid, text)


@asynccontextmanager
async def mirror_process(
    config: MirrorConfig, identity: Identity, quarters: Quarters, stream: trio.SocketStream
) -> AsyncIterator[Mirror]:
    """Start one for the connection `stream`, whose end here is closed; at the end of the block it is gone."""
    with stream.socket:
        mirror = _start(config, identity, quarters, stream.socket.fileno())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.read_stderr)
        try:
            yield mirror
        finally:
            with trio.CancelScope(shield=True):
                code = await mirror.stop()
                with trio.move_on_after(LAST_WORDS_S):
                    await mirror.stderr_ended.wait()
            _log_end(mirror, code)
            nursery.cancel_scope.cancel()


def _log_end(mirror: Mirror, code: int) -> None:
    if mirror.was_killed:
        log.warning("mirror-killed pid=%d reason=it-did-not-end", mirror.pid)
    elif code:
        log.warning("mirror-died pid=%d code=%d said=%s", mirror.pid, code, " | ".join(mirror.last_lines))


def _start(config: MirrorConfig, identity: Identity, quarters: Quarters, master_fd: int) -> Mirror:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    needed = (quarters.cache, quarters.scratch)
    with theirs:
        try:
            # Not through trio, which forks in a worker thread: PR_SET_PDEATHSIG is sent when the forking thread ends.
            process = subprocess.Popen(
                [*enter_command(config.sandbox, quarters.uid, *needed), *config.program, str(reader)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(reader, master_fd, theirs.fileno()),
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the worker, which ends its mirrors
            )
        except OSError:
            ours.close()
            os.close(writer)
            raise
        finally:
            os.close(reader)
        with os.fdopen(writer, "wb") as file, suppress(BrokenPipeError):  # less than a pipe holds
            file.write(json.dumps(_start_values(config, identity, quarters, master_fd, theirs.fileno())).encode())
    return Mirror(process, ours)


def _environment() -> dict[str, str]:
    """Enough to find termite again; nothing that its user's shell happens to hold."""
    package = str(Path(termite.__file__).parents[1])
    path = os.pathsep.join([package, os.environ["PYTHONPATH"]]) if os.environ.get("PYTHONPATH") else package
    kept = {name: os.environ[name] for name in ("PATH", "TERMITE_NATIVE") if name in os.environ}
    return {**kept, "PYTHONPATH": path, "LANG": "C.UTF-8"}


def _start_values(
    config: MirrorConfig, identity: Identity, quarters: Quarters, master_fd: int, control_fd: int
) -> dict[str, str | int | bool]:
    return {
        "socket_fd": master_fd,
        "control_fd": control_fd,
        "certificate": identity.certificate,
        "key": identity.key,
        "authority": identity.authority,
        "worker": config.worker,
        "cache": str(quarters.cache),
        "scratch": str(quarters.scratch),
        "tmpfs": config.tmpfs,
        "sandbox": str(config.sandbox),
        "cores": config.cores,
        "log_level": config.log_level,
    }
