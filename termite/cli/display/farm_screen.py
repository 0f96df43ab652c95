"""The screen of `termite-ctl top -coordinator`: the workers of a whole farm.

A coordinator names no command, path or user to such a reader, so that none is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import set_cell_size

from termite.cli.amounts import duration_text, size_text
from termite.cli.display.top_screen import Line, Style
from termite.engine.wire.protocol.fleet_messages import FarmWorker, WholeFarm
from termite.engine.wire.protocol.foreign_text import printable


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
    lines = [*_head(view), *_rows(view, max(height - 4, 0))]
    shown = [Line(set_cell_size(line.text, width), line.style) for line in lines[:height]]
    return shown + [Line(" " * width)] * (height - len(shown))


def _head(view: FarmView) -> list[Line]:
    known = [one.worker for one in view.workers if not one.is_lost]
    slots, leased = sum(one.slots for one in known), sum(one.leased for one in known)
    drained = sum(one.draining for one in known)
    lines = [
        Line(f"termite farm of {printable(view.address)}   (up, down: move, q: quit)", Style.HEAD),
        Line(f"{len(known)} workers, {drained} of them drained; {leased} of {slots} slots are leased"),
    ]
    if view.trouble:
        lines.append(Line(printable(view.trouble), Style.ALARM))
    elif not view.workers:
        lines.append(Line("no worker is registered", Style.ALARM))
    head = f"{'worker':<24}{'slots':>12}{'load':>8}{'cores':>7}{'free memory':>14}  {'address':<24}state"
    return [*lines, Line(head, Style.HEAD)]


def _rows(view: FarmView, room: int) -> list[Line]:
    workers = sorted(view.workers, key=lambda one: (not farm_word(one, view.interval_s), one.worker.name))
    view.first = max(min(view.first, len(workers) - room), 0)
    return [_row(one, farm_word(one, view.interval_s)) for one in workers[view.first : view.first + room]]


def _row(known: FarmWorker, word: str) -> Line:
    one = known.worker
    return Line(
        f"{printable(one.name, 40):<24}{f'{one.leased} of {one.slots}':>12}{one.load:>8.1f}"
        f"{one.machine.cores or '?':>7}{size_text(one.free_memory_bytes):>14}  "
        f"{printable(one.address, 60):<24}{word}",
        Style.ALARM if word else Style.PLAIN,
    )


def farm_word(known: FarmWorker, interval_s: float) -> str:
    """Return the state of a worker in a few words: lost, silent, drained, or nothing special.

    A worker is silent if two heartbeats are missing.
    """
    worker = known.worker
    if known.is_lost:
        return f"lost: silent for {duration_text(known.silent_s)}"
    if worker.rival:
        return printable(f"another worker at {worker.rival} has the same name")
    if known.silent_s > 2 * interval_s:
        return f"silent for {duration_text(known.silent_s)}"
    return "drained" if worker.draining else ""


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
