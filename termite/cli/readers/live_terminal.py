"""Draw the screen of `termite-ctl top` on the terminal, and read its keys.

The terminal is put into its alternate screen, so that what stood there is back afterwards.
"""

import functools
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from termite.cli.display.farm_screen import FarmView, farm_lines, press_in_farm
from termite.cli.display.top_screen import Line, Style, TopState, TopView, press, screen_lines
from termite.cli.readers.farm_follower import follow_workers
from termite.engine.errors import UserError, first_error
from termite.engine.history.live_stream import open_live_stream
from termite.engine.wire.addresses import join_address

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


class LiveScreen:
    """A screen that is drawn at an interval and after each key.

    `lines` returns what a width and a height have room for. `press` gets the name of a key and the
    height, and returns False if the user wants to quit.
    """

    def __init__(
        self, interval_s: float, lines: Callable[[int, int], list[Line]], press: Callable[[str, int], bool]
    ) -> None:
        self._interval_s = interval_s
        self._lines = lines
        self._press = press
        self._changed = trio.Event()
        self._drawn: list[str] = []
        self._styles = _WITHOUT_COLOUR if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else _STYLES

    async def show(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Use the whole terminal until the user quits. Raise what `follow` raises meanwhile."""
        with _whole_terminal(), first_error():
            async with trio.open_nursery() as nursery:
                for task in (self.draw, self.follow_size, follow):
                    nursery.start_soon(task)
                await self.read_keys()
                nursery.cancel_scope.cancel()

    async def draw(self) -> None:
        """Draw the lines that have changed, until cancelled."""
        while True:
            size = os.get_terminal_size(sys.stdout.fileno())
            shown = [self._styled(line) for line in self._lines(size.columns, size.lines)]
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
            if not all(self._press(key, height) for key in keys_of(pressed)):
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


async def show_master(path: Path, interval_s: float) -> None:
    """Show the state of the master that listens at `path` until the user quits.

    Raise UserError if there is no master, or when it ends.
    """
    state, view = TopState(), TopView()
    screen = LiveScreen(
        interval_s,
        lambda width, height: screen_lines(state, view, time.time(), width, height),
        lambda key, height: press(key, state, view, height),
    )
    async with open_live_stream(path) as stream:

        async def follow() -> None:
            while events := await stream.wait_for_events():
                for event in events:
                    state.apply(event)
            raise UserError("the master has ended")

        await screen.show(follow)


async def show_farm(host: str, port: int, secret: bytes, interval_s: float) -> None:
    """Show the workers that a coordinator knows until the user quits."""
    view = FarmView(join_address(host, port))
    screen = LiveScreen(interval_s, functools.partial(farm_lines, view), lambda key, height: press_in_farm(key, view))
    pause = functools.partial(trio.sleep, interval_s)
    await screen.show(lambda: follow_workers(host, port, secret, view, pause))


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
