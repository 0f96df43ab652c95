"""Talk to one launcher, on behalf of its job (docs/develop/protocol.md, "Launcher").

Reads and writes do not use trio's streams, because these yield to the scheduler even after a call
that did not block. Most frames fit into the socket, and one turn of the scheduler costs as much as
sending a frame.
"""

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from errno import errorcode
from signal import NSIG

import trio
from msgspec import ValidationError

from termite.engine.errors import FsError, Reason, RemoteProtocolError, Retryable
from termite.engine.launch import launcher_calls
from termite.engine.launch.invocation import parse_window
from termite.engine.model import Exit, WindowSize
from termite.engine.socket_peers import peer_ids
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields, pack_numbers, parse_fields
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

READ_BYTES = 64 * 1024
STDIN_LIMIT_BYTES = 256 * 1024  # of one answer: the launcher's buffer is not larger


class LauncherGone(Exception):
    """A cancellation of the job: its launcher closed the connection, or asked to stop.

    `signal` is the signal that the launcher received, or 0 if it only closed the connection.
    The listener catches this error and ends the connection.
    """

    def __init__(self, signal: int = 0) -> None:
        super().__init__(signal)
        self.signal = signal


class Launcher:
    """The connection of one launcher.

    Methods that end in `nowait` never block. The others block while the socket is full, or until
    the launcher has answered. They raise LauncherGone if the launcher closed the connection.
    `pid` is 0 if the kernel does not know the launcher's process. `is_one_too_many`: the master has
    only the descriptors for the jobs that run already. `build_socket` is the path of its socket.
    """

    def __init__(self, connection: socket.socket, build_socket: bytes = b"", *, is_one_too_many: bool = False) -> None:
        self._build_socket = build_socket
        self.fd = connection.fileno()
        self.gone: LauncherGone | RemoteProtocolError | None = None  # why no more frames are read
        self._connection = connection
        self._frames = launcher_frames.FrameBuffer()
        self._unread: deque[tuple[bytes, bytes]] = deque()
        self._sending = trio.Lock()
        self._unsent = bytearray()  # frames, and the rest of one that did not fit into the socket
        self._reading_stdin = trio.Lock()
        self._is_settled = False
        self._is_answered: trio.Event | None = None
        self._answered: tuple[bytes, bytes] | None = None
        self._asked_offset: int | None = None  # of the unanswered read; -1: of a stream
        self.peeked_bytes = 0  # read, but also left in the stdin for other readers
        self.stdin_end = b""  # the fields that `leave_stdin` has made, which `finish` sends
        self._is_replaced = False
        self.was_sent_exit = False
        self.on_window: Callable[[WindowSize], None] | None = None  # None: it may send no size of a window
        self.pid = _peer_pid(connection)
        self.is_one_too_many = is_one_too_many

    async def output(self, fd: int, content: bytes) -> None:
        """Write `content` to the launcher's stdout (`fd` 1) or stderr (`fd` 2)."""
        await self._send(launcher_frames.STDOUT if fd == 1 else launcher_frames.STDERR, content)

    def queue_output(self, fd: int, content: bytes) -> None:
        """Write as `output` does, but with the next frame or push, in the same system call."""
        self._unsent += launcher_frames.frame(launcher_frames.STDOUT if fd == 1 else launcher_frames.STDERR, content)

    async def push(self) -> None:
        """Send what was queued."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            while not self._write_some():
                await trio.lowlevel.wait_writable(self._connection)
        finally:
            self._sending.release()

    def push_nowait(self) -> bool:
        """Send what was queued. Return False if the socket is full and nobody waits for it.

        If the launcher is gone, return True; `receive` notices that.
        """
        if self._sending.locked():
            return True  # its holder sends the queue as well
        try:
            return self._write_some()
        except LauncherGone:
            return True

    def push_all_nowait(self) -> bool:
        """Send what was queued, and return whether all of it was sent. Raise LauncherGone."""
        return not self._unsent or (not self._sending.locked() and self._write_some())

    async def notice(self, line: str) -> None:
        """Write one line of our own to the launcher's stderr, without control characters."""
        await self._send(launcher_frames.NOTICE, printable(line, LONGEST_LINE).encode() + b"\n")

    async def forbid_second_run(self) -> None:
        """Forbid the launcher to run the command itself if this master is lost."""
        await self._send(launcher_frames.ONCE, b"")

    async def read_stdin(self, size: int, *, peek: bool = False) -> bytes:
        """Return the bytes of one read(2) of the launcher's stdin; b"" at the end.

        With `peek`, the bytes also stay in the stdin if its kind allows that. Bytes that were
        peeked before are consumed by this call. Raise FsError if the stdin cannot be read.
        """
        async with self._reading_stdin:
            # A cancelled read is still answered. Its answer is the next piece and must not be lost.
            if self._asked_offset is None:
                asked = pack_numbers(taken=self.peeked_bytes, size=min(size, STDIN_LIMIT_BYTES), peek=peek)
                self.peeked_bytes = 0
                await self._ask(-1, asked)
            kind, content = await self._answer()
            self.peeked_bytes = len(content) if kind == launcher_frames.PEEKED else 0
            return content

    async def read_stdin_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` of the file that is the launcher's stdin.

        The result is shorter only at the end of the file. Raise FsError if it cannot be read.
        """
        pieces = []
        async with self._reading_stdin:
            if self._asked_offset is not None:  # of a read that was cancelled
                with contextlib.suppress(FsError):
                    await self._answer()
            while size > 0:
                asked = min(size, STDIN_LIMIT_BYTES)
                await self._ask(offset, pack_numbers(size=asked, offset=offset))
                _, content = await self._answer()
                pieces.append(content)
                if len(content) < asked:
                    break
                offset, size = offset + asked, size - asked
        return b"".join(pieces)

    async def drop_stdin(self, left: int) -> None:
        """Consume all peeked bytes except the last `left` ones."""
        taken = self.peeked_bytes - left
        if taken > 0 and not self._is_settled:
            self.peeked_bytes = left
            with trio.CancelScope(shield=True):  # a half-sent frame would end the conversation
                await self._send(launcher_frames.READ, pack_numbers(taken=taken))

    async def stop_reading(self) -> None:
        """Withdraw the outstanding read, and wait until the launcher confirms that.

        Later reads raise Retryable, and later calls do nothing, until `resume_reading`.
        `unused_bytes` counts what the launcher had read by then.
        """
        was_settled, self._is_settled = self._is_settled, True
        if was_settled or self._asked_offset is None:
            return
        await self._send(launcher_frames.READ, pack_numbers(size=0))
        async with self._reading_stdin:  # a task that waits for the answer gets it first
            if self._is_answered is not None:
                await self._is_answered.wait()
                if not self.unused_bytes:
                    self._is_answered = self._answered = self._asked_offset = None

    def resume_reading(self) -> None:
        """Allow reads again after `stop_reading`, because the job runs once more."""
        self._is_settled = False
        self.stdin_end = b""

    @property
    def unused_bytes(self) -> int:
        """The number of bytes that were consumed from the stdin but did not reach the job."""
        kind, content = self._answered or (b"", b"")
        return len(content) if kind == launcher_frames.STDIN and self._asked_offset == -1 else 0

    def leave_stdin(self, **numbers: int) -> None:
        """Set the final position of the stdin, which `finish` sends along with the exit.

        `numbers` are the fields `stdin_offset` or `stdin_taken` of the protocol, in bytes.
        """
        self.stdin_end = pack_numbers(**numbers)

    async def replace(self, recurse: bool) -> None:
        """Let the launcher execute the command itself; it sends no more frames.

        With `recurse`, launchers that the command starts send their commands to the master.
        """
        await self._send(launcher_frames.EXEC, _pack_exec(recurse, self._build_socket))
        self._is_replaced = True  # up to this line the launcher could cancel the job

    def replace_nowait(self, recurse: bool) -> None:
        """Do the same as `replace`. No other frame may be on its way."""
        self._send_nowait(launcher_frames.EXEC, _pack_exec(recurse, self._build_socket))
        self._is_replaced = True

    async def finish(self, exit: Exit) -> None:
        """Let the launcher end as the command did."""
        await self._send(launcher_frames.EXIT, self.stdin_end + _pack_exit(exit))
        self.was_sent_exit = True

    def finish_nowait(self, exit: Exit) -> None:
        """Do the same as `finish`. No other frame may have been sent before."""
        self._send_nowait(launcher_frames.EXIT, _pack_exit(exit))

    async def send_frames(self, frames: bytes) -> None:
        """Send frames to termite-ctl, a front end or a reader of the live stream."""
        self._unsent += frames
        await self.push()

    def close(self) -> None:
        """Close the connection. Frames that were sent before still arrive."""
        self._connection.close()

    def next_frame_nowait(self) -> tuple[bytes, bytes] | None:
        """Return a frame (kind, payload) before the job starts, or None. Raise LauncherGone."""
        try:
            while not self._unread:
                self._read()
        except BlockingIOError:
            return None
        return self._unread.popleft()

    async def next_frame(self) -> tuple[bytes, bytes]:
        """Wait for the next frame and return it as (kind, payload).

        Use this before the job starts. Raise LauncherGone if the connection has ended.
        """
        while (frame := self.next_frame_nowait()) is None:
            await trio.lowlevel.wait_readable(self._connection)
        return frame

    @property
    def has_unread_frames(self) -> bool:
        """True if frames arrived together with the first one, such as a cancellation of the job."""
        return bool(self._unread)

    def receive(self, job: trio.CancelScope) -> bool:
        """Take in the frames that have arrived while the job runs; never block.

        Return True if more frames may come. Otherwise return False, set `gone` to the reason and
        cancel `job`, unless the launcher executes the command itself.
        """
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
            received = launcher_calls.read(self.fd, READ_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            received = b""
        if not received:
            raise LauncherGone
        self._unread += self._frames.feed(received)

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind in (launcher_frames.STDIN, launcher_frames.PEEKED, launcher_frames.UNREADABLE):
            if self._is_answered is None or self._answered is not None:
                raise RemoteProtocolError(f"a launcher sent {kind!r} without a request")
            self._answered = kind, payload
            self._is_answered.set()
        elif kind == launcher_frames.CANCEL:
            raise LauncherGone(_parse_signal(payload))
        elif kind == launcher_frames.WINDOW and self.on_window is not None:
            self.on_window(_parse_window(payload))
        elif kind == launcher_frames.ALIVE:
            self._unsent += launcher_frames.frame(launcher_frames.ALIVE)
            self.push_nowait()
        else:
            raise RemoteProtocolError(f"a launcher sent {kind!r}")

    async def _ask(self, offset: int, payload: bytes) -> None:
        if self._is_settled:  # never an error of the stdin: a job that meets this runs again
            raise Retryable(Reason.STDIN_UNREADABLE, "the job has ended")
        self._is_answered = trio.Event()
        self._asked_offset = offset
        with trio.CancelScope(shield=True):  # a half-sent frame would end the conversation
            await self._send(launcher_frames.READ, payload)

    async def _answer(self) -> tuple[bytes, bytes]:
        assert self._is_answered is not None, "a read is outstanding"
        await self._is_answered.wait()
        assert self._answered is not None, "the read was answered"
        kind, content = self._answered
        self._is_answered = self._answered = self._asked_offset = None
        if kind == launcher_frames.UNREADABLE:
            raise FsError(_parse_errno(content))
        return kind, content

    def _send_nowait(self, kind: bytes, payload: bytes) -> None:
        """Send the first frame of the connection, which always fits into the socket."""
        try:
            launcher_calls.write(self.fd, launcher_frames.frame(kind, payload))
        except OSError:
            raise LauncherGone from None

    async def _send(self, kind: bytes, payload: bytes) -> None:
        await self.send_frames(launcher_frames.frame(kind, payload))

    def _write_some(self) -> bool:
        """Write what fits into the socket, and return True if that is everything."""
        try:
            while self._unsent:
                del self._unsent[: launcher_calls.write(self.fd, self._unsent)]
        except BlockingIOError:
            return False
        except OSError:
            self._unsent.clear()
            # A frame is lost, so the conversation is over. `receive` must notice that even if the
            # kernel only had no memory for this frame, and the launcher waits for it.
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            raise LauncherGone from None
        return True


def _pack_exec(recurse: bool, build_socket: bytes) -> bytes:
    if recurse and build_socket:
        return pack_fields([("recurse", b"1"), ("env", b"TERMITE_BUILD_SOCKET=" + build_socket)])
    return pack_fields([("recurse", b"1" if recurse else b"0")])


def _pack_exit(exit: Exit) -> bytes:
    return pack_fields([("signal", b"%d" % exit.signal) if exit.signal else ("code", b"%d" % exit.code)])


def _parse_signal(payload: bytes) -> int:
    try:
        number = int(dict(parse_fields(payload)).get("signal", b"0"))
        if number not in range(NSIG):
            raise ValueError
        return number
    except ValueError:
        raise RemoteProtocolError(f"a signal that is no number: {payload[:40]!r}") from None


def _parse_window(payload: bytes) -> WindowSize:
    try:
        return parse_window(dict(parse_fields(payload)).get("window", b"").decode())
    except (ValueError, ValidationError):
        raise RemoteProtocolError(f"a window that has no size: {payload[:40]!r}") from None


def _parse_errno(payload: bytes) -> int:
    try:
        number = int(dict(parse_fields(payload)).get("errno", b""))
        if number not in errorcode:
            raise ValueError
        return number
    except ValueError:
        raise RemoteProtocolError(f"an error that is no number: {payload[:40]!r}") from None


def _peer_pid(connection: socket.socket) -> int:
    try:
        return peer_ids(lambda level, name, size: launcher_calls.getsockopt(connection, level, name, size))[0]
    except OSError:  # 0 means unknown: a record then names no process
        return 0
