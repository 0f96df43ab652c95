"""The unix socket that launchers and `termite-ctl` connect to (docs/protocol.md, "Launcher").

One connection is one job. Whatever bytes come: that connection ends, and nothing else.
"""

import contextlib
import fcntl
import json
import logging
import os
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import trio

from termite.engine import records
from termite.engine.errors import FsError, RemoteProtocolError, UserError, first_error
from termite.engine.invocations import Asked, parse_invoke
from termite.engine.model import Exit

BACKLOG = 4096
READ_BYTES = 64 * 1024
STDIN_LIMIT_BYTES = 256 * 1024  # of one answer: a launcher has room for no more
LOCK_PATIENCE_S = 5.0  # another master that is just starting holds the directory's lock for milliseconds
PEER = struct.Struct("3i")

log = logging.getLogger(__name__)

Reply = dict[str, object]


class LauncherGone(Exception):
    """The launcher hung up, or asked to stop: its job is cancelled. `signal` is 0 where it just vanished."""

    def __init__(self, signal: int = 0) -> None:
        super().__init__(signal)
        self.signal = signal


class Launcher:
    """The connection of one launcher, as its job uses it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._frames = records.Frames()
        self._unread: deque[tuple[bytes, bytes]] = deque()
        self._sending = trio.Lock()
        self._reading_stdin = trio.Lock()
        self._answers_out, self._answers_in = trio.open_memory_channel[tuple[bytes, bytes]](1)
        self._done_out, self._done_in = trio.open_memory_channel[Exit](1)
        self._asked_offset: int | None = None  # what it was asked to read and has not answered; -1: of a stream
        self.peeked_bytes = 0  # read, but also left there for others
        self._stdin_end = b""
        self.pid = _peer_pid(stream)

    async def output(self, fd: int, content: bytes) -> None:
        """Bytes for stdout (1) or stderr (2)."""
        await self._send(records.STDOUT if fd == 1 else records.STDERR, content)

    async def notice(self, line: str) -> None:
        """One line of ours on stderr."""
        await self._send(records.NOTICE, line.encode("utf-8", "surrogateescape") + b"\n")

    async def read_stdin(self, size: int, *, peek: bool = False) -> bytes:
        """What one read(2) of its stdin gives; empty at the end. With `peek` it stays there, if that is possible.

        All that was peeked before is the job's now.
        """
        async with self._reading_stdin:
            # A read that was cancelled is answered all the same: that answer is the next piece, and must not be lost.
            if self._asked_offset is None:
                asked = records.pack_numbers(taken=self.peeked_bytes, size=min(size, STDIN_LIMIT_BYTES), peek=peek)
                self.peeked_bytes = 0
                await self._ask(-1, asked)
            kind, content = await self._answer()
            self.peeked_bytes = len(content) if kind == records.PEEKED else 0
            return content

    async def read_stdin_at(self, offset: int, size: int) -> bytes:
        """What is there in the file that is its stdin; less than `size` at the end only."""
        pieces = []
        async with self._reading_stdin:
            if self._asked_offset is not None:  # of a read that was cancelled
                await self._answer()
            while size > 0:
                asked = min(size, STDIN_LIMIT_BYTES)
                await self._ask(offset, records.pack_numbers(size=asked, offset=offset))
                _, content = await self._answer()
                pieces.append(content)
                if len(content) < asked:
                    break
                offset, size = offset + asked, size - asked
        return b"".join(pieces)

    async def drop_stdin(self, left: int) -> None:
        """Of what was peeked, all but the last `left` bytes are the job's now."""
        taken = self.peeked_bytes - left
        if taken > 0:
            self.peeked_bytes = left
            with trio.CancelScope(shield=True):  # else nobody knows whether it was said
                await self._send(records.READ, records.pack_numbers(taken=taken))

    async def stop_reading(self) -> None:
        """Nobody waits any more for what it was asked to read."""
        if self._asked_offset is not None:
            await self._send(records.READ, records.pack_numbers(size=0))

    def leave_stdin(self, **numbers: int) -> None:
        """What `finish` says about its stdin besides."""
        self._stdin_end = records.pack_numbers(**numbers)

    async def replace(self, recurse: bool) -> None:
        """It becomes the command. Nothing more is heard of it."""
        await self._send(records.EXEC, records.pack_records([("recurse", b"1" if recurse else b"0")]))

    async def wait(self, recurse: bool) -> Exit:
        """It runs the command as a child; how that ended."""
        await self._send(records.WAIT, records.pack_records([("recurse", b"1" if recurse else b"0")]))
        return await self._done_in.receive()

    async def finish(self, exit: Exit) -> None:
        """It ends like this."""
        status = ("signal", b"%d" % exit.signal) if exit.signal else ("code", b"%d" % exit.code)
        await self._send(records.EXIT, self._stdin_end + records.pack_records([status]))

    async def answer(self, reply: Reply) -> None:
        """To termite-ctl."""
        await self._send(records.ANSWER, json.dumps(reply).encode())

    async def next_frame(self) -> tuple[bytes, bytes]:
        """The next frame. LauncherGone where the connection ended."""
        while not self._unread:
            try:
                received = await self._stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                received = b""
            if not received:
                raise LauncherGone
            self._unread += self._frames.feed(bytes(received))
        return self._unread.popleft()

    async def listen(self) -> None:
        """Take in what the launcher says while its job runs, until it hangs up or cancels."""
        while True:
            kind, payload = await self.next_frame()
            try:
                if kind in (records.STDIN, records.PEEKED, records.UNREADABLE):
                    self._answers_out.send_nowait((kind, payload))
                elif kind == records.DONE:
                    self._done_out.send_nowait(_parse_exit(payload))
                elif kind == records.CANCEL:
                    raise LauncherGone(_parse_exit(payload).signal)
                else:
                    raise RemoteProtocolError(f"a launcher said {kind!r}")
            except trio.WouldBlock:
                raise RemoteProtocolError(f"a launcher said {kind!r} twice") from None

    async def _ask(self, offset: int, payload: bytes) -> None:
        with trio.CancelScope(shield=True):  # else nobody knows whether it was said
            await self._send(records.READ, payload)
        self._asked_offset = offset

    async def _answer(self) -> tuple[bytes, bytes]:
        kind, content = await self._answers_in.receive()
        self._asked_offset = None
        if kind == records.UNREADABLE:
            raise FsError(_parse_errno(content))
        return kind, content

    async def _send(self, kind: bytes, payload: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(records.frame(kind, payload))
            except trio.BrokenResourceError:
                raise LauncherGone from None


Run = Callable[[Launcher, Asked], Awaitable[Exit | None]]
Control = Callable[[Reply], Awaitable[Reply]]


class Launchers:
    """Serves connections: `run` gets the jobs, `control` opens a session for what termite-ctl and the front ends
    say."""

    def __init__(self, run: Run, control: Callable[[], contextlib.AbstractContextManager[Control]]) -> None:
        self._run = run
        self._control = control

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, from the first byte to the last."""
        async with stream:
            launcher = Launcher(stream)
            try:
                kind, payload = await launcher.next_frame()
                if kind == records.INVOKE:
                    await self._serve_job(launcher, parse_invoke(payload))
                elif kind == records.CONTROL:
                    await self._serve_control(launcher, payload)
                else:
                    raise RemoteProtocolError(f"began with {kind!r}")
            except LauncherGone:
                pass
            except RemoteProtocolError as error:
                log.warning("launcher-dropped pid=%d reason=%s", launcher.pid, error)
            except Exception:  # one launcher: the others and the master live on
                log.exception("launcher-failed pid=%d", launcher.pid)

    async def _serve_job(self, launcher: Launcher, asked: Asked) -> None:
        async with _watched(launcher) as ended:
            exit = await self._run(launcher, asked)
            if exit is not None:
                await launcher.finish(exit)
        if ended.gone is not None and ended.gone.signal:
            # The job has stopped and nothing of it was brought home: now the launcher may die of its signal.
            await launcher.finish(Exit(0, ended.gone.signal))

    async def _serve_control(self, launcher: Launcher, payload: bytes) -> None:
        with self._control() as control:
            while True:
                try:
                    reply = await control(_parse_request(payload))
                except UserError as error:
                    reply = {"error": error.message, "hint": error.hint}
                await launcher.answer(reply)
                kind, payload = await launcher.next_frame()
                if kind != records.CONTROL:
                    raise RemoteProtocolError(f"termite-ctl said {kind!r}")


class _Ended:
    gone: LauncherGone | None = None


@contextlib.asynccontextmanager
async def _watched(launcher: Launcher) -> AsyncIterator[_Ended]:
    """Cancel the body when the launcher hangs up or says so; what it said is in the value."""
    ended = _Ended()

    async def listen(scope: trio.CancelScope) -> None:
        try:
            await launcher.listen()
        except LauncherGone as gone:
            ended.gone = gone
            scope.cancel()

    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, nursery.cancel_scope)
            yield ended
            nursery.cancel_scope.cancel()


@contextlib.contextmanager
def bound_socket(path: Path) -> Iterator[trio.SocketListener]:
    """The listening socket at `path`, mode 0700, gone afterwards. UserError where a master listens already."""
    raise_file_limit()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _locked(directory):
            # By way of the descriptor: the path of a deep tree does not fit into an address.
            address = f"/proc/self/fd/{directory}/{path.name}"
            if _is_answered(address):
                raise UserError(f"a master runs here already: {path}", hint="termite-ctl status")
            listening = _listening_socket(address)
            ours = os.stat(path.name, dir_fd=directory).st_ino
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        finally:
            listening.close()
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path.name, dir_fd=directory).st_ino == ours:
                    os.unlink(path.name, dir_fd=directory)
    finally:
        os.close(directory)


def raise_file_limit() -> None:
    """Thousands of launchers at once are thousands of descriptors; the usual limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listening_socket(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = f"{address}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        listening.bind(temporary)
        os.chmod(temporary, 0o700)
        listening.listen(BACKLOG)
        # Its name appears when it answers, and replaces one that a killed master left.
        os.rename(temporary, address)
    except OSError as error:
        listening.close()
        raise UserError(f"cannot listen at {os.path.realpath(address)}: {error.strerror}") from error
    return listening


def _is_answered(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        error = probe.connect_ex(address)
    # EAGAIN: its backlog is full, so somebody is there.
    return error in (0, 11)


@contextlib.contextmanager
def _locked(directory: int) -> Iterator[None]:
    """Two masters that start at once must not take the socket from each other."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError("the directory is locked by another program", hint="is a master starting?") from None
            time.sleep(0.02)
        except OSError:
            break  # a file system without locks: the race is narrow
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_UN)


def _parse_request(payload: bytes) -> Reply:
    try:
        request = json.loads(payload)
    except ValueError as error:
        raise RemoteProtocolError(f"a control request that is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RemoteProtocolError("a control request that is no object")
    return request


def _parse_exit(payload: bytes) -> Exit:
    fields = dict(records.parse_records(payload))
    try:
        return Exit(int(fields.get("code", b"0")), int(fields.get("signal", b"0")))
    except ValueError:
        raise RemoteProtocolError(f"an end that is no number: {payload[:40]!r}") from None


def _parse_errno(payload: bytes) -> int:
    try:
        return int(dict(records.parse_records(payload)).get("errno", b""))
    except ValueError:
        raise RemoteProtocolError(f"an error that is no number: {payload[:40]!r}") from None


def _peer_pid(stream: trio.SocketStream) -> int:
    try:
        credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    except OSError:
        return 0
    pid: int = PEER.unpack(credentials)[0]
    return pid
