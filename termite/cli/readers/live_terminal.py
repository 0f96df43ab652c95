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
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import trio

from termite.cli.display.farm_screen import FarmView, farm_lines, press_in_farm
from termite.cli.display.top_screen import Line, Style, TopState, TopView, press, screen_lines
from termite.cli.places import records_directory
from termite.cli.readers.farm_follower import follow_workers
from termite.cli.readers.farm_questions import Coordinator
from termite.cli.readers.terminal_keys import is_cut, keys_of
from termite.engine.errors import UserError, first_error
from termite.engine.history.live_stream import open_live_stream
from termite.engine.history.logic.live_events import Event, Snapshot
from termite.engine.history.past_builds import PastBuilds
from termite.engine.wire.addresses import join_address

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_STYLES = {Style.PLAIN: "", Style.HEAD: "\x1b[1m", Style.MARKED: "\x1b[7m", Style.ALARM: "\x1b[31m"}
_WITHOUT_COLOUR = {**_STYLES, Style.ALARM: "\x1b[1m"}
_READ_BYTES = 64
_ESCAPE_S = 0.05  # the rest of a key that a slow line has cut comes within that
# Handed over at once if the terminal cannot be opened anew. A terminal that says it is writable
# takes so much from Linux's line discipline, so that the call does not block.
_PIECE_BYTES = 256
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class LiveScreen:
    """A screen that is drawn at an interval and after each key.

    `lines` returns what a width and a height have room for. `press` gets the name of a key and the
    height, and returns False if the user wants to quit.
    """

    def __init__(
        self, interval_s: float, lines: Callable[[int, int], list[Line]], press: Callable[[str], bool]
    ) -> None:
        self._interval_s = interval_s
        self._lines = lines
        self._press = press
        self._changed = trio.Event()
        self._drawn: list[str] = []
        self._styles = _WITHOUT_COLOUR if os.environ.get("NO_COLOR") else _STYLES

    async def show(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Use the whole terminal until the user quits. Raise what `follow` raises meanwhile.

        A signal that ends programs ends this process after the terminal is as it was.
        """
        with WholeTerminal() as terminal, first_error():
            async with trio.open_nursery() as nursery:

                async def obey_signals() -> None:
                    terminal.ended_by = await self._obey_signals(terminal)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(self.draw, terminal)
                for task in (obey_signals, follow):
                    nursery.start_soon(task)
                await self.read_keys()
                nursery.cancel_scope.cancel()
        if terminal.ended_by:
            signal.signal(terminal.ended_by, signal.SIG_DFL)
            os.kill(os.getpid(), terminal.ended_by)

    async def draw(self, terminal: "WholeTerminal") -> None:
        """Draw the lines that have changed, until cancelled.

        A terminal that is slow gets fewer drawings, and never an old one.
        """
        while True:
            size = os.get_terminal_size(sys.stdout.fileno())
            shown = [self._styled(line) for line in self._lines(size.columns, size.lines)]
            if len(shown) != len(self._drawn):
                self._drawn = [""] * len(shown)
            changed = [f"\x1b[{at + 1};1H{text}" for at, text in enumerate(shown) if text != self._drawn[at]]
            self._drawn = shown
            self._changed = trio.Event()
            await terminal.write("".join(changed))
            with trio.move_on_after(self._interval_s):
                await self._changed.wait()

    def _styled(self, line: Line) -> str:
        style = self._styles[line.style]
        return f"{style}{line.text}\x1b[0m" if style else line.text

    async def read_keys(self) -> None:
        """Obey keys until the user quits."""
        while pressed := await self._read_pressed():
            if not all(self._press(key) for key in keys_of(pressed)):
                return
            self._changed.set()

    async def _read_pressed(self) -> bytes:
        """Wait for keys. Return b"" if the terminal is gone."""
        stdin = sys.stdin.fileno()
        await trio.lowlevel.wait_readable(stdin)
        pressed = os.read(stdin, _READ_BYTES)
        while is_cut(pressed):
            with trio.move_on_after(_ESCAPE_S):
                await trio.lowlevel.wait_readable(stdin)
                pressed += os.read(stdin, _READ_BYTES)
                continue
            break
        return pressed

    async def _obey_signals(self, terminal: "WholeTerminal") -> int:
        """Draw everything again after a new size or a stop. Return the signal that ends this."""
        with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGTSTP, *_ENDING) as signals:
            async for number in signals:
                if number in _ENDING:
                    return number
                if number == signal.SIGTSTP:
                    terminal.leave()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    terminal.enter()
                self._drawn = []
                self._changed.set()
        return 0


async def show_master(path: Path, interval_s: float) -> None:
    """Show the state of the master that listens at `path` until the user quits.

    Raise UserError if there is no master, or when it ends.
    """
    state, view = TopState(), TopView()
    screen = LiveScreen(
        interval_s,
        lambda width, height: screen_lines(state, view, time.time(), width, height),
        lambda key: press(key, state, view),
    )
    async with open_live_stream(path) as stream:

        async def follow() -> None:
            while events := await stream.wait_for_events():
                await take(state, events)
            raise UserError("the master has ended")

        # A screen from before the first Snapshot would say for a second that there is no worker.
        await take(state, await stream.wait_for_events())
        await screen.show(follow)


async def take(state: TopState, events: Iterable[Event]) -> None:
    """Follow events. After a Snapshot (the first one, or one after missed events) read records."""
    for event in events:
        state.apply(event)
        if isinstance(event, Snapshot):
            await fill_from_records(state)


async def fill_from_records(state: TopState) -> None:
    """Take in what was recorded of the builds that run. Without records, leave the state as is."""
    past = PastBuilds(records_directory(Path(state.live.master.tree)))
    for build in list(state.live.builds):
        with suppress(OSError):  # they belong to another user
            state.fill(build, await trio.to_thread.run_sync(past.jobs, build))


async def show_farm(coordinator: Coordinator, interval_s: float) -> None:
    """Show the workers that a coordinator knows until the user quits."""
    view = FarmView(join_address(*coordinator.address), trouble="the coordinator has not answered yet")
    screen = LiveScreen(interval_s, functools.partial(farm_lines, view), lambda key: press_in_farm(key, view))
    pause = functools.partial(trio.sleep, interval_s)
    await screen.show(lambda: follow_workers(coordinator, view, pause))


class WholeTerminal:
    """The terminal of this process, in its alternate screen, with each key at once.

    The terminal is opened anew, so that a write can be told not to block: the description of
    stdout belongs to the shell as well. A slow terminal then delays its drawings, but not the keys
    and the events of the master. `ended_by` is the signal that ended the screen, or 0.
    """

    def __init__(self) -> None:
        self.ended_by = 0
        self._before = termios.tcgetattr(sys.stdin.fileno())
        self._fd = sys.stdout.fileno()
        with suppress(OSError):  # the terminal may belong to another user, after su
            self._fd = os.open(os.ttyname(self._fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._is_own = self._fd != sys.stdout.fileno()

    def __enter__(self) -> "WholeTerminal":
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        if self._is_own:
            os.close(self._fd)

    def enter(self) -> None:
        """Use the alternate screen, and get each key at once."""
        tty.setcbreak(sys.stdin.fileno())
        os.write(sys.stdout.fileno(), _ENTER.encode())

    def leave(self) -> None:
        """Make everything as it was before. Drop what the terminal has not taken yet."""
        with suppress(OSError, termios.error):  # the terminal may be gone, or stopped by Ctrl-S
            termios.tcflush(self._fd, termios.TCOFLUSH)
            os.write(self._fd, _LEAVE.encode())
        with suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._before)

    async def write(self, text: str) -> None:
        """Write to the terminal, which may take only a part at a time."""
        rest = text.encode("utf-8", "backslashreplace")
        while rest:
            await trio.lowlevel.wait_writable(self._fd)
            with suppress(BlockingIOError):
                rest = rest[os.write(self._fd, rest if self._is_own else rest[:_PIECE_BYTES]) :]
