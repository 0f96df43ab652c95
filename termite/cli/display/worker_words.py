"""Say in a few words how a worker is: as a master sees it, and as its coordinator does.

Each `Standing` has a look of its own on pages (termite/cli/web/static/style.css). The words stand
beside it, so that nobody needs colours.
"""

from enum import StrEnum

from termite.cli.amounts import duration_text
from termite.engine.errors import words_of
from termite.engine.history.logic.live_events import WorkerState
from termite.engine.wire.protocol.fleet_messages import FarmWorker
from termite.engine.wire.protocol.foreign_text import printable


class Standing(StrEnum):
    """A kind of state of a worker. The values are classes of pages."""

    WELL = "well"
    IDLE = "idle"  # a master holds no slot of it, and nothing is wrong
    DRAINED = "drained"
    SILENT = "silent"
    REFUSED = "refused"
    BROKEN = "broken"
    LOST = "lost"
    STOPPED = "stopped"

    @property
    def is_bad(self) -> bool:
        """True if somebody should look at the worker."""
        return self in (Standing.SILENT, Standing.REFUSED, Standing.BROKEN, Standing.LOST)


def standing_of(worker: WorkerState) -> Standing:
    """Return how a worker is for a master."""
    if worker.is_gone:
        return Standing.LOST if worker.is_lost else Standing.STOPPED
    if worker.reason:
        return Standing.REFUSED
    if worker.silent_since_s:
        return Standing.SILENT
    if worker.broken_since_s:
        return Standing.BROKEN
    if worker.is_drained:
        return Standing.DRAINED
    return Standing.WELL if worker.slots else Standing.IDLE


def worker_word(worker: WorkerState, now_s: float) -> str:
    """Return the state of a worker in a few words, or "" if there is nothing special."""

    def since(at_s: float) -> str:
        return duration_text(max(now_s - at_s, 0.0))

    match standing_of(worker):
        case Standing.LOST:
            return f"lost: silent for {since(worker.gone_since_s)}"
        case Standing.STOPPED:
            return f"stopped {since(worker.gone_since_s)} ago"
        case Standing.REFUSED:
            return printable(f"refused: {words_of(worker.reason)}{f' ({worker.detail})' if worker.detail else ''}")
        case Standing.SILENT:
            waits = "1 job waits" if worker.running == 1 else f"{worker.running} jobs wait"
            return f"silent for {since(worker.silent_since_s)}; {waits} for it"
        case Standing.BROKEN:
            return f"the connection broke {since(worker.broken_since_s)} ago; no slot is leased"
        case Standing.DRAINED:
            still = "1 job still runs" if worker.running == 1 else f"{worker.running} jobs still run"
            return f"drained; {still}" if worker.running else "drained"
        case Standing.IDLE:
            return "no slot is leased"
    return ""


def farm_standing(known: FarmWorker, interval_s: float) -> Standing:
    """Return how a worker is for its coordinator. It is silent if two heartbeats are missing."""
    if known.is_gone:
        return Standing.LOST if known.is_lost else Standing.STOPPED
    if known.worker.rival:
        return Standing.REFUSED
    if known.silent_s > 2 * interval_s:
        return Standing.SILENT
    return Standing.DRAINED if known.worker.draining else Standing.WELL


def farm_word(known: FarmWorker, interval_s: float) -> str:
    """Return the state of a worker of a farm in a few words, or "" if nothing is special."""
    match farm_standing(known, interval_s):
        case Standing.LOST:
            return f"lost: silent for {duration_text(known.silent_s)}"
        case Standing.STOPPED:
            return f"stopped {duration_text(known.silent_s)} ago"
        case Standing.REFUSED:
            return printable(f"another worker at {known.worker.rival} has the same name")
        case Standing.SILENT:
            return f"silent for {duration_text(known.silent_s)}"
        case Standing.DRAINED:
            return "drained"
    return ""
