"""The screen of `termite-ctl top -coordinator`: the workers of a whole farm.

A coordinator names no command, path or user to such a reader, so that none is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import set_cell_size

from termite.cli.amounts import size_text
from termite.cli.display.top_screen import Line, Style
from termite.cli.display.worker_words import Standing, farm_standing, farm_word
from termite.engine.wire.protocol.fleet_messages import FarmWorker, WholeFarm
from termite.engine.wire.protocol.foreign_text import printable

STATE_WIDTH = 29  # with a space: that of "lost: silent for 59 min 59 s"
NARROW = 80  # columns in which each state must be seen


@dataclass(slots=True)
class FarmView:
    """The view of a farm: its workers, a trouble ("": none), and the first one shown.

    Workers send a heartbeat every `interval_s`.
    """

    address: str
    workers: Sequence[FarmWorker] = ()
    trouble: str = ""
    first: int = 0
    interval_s: float = 5.0

    def show(self, farm: WholeFarm) -> None:
        """Take in the present state of the farm."""
        self.workers, self.interval_s, self.trouble = farm.workers, farm.interval_s, ""


def farm_lines(view: FarmView, width: int, height: int) -> list[Line]:
    """Return exactly `height` lines of `width` columns."""
    head = _head(view)
    rows, place = _rows(view, max(height - len(head) - 1, 1))
    title = f"termite farm of {printable(view.address)}   (up, down: move, q: quit{place})"
    lines = [Line(title, Style.HEAD), *head, *rows]
    shown = [Line(set_cell_size(line.text, width), line.style) for line in lines[:height]]
    return shown + [Line(" " * width)] * (height - len(shown))


def _head(view: FarmView) -> list[Line]:
    known = [one.worker for one in view.workers if not one.is_gone]
    slots, leased = sum(one.slots for one in known), sum(one.leased for one in known)
    drained = sum(one.draining for one in known)
    lines = [Line(f"{len(known)} workers, {drained} of them drained; {leased} of {slots} slots are leased")]
    if view.trouble:
        lines.append(Line(printable(view.trouble), Style.ALARM))
    elif not known:
        lines.append(Line("no worker is registered", Style.ALARM))
    head = f"{'worker':<18}{'slots':>10}{'load':>6}{'cores':>6}{'free':>10}  {'state':<{STATE_WIDTH}}address"
    return [*lines, Line(head, Style.HEAD)]


def _rows(view: FarmView, room: int) -> tuple[list[Line], str]:
    """Return the lines that there is room for, and which workers they show if they are not all."""

    def order(one: FarmWorker) -> tuple[bool, bool, str]:
        standing = farm_standing(one, view.interval_s)
        return standing is Standing.STOPPED, standing is Standing.WELL, one.worker.name

    drawn = [list(_row(one, view.interval_s)) for one in sorted(view.workers, key=order)]
    # The last page is full: if more workers were left out at the top, lines would be empty.
    last, free = len(drawn), room
    while last and len(drawn[last - 1]) <= free:
        last -= 1
        free -= len(drawn[last])
    view.first = max(min(view.first, last, len(drawn) - 1), 0)
    lines, end = drawn[view.first][:room] if drawn else [], view.first + 1  # a tiny screen shows one line
    while end < len(drawn) and len(lines) + len(drawn[end]) <= room:
        lines += drawn[end]
        end += 1
    return lines, f"; workers {view.first + 1} to {end} of {len(drawn)}" if end - view.first < len(drawn) else ""


def _row(known: FarmWorker, interval_s: float) -> Iterator[Line]:
    one, word = known.worker, farm_word(known, interval_s)
    is_quiet = farm_standing(known, interval_s) in (Standing.WELL, Standing.STOPPED)
    style = Style.PLAIN if is_quiet else Style.ALARM
    figures = (
        f"{printable(one.name, 40):<18}{f'{one.leased} of {one.slots}':>10}{one.load:>6.1f}"
        f"{one.machine.cores or '?':>6}{size_text(one.free_memory_bytes):>10}  "
    )
    is_long = len(figures) + len(word) > NARROW
    yield Line(f"{figures}{'' if is_long else word:<{STATE_WIDTH}}{printable(one.address, 60)}", style)
    if is_long:  # a line of its own, so that a narrow screen shows the reason, too
        yield Line(f"    {word}", style)


def press_in_farm(key: str, view: FarmView) -> bool:
    """Change the view by a key, whose name is as in top_screen. Return False to quit."""
    match key:
        case "q":
            return False
        case "up" | "k":
            view.first = max(view.first - 1, 0)
        case "down" | "j":
            view.first += 1
    return True
