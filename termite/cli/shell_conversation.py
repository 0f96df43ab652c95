"""A terminal's keys and output to and from a shell on a worker, for `termite-ctl shell`.

The conversation is a launcher's (docs/develop/protocol.md), with the keyboard as its standard
input. The terminal is raw while the shell runs, so that Ctrl-C and the like reach the shell.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import termios
import tty
from types import FrameType, TracebackType

from termite.cli.client import START_ONE, NoMaster
from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.loop.readiness import wait_until_readable, wait_until_writable
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields, pack_numbers, parse_fields

READ_BYTES = 64 * 1024
SIGNAL_CODE = 128  # plus the number of the signal, as shells say it
ENDING = (signal.SIGTERM, signal.SIGHUP)  # they end this program, and must leave the terminal as it was

TYPE_CHECKING = False  # not typing's: that import takes too long
if TYPE_CHECKING:
    from typing import Any, Self


def window() -> bytes:
    """Return the size of the terminal's window, as the protocol has it."""
    columns, lines = os.get_terminal_size(1)
    return b"%d:%d:0:0" % (lines, columns)


class _Ended(BaseException):
    """The end of this program by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Screen:
    """The terminal of this program, which `take_over` makes raw until the end of the block.

    `woken` is ready to read after each signal, such as SIGWINCH. If not `is_terminal`, nothing is
    changed.
    """

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._before: list[Any] | None = None
        self.woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, _end)
        if self._is_terminal:
            signal.signal(signal.SIGWINCH, lambda number, frame: None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._before is not None:
            with contextlib.suppress(termios.error):  # the terminal may be gone, and SIGHUP be why we end
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
        signal.set_wakeup_fd(-1)
        os.close(self.woken)
        os.close(self._wake)
        if isinstance(error, _Ended):
            signal.signal(error.number, signal.SIG_DFL)
            os.kill(os.getpid(), error.number)

    def take_over(self) -> None:
        """Make the terminal raw, because the shell's own terminal does what it does otherwise."""
        if self._before is None:
            self._before = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)  # what was typed meanwhile is for the shell

    def has_new_window(self) -> bool:
        """Return whether SIGWINCH has come since the last call."""
        try:
            return bytes([signal.SIGWINCH]) in os.read(self.woken, READ_BYTES)
        except BlockingIOError:
            return False

    def write(self, fd: int, content: bytes) -> None:
        """Write output of the shell to stdout or stderr. Raise UserError if that is impossible.

        Raise BrokenPipeError if nobody reads it any more.
        """
        while content:
            try:
                content = content[os.write(fd, content) :]
            except BlockingIOError:  # whoever started us may read without blocking
                wait_until_writable(fd)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise UserError(f"the output cannot be written: {error.strerror}") from None

    def notify(self, line: bytes) -> None:
        """Write a line of termite's own to stderr."""
        self.write(2, line.replace(b"\n", b"\r\n") if self._before is not None else line)


class Conversation:
    """The conversation with the master, on a connection that has sent the invocation."""

    def __init__(self, connection: socket.socket, screen: Screen) -> None:
        self._connection = connection
        self._screen = screen
        self._frames = launcher_frames.FrameBuffer()
        self._wanted_bytes = 0  # of keys, which the master has asked for

    def run(self) -> int:
        """Serve the shell until it has ended, and return its exit code.

        Raise UserError if the master goes away.
        """
        while True:
            keyboard = [0] if self._wanted_bytes else []
            master = self._connection.fileno()
            ready = wait_until_readable([master, self._screen.woken, *keyboard])
            self._send_window()
            if master in ready:
                for kind, payload in self._frames.feed(self._receive()):
                    if kind == launcher_frames.EXIT:
                        return _exit_code(payload)
                    self._take(kind, payload)
            if 0 in ready and self._wanted_bytes:
                self._send_keys()

    def _take(self, kind: bytes, payload: bytes) -> None:
        match kind:
            case launcher_frames.STDOUT:
                self._screen.write(1, payload)
            case launcher_frames.STDERR:
                self._screen.write(2, payload)
            case launcher_frames.NOTICE:
                self._screen.notify(payload)
            case launcher_frames.READ:
                self._take_read(dict(parse_fields(payload)))
            case launcher_frames.ONCE | launcher_frames.ALIVE:
                pass
            case _:
                raise RemoteProtocolError(f"a master sent {kind!r} to a shell")

    def _take_read(self, asked: dict[str, bytes]) -> None:
        size = int(asked.get("size", b"0"))
        if not size and self._wanted_bytes:  # each request has one answer
            self._send(launcher_frames.UNREADABLE, pack_numbers(errno=errno.ECANCELED))
        if size:
            self._screen.take_over()
        self._wanted_bytes = size

    def _send_keys(self) -> None:
        try:
            keys = os.read(0, min(self._wanted_bytes, READ_BYTES))
        except OSError:  # the terminal has hung up
            keys = b""
        self._wanted_bytes = 0
        # Only now: a signal that came before these keys may have found this program in `poll` and
        # in `read`, whose results do not show it.
        self._send_window()
        self._send(launcher_frames.STDIN, keys)
        if not keys:
            raise UserError("the terminal has gone, so the shell ends")

    def _send_window(self) -> None:
        if self._screen.has_new_window():
            self._send(launcher_frames.WINDOW, pack_fields([("window", window())]))

    def _receive(self) -> bytes:
        try:
            received = self._connection.recv(READ_BYTES)
        except OSError:
            received = b""
        if not received:
            raise NoMaster("the master went away, and the shell with it", hint=START_ONE)
        return received

    def _send(self, kind: bytes, payload: bytes) -> None:
        with contextlib.suppress(OSError):  # the next read says that the master is gone
            self._connection.sendall(launcher_frames.frame(kind, payload))


def _exit_code(payload: bytes) -> int:
    fields = dict(parse_fields(payload))
    if number := int(fields.get("signal", b"0")):
        return SIGNAL_CODE + number
    return int(fields.get("code", b"0"))


def _end(number: int, frame: FrameType | None) -> None:
    raise _Ended(number)
