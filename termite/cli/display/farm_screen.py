"""The screen of `termite-ctl top -coordinator`: the workers of a whole farm.

A coordinator knows no command, path or user, so that none is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import set_cell_size

from termite.cli.amounts import size_text
from termite.cli.display.top_screen import Line, Style
from termite.engine.wire.protocol.fleet_messages import ListedWorker
from termite.engine.wire.protocol.foreign_text import printable


@dataclass(slots=True)
class FarmView:
    """The view of a farm: its workers, a trouble ("": none), and the first one shown."""

    address: str
    workers: Sequence[ListedWorker] = ()
    trouble: str = ""
    first: int = 0


def farm_lines(view: FarmView, width: int, height: int) -> list[Line]:
    """Return exactly `height` lines of `width` columns."""
    lines = [*_head(view), *_rows(view, max(height - 4, 0))]
    shown = [Line(set_cell_size(line.text, width), line.style) for line in lines[:height]]
    return shown + [Line(" " * width)] * (height - len(shown))


def _head(view: FarmView) -> list[Line]:
    slots, leased = sum(one.slots for one in view.workers), sum(one.leased for one in view.workers)
    draining = sum(one.draining for one in view.workers)
    lines = [
        Line(f"termite farm of {printable(view.address)}   (up, down: move, q: quit)", Style.HEAD),
        Line(f"{len(view.workers)} workers, {draining} of them draining; {leased} of {slots} slots are leased"),
    ]
    if view.trouble:
        lines.append(Line(printable(view.trouble), Style.ALARM))
    elif not view.workers:
        lines.append(Line("no worker is registered", Style.ALARM))
    head = f"{'worker':<24}{'slots':>12}{'load':>8}{'cores':>7}{'free memory':>14}  {'address':<24}state"
    return [*lines, Line(head, Style.HEAD)]


def _rows(view: FarmView, room: int) -> list[Line]:
    workers = sorted(view.workers, key=lambda one: (not _trouble_of(one), one.name))
    view.first = max(min(view.first, len(workers) - room), 0)
    return [
        Line(
            f"{printable(one.name, 40):<24}{f'{one.leased} of {one.slots}':>12}{one.load:>8.1f}"
            f"{one.machine.cores or '?':>7}{size_text(one.free_memory_bytes):>14}  "
            f"{printable(one.address, 60):<24}{_trouble_of(one)}",
            Style.ALARM if _trouble_of(one) else Style.PLAIN,
        )
        for one in workers[view.first : view.first + room]
    ]


def _trouble_of(worker: ListedWorker) -> str:
    if worker.rival:
        return printable(f"another worker at {worker.rival} has the same name")
    return "draining" if worker.draining else ""


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
