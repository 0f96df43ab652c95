"""Draw the screen of `termite-ctl top` on the terminal, and read its keys.

The terminal is put into its alternate screen, so that what stood there is back afterwards.
"""

import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from termite.cli.display.top_screen import Line, Style, TopState, TopView, press, screen_lines
from termite.engine.errors import UserError, first_error
from termite.engine.history.live_stream import LiveStream, open_live_stream

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_STYLES = {Style.PLAIN: "", Style.HEAD: "\x1b[1m", Style.MARKED: "\x1b[7m", Style.ALARM: "\x1b[31m"}
_WITHOUT_COLOUR = {**_STYLES, Style.ALARM: "\x1b[1m"}
_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\r": "enter",
    b"\n": "enter",
    b"\t": "tab",
    b"\x1b": "escape",
    b"\x03": "q",
}
_READ_BYTES = 64


class _Screen:
    """The screen of a user: follows a master, draws at an interval and after each key."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._state = TopState()
        self._view = TopView()
        self._changed = trio.Event()
        self._drawn: list[str] = []
        self._styles = _WITHOUT_COLOUR if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else _STYLES

    async def follow(self, stream: LiveStream) -> None:
        """Follow the master's events. Raise UserError when it ends."""
        while events := await stream.wait_for_events():
            for event in events:
                self._state.apply(event)
        raise UserError("the master has ended")

    async def draw(self) -> None:
        """Draw the lines that have changed, until cancelled."""
        while True:
            size = os.get_terminal_size(sys.stdout.fileno())
            lines = screen_lines(self._state, self._view, time.time(), size.columns, size.lines)
            shown = [self._styled(line) for line in lines]
            if len(shown) != len(self._drawn):
                self._drawn = [""] * len(shown)
            changed = [f"\x1b[{at + 1};1H{text}" for at, text in enumerate(shown) if text != self._drawn[at]]
            self._drawn = shown
            await _write("".join(changed))
            self._changed = trio.Event()
            with trio.move_on_after(self._interval_s):
                await self._changed.wait()

    def _styled(self, line: Line) -> str:
        style = self._styles[line.style]
        return f"{style}{line.text}\x1b[0m" if style else line.text

    async def read_keys(self) -> None:
        """Obey keys until the user quits."""
        while True:
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            pressed = os.read(sys.stdin.fileno(), _READ_BYTES)
            if not pressed:
                return
            height = os.get_terminal_size(sys.stdout.fileno()).lines
            if not all(press(key, self._state, self._view, height) for key in keys_of(pressed)):
                return
            self._changed.set()

    async def follow_size(self) -> None:
        """Draw everything again when the size of the terminal changes."""
        with trio.open_signal_receiver(signal.SIGWINCH) as signals:
            async for _ in signals:
                self._drawn = []
                self._changed.set()


def keys_of(pressed: bytes) -> list[str]:
    """Return the names of the keys in what a terminal has sent at once."""
    if pressed in _KEYS:
        return [_KEYS[pressed]]
    if pressed.startswith(b"\x1b"):
        return []
    return [_KEYS.get(bytes([byte]), chr(byte)) for byte in pressed]


async def show_live(path: Path, interval_s: float) -> None:
    """Show the state of the master that listens at `path` until the user quits.

    Raise UserError if there is no master, or when it ends.
    """
    screen = _Screen(interval_s)
    async with open_live_stream(path) as stream:
        with _whole_terminal(), first_error():
            async with trio.open_nursery() as nursery:
                for task in (screen.draw, screen.follow_size):
                    nursery.start_soon(task)
                nursery.start_soon(screen.follow, stream)
                await screen.read_keys()
                nursery.cancel_scope.cancel()


@contextmanager
def _whole_terminal() -> Iterator[None]:
    """Use the alternate screen, and get each key at once. Afterwards all is as it was."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        os.write(sys.stdout.fileno(), _ENTER.encode())
        yield
    finally:
        with suppress(OSError):
            os.write(sys.stdout.fileno(), _LEAVE.encode())
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


async def _write(text: str) -> None:
    """Write to the terminal, which may take only a part at a time."""
    rest = text.encode("utf-8", "backslashreplace")
    while rest:
        await trio.lowlevel.wait_writable(sys.stdout.fileno())
        rest = rest[os.write(sys.stdout.fileno(), rest) :]
