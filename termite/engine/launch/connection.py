"""One launcher, as its job uses it. The protocol of this connection: docs/develop/protocol.md, "Launcher".

Reading and writing do not go through trio's streams, which yield to the scheduler after what did not block, too: most
of what is said fits into the socket at once, and a turn of the scheduler costs as much as saying it.
"""

import contextlib
import json
import os
import socket
import struct
from collections import deque
from errno import EIO, errorcode
from signal import NSIG

import trio

from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.model import Exit
from termite.engine.wire.protocol import records

READ_BYTES = 64 * 1024
STDIN_LIMIT_BYTES = 256 * 1024  # of one answer: a launcher has room for no more
PEER = struct.Struct("3i")

Reply = dict[str, object]


class LauncherGone(Exception):
    """The launcher hung up, or asked to stop: its job is cancelled. `signal` is 0 where it just vanished."""

    def __init__(self, signal: int = 0) -> None:
        super().__init__(signal)
        self.signal = signal


class Launcher:
    """The connection of one launcher, which does not block."""

    def __init__(self, connection: socket.socket) -> None:
        self.fd = connection.fileno()
        self.gone: LauncherGone | RemoteProtocolError | None = None  # why nothing more is heard of it
        self._connection = connection
        self._frames = records.Frames()
        self._unread: deque[tuple[bytes, bytes]] = deque()
        self._sending = trio.Lock()
        self._reading_stdin = trio.Lock()
        self._is_settled = False
        self._is_answered: trio.Event | None = None
        self._answered: tuple[bytes, bytes] | None = None
        self._asked_offset: int | None = None  # what it was asked to read and has not answered; -1: of a stream
        self.peeked_bytes = 0  # read, but also left there for others
        self._stdin_end = b""
        self._is_replaced = False
        self.pid = _peer_pid(connection)

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
                with contextlib.suppress(FsError):
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
        if taken > 0 and not self._is_settled:
            self.peeked_bytes = left
            with trio.CancelScope(shield=True):  # else nobody knows whether it was said
                await self._send(records.READ, records.pack_numbers(taken=taken))

    async def stop_reading(self) -> None:
        """Nothing more is read, and nobody waits for what it was asked to read. It may have read it: `unused_bytes`."""
        self._is_settled = True
        if self._asked_offset is None:
            return
        await self._send(records.READ, records.pack_numbers(size=0))
        async with self._reading_stdin:  # whoever waited for that answer gets it
            if self._is_answered is not None:
                await self._is_answered.wait()
                if not self.unused_bytes:
                    self._is_answered = self._answered = self._asked_offset = None

    @property
    def unused_bytes(self) -> int:
        """How much was taken from its stdin that no job has got."""
        kind, content = self._answered or (b"", b"")
        return len(content) if kind == records.STDIN and self._asked_offset == -1 else 0

    def leave_stdin(self, **numbers: int) -> None:
        """What `finish` says about its stdin besides."""
        self._stdin_end = records.pack_numbers(**numbers)

    async def replace(self, recurse: bool) -> None:
        """It becomes the command. Nothing more is heard of it."""
        await self._send(records.EXEC, records.pack_records([("recurse", b"1" if recurse else b"0")]))
        self._is_replaced = True  # until here it could be cancelled

    def replace_at_once(self, recurse: bool) -> None:
        """The same, where nothing else was said before."""
        self._send_at_once(records.EXEC, records.pack_records([("recurse", b"1" if recurse else b"0")]))

    async def finish(self, exit: Exit) -> None:
        """It ends like this."""
        await self._send(records.EXIT, self._stdin_end + _pack_exit(exit))

    def finish_at_once(self, exit: Exit) -> None:
        """The same, where nothing else was said before."""
        self._send_at_once(records.EXIT, _pack_exit(exit))

    async def answer(self, reply: Reply) -> None:
        """To termite-ctl."""
        await self._send(records.ANSWER, json.dumps(reply).encode())

    def close(self) -> None:
        """Nothing is said any more; what was said arrives."""
        self._connection.close()

    def frame_at_once(self) -> tuple[bytes, bytes] | None:
        """The next frame, before there is a job, if it is there already. LauncherGone where the connection ended."""
        try:
            while not self._unread:
                self._read()
        except BlockingIOError:
            return None
        return self._unread.popleft()

    async def next_frame(self) -> tuple[bytes, bytes]:
        """The next frame, before there is a job. LauncherGone where the connection ended."""
        while (frame := self.frame_at_once()) is None:
            await trio.lowlevel.wait_readable(self._connection)
        return frame

    @property
    def has_said_more(self) -> bool:
        """Than its first frame: it wants its job to be cancelled, say."""
        return bool(self._unread)

    def hear(self, job: trio.CancelScope) -> bool:
        """Take in what it says while its job runs; whether there may be more. If not, `gone` says why."""
        try:
            while self._unread:
                self._take(*self._unread.popleft())
            self._read()
            while self._unread:
                self._take(*self._unread.popleft())
        except BlockingIOError:
            return True
        except (LauncherGone, RemoteProtocolError) as error:
            if not self._is_replaced:
                self.gone = error
                job.cancel()
            return False
        return True

    def _read(self) -> None:
        try:
            received = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            received = b""
        if not received:
            raise LauncherGone
        self._unread += self._frames.feed(received)

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind in (records.STDIN, records.PEEKED, records.UNREADABLE):
            if self._is_answered is None or self._answered is not None:
                raise RemoteProtocolError(f"a launcher said {kind!r} without being asked")
            self._answered = kind, payload
            self._is_answered.set()
        elif kind == records.CANCEL:
            raise LauncherGone(_parse_signal(payload))
        else:
            raise RemoteProtocolError(f"a launcher said {kind!r}")

    async def _ask(self, offset: int, payload: bytes) -> None:
        if self._is_settled:
            raise FsError(EIO)
        self._is_answered = trio.Event()
        self._asked_offset = offset
        with trio.CancelScope(shield=True):  # else nobody knows whether it was said
            await self._send(records.READ, payload)

    async def _answer(self) -> tuple[bytes, bytes]:
        assert self._is_answered is not None, "it was asked"
        await self._is_answered.wait()
        assert self._answered is not None, "it has answered"
        kind, content = self._answered
        self._is_answered = self._answered = self._asked_offset = None
        if kind == records.UNREADABLE:
            raise FsError(_parse_errno(content))
        return kind, content

    def _send_at_once(self, kind: bytes, payload: bytes) -> None:
        """Before anything else: so it fits into the socket."""
        try:
            os.write(self.fd, records.frame(kind, payload))
        except OSError:
            raise LauncherGone from None

    async def _send(self, kind: bytes, payload: bytes) -> None:
        unsent = memoryview(records.frame(kind, payload))
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            while unsent:
                try:
                    unsent = unsent[os.write(self.fd, unsent) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._connection)
                except OSError:
                    raise LauncherGone from None
        finally:
            self._sending.release()


def _pack_exit(exit: Exit) -> bytes:
    return records.pack_records([("signal", b"%d" % exit.signal) if exit.signal else ("code", b"%d" % exit.code)])


def _parse_signal(payload: bytes) -> int:
    try:
        number = int(dict(records.parse_records(payload)).get("signal", b"0"))
        if number not in range(NSIG):
            raise ValueError
        return number
    except ValueError:
        raise RemoteProtocolError(f"a signal that is no number: {payload[:40]!r}") from None


def _parse_errno(payload: bytes) -> int:
    try:
        number = int(dict(records.parse_records(payload)).get("errno", b""))
        if number not in errorcode:
            raise ValueError
        return number
    except ValueError:
        raise RemoteProtocolError(f"an error that is no number: {payload[:40]!r}") from None


def _peer_pid(connection: socket.socket) -> int:
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    except OSError:
        return 0
    pid: int = PEER.unpack(credentials)[0]
    return pid
