"""The screen of `termite-ctl top`: lines for a width and a height, from the state of a master.

`TopState` follows the events of a live stream. `screen_lines` draws it, and only as many jobs as
the screen has lines.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from rich.cells import cell_len, chop_cells, set_cell_size

from termite.cli.amounts import duration_text, size_text
from termite.cli.display.build_text import build_title, progress_text
from termite.cli.display.job_text import cause_word, end_word, job_lines, place_word, slot_time_s
from termite.cli.display.worker_words import Standing, standing_of, worker_word
from termite.engine.errors import words_of
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Stage, Where, Why
from termite.engine.history.logic.live_events import BuildEnded, BuildStarted, Event, JobHome, Snapshot, WorkerState
from termite.engine.history.logic.live_state import LiveState
from termite.engine.wire.protocol.foreign_text import printable

RATE_S = 10.0  # rates are means over so long
SLOWEST = 100
RECENT = 1000  # jobs that came home and can still be looked at


class Pane(Enum):
    """A list of the lower part of the screen."""

    RUNNING = "running"
    WAITING = "waiting"
    SLOWEST = "slowest"
    LOCAL = "local"


class Style(Enum):
    """The style in which a line is shown."""

    PLAIN = "plain"
    HEAD = "head"
    MARKED = "marked"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen: printable text, as wide as the screen."""

    text: str
    style: Style = Style.PLAIN


class BuildHomes:
    """The jobs of one build that came home: by cause those that ran locally, and the slowest."""

    def __init__(self) -> None:
        self.local: Counter[str] = Counter()
        self.slowest: list[tuple[float, int, JobRecord]] = []  # a heap by the time that they held a slot

    def add(self, job: JobRecord) -> None:
        """Take in a job, once."""
        if job.where is Where.HERE:
            self.local["short" if job.cause.kind is Why.SHORT else cause_word(job.cause)] += 1
        entry = (slot_time_s(job), job.id, job)
        if len(self.slowest) < SLOWEST:
            heapq.heappush(self.slowest, entry)
        else:
            heapq.heappushpop(self.slowest, entry)


class TopState:
    """The state of a master, with what top has seen or read of the builds that run.

    `now_s` is the time of the last drawing. The slowest jobs, and the causes of local ones, are
    those of the builds that run, or of the last one if none runs.
    """

    def __init__(self) -> None:
        self.live = LiveState()
        self.now_s = 0.0
        self.recent: dict[int, JobRecord] = {}
        self._by_build: dict[int, BuildHomes] = {}
        self._over: set[int] = set()  # of these builds
        self._filled: set[int] = set()  # jobs that were read from the disk after the last Snapshot
        self._homes: deque[tuple[float, int, int]] = deque()  # time, bytes sent, bytes received

    def apply(self, event: Event) -> None:
        """Follow one event."""
        self.live.apply(event)
        match event:
            case JobHome(job=job) if job.id in self._filled:
                self._filled.discard(job.id)
            case JobHome(job=job):
                self._follow_home(job)
            case BuildEnded(build=build):
                self._over.add(build.id)
            case BuildStarted():
                self._forget_ended()
            case Snapshot():
                self._homes.clear()
                self._filled.clear()
                self._over |= self._by_build.keys() - self.live.builds.keys()

    def fill(self, build: int, jobs: Iterable[JobRecord]) -> None:
        """Take in the records of a running build from before this reader came.

        Call this after a Snapshot, before the next event. The records replace what was seen of the
        build: events may have been missed. Records of jobs of the Snapshot do not count, because
        their events are still to come. The event of a job that came later counts no second time.
        """
        self._by_build.pop(build, None)
        for job in jobs:
            if job.id not in self.live.jobs:
                self._filled.add(job.id)
                self._follow_home(job)

    def _follow_home(self, job: JobRecord) -> None:
        self.recent[job.id] = job
        if len(self.recent) > RECENT:
            self.recent.pop(next(iter(self.recent)))
        self._by_build.setdefault(job.build, BuildHomes()).add(job)
        if job.home_s > self.live.at_s - RATE_S:
            self._homes.append((job.home_s, job.sent_bytes, job.received_bytes))

    def _forget_ended(self) -> None:
        for build in self._over:
            self._by_build.pop(build, None)

    @property
    def _shown(self) -> list[BuildHomes]:
        """The jobs that came home of the builds that run, or of the last one if none runs."""
        running = self._by_build.keys() - self._over
        return [self._by_build[build] for build in running or sorted(self._by_build)[-1:]]

    @property
    def local(self) -> Counter[str]:
        """The number of jobs that ran locally, by cause."""
        return sum((homes.local for homes in self._shown), Counter())

    def rates(self, now_s: float) -> tuple[float, float, float]:
        """Return jobs, bytes sent and bytes received a second, over the last ten seconds."""
        while self._homes and self._homes[0][0] < now_s - RATE_S:
            self._homes.popleft()
        # The records of several builds are not in the order of their times.
        seen = [entry for entry in self._homes if entry[0] >= now_s - RATE_S]
        sent, received = sum(entry[1] for entry in seen), sum(entry[2] for entry in seen)
        return len(seen) / RATE_S, sent / RATE_S, received / RATE_S

    def job(self, number: int) -> JobRecord | None:
        """Return a job that runs, waits, came home lately, or is one of the slowest."""
        slowest = (job for homes in self._shown for _, _, job in homes.slowest if job.id == number)
        return self.live.jobs.get(number) or self.recent.get(number) or next(slowest, None)

    def listed(self, pane: Pane) -> list[JobRecord]:
        """Return the jobs of a pane: those that run, wait or took longest first."""
        match pane:
            case Pane.RUNNING:
                return sorted(self.live.running(self.now_s), key=lambda job: (job.sent_s, job.id))
            case Pane.WAITING:
                return sorted(self.live.waiting, key=lambda job: (job.queued_s, job.id))
            case Pane.SLOWEST:
                return [
                    job for _, _, job in heapq.nlargest(SLOWEST, (e for homes in self._shown for e in homes.slowest))
                ]
        return []


@dataclass(slots=True)
class TopView:
    """The view of the user: a pane, the marked job in it, an open job (0: none), open help.

    `marked_job` is 0 if the first row is marked, whatever job is there. Another mark stays on its
    job while rows come and go above it. `row` is where that job was last, for when it has gone.
    `first` is the first row that is shown, and `first_line` that of an open job.
    """

    pane: Pane = Pane.RUNNING
    marked_job: int = 0
    row: int = 0
    first: int = 0
    open_job: int = 0
    first_line: int = 0
    is_help_open: bool = False

    def find_marked(self, jobs: Sequence[JobRecord]) -> int:
        """Return the row of the marked job among those of the pane."""
        if self.marked_job:
            at = next((at for at, job in enumerate(jobs) if job.id == self.marked_job), self.row)
            self.row = max(min(at, len(jobs) - 1), 0)
            self.marked_job = jobs[self.row].id if self.row else 0
        else:
            self.row = 0
        return self.row

    def mark(self, row: int, jobs: Sequence[JobRecord]) -> None:
        """Mark the job of a row, or else of the nearest one."""
        self.row = max(min(row, len(jobs) - 1), 0)
        self.marked_job = jobs[self.row].id if self.row else 0


_LEAST_TITLE = 16  # columns of a build's title on a very narrow screen
HELP = """\
up, down, k, j   mark another job, or move in what is open
page up, down    the same, by many lines; home, end: first or last one
enter, o, w      show the marked job: why it runs there, its last output
tab              list running, waiting, slowest, or why jobs ran locally
escape           close what is open
?                this help
q                quit"""


def screen_lines(state: TopState, view: TopView, now_s: float, width: int, height: int) -> list[Line]:
    """Return exactly `height` lines of `width` columns."""
    state.now_s = now_s
    if view.is_help_open:
        lines = [Line("termite-ctl top", Style.HEAD), *map(Line, HELP.splitlines())]
    elif view.open_job:
        lines = _job_page(state, view, width, height)
    else:
        lines = _main_page(state, view, now_s, width, height)
    shown = [Line(set_cell_size(line.text, width), line.style) for line in lines[:height]]
    return shown + [Line(" " * width)] * (height - len(shown))


def _job_page(state: TopState, view: TopView, width: int, height: int) -> list[Line]:
    number, room = view.open_job, max(height - 1, 1)
    job = state.job(number)
    if job is None:
        return [Line(f"job {number} came home long ago: see termite-ctl log {number}", Style.HEAD)]
    texts = [part for text in job_lines(job, state.live.master.tree, state.now_s) for part in _pieces(text, width)]
    view.first_line = max(min(view.first_line, len(texts) - room), 0)
    last = min(view.first_line + room, len(texts))
    place = f"; lines {view.first_line + 1} to {last} of {len(texts)}" if len(texts) > room else ""
    return [Line(f"job {number}   (escape: back{place})", Style.HEAD), *map(Line, texts[view.first_line : last])]


def _pieces(text: str, width: int) -> list[str]:
    return [text] if len(text) * 2 <= width else chop_cells(text, max(width, 2)) or [""]


def _main_page(state: TopState, view: TopView, now_s: float, width: int, height: int) -> list[Line]:
    lines = [*_head(state, now_s, width), *_workers(state, now_s, width, max(height // 3, 3))]
    titles = "   ".join(f"[{pane.value}]" if pane is view.pane else pane.value for pane in Pane)
    room = max(height - len(lines) - 1, 0)
    if view.pane is Pane.LOCAL:
        rows = [Line(f"{count:>7}  {printable(words_of(cause))}") for cause, count in state.local.most_common(room)]
        return [*lines, Line(f"{titles}   (tab: next, ?: help)", Style.HEAD), *rows]
    jobs = state.listed(view.pane)
    marked = view.find_marked(jobs)
    room = max(room - 1, 1)
    view.first = max(min(view.first, marked, len(jobs) - room), marked - room + 1, 0)
    place = f"; {marked + 1} of {len(jobs)}" if len(jobs) > room else ""
    lines.append(Line(f"{titles}   (tab: next, ?: help{place})", Style.HEAD))
    return lines + list(_job_rows(jobs[view.first : view.first + room], marked - view.first, now_s))


def _head(state: TopState, now_s: float, width: int) -> Iterator[Line]:
    live = state.live
    yield Line(f"termite {live.master.version}  {printable(live.master.tree)}  master {live.master.pid}", Style.HEAD)
    running, waiting = len(live.running(now_s)), len(live.waiting)
    jobs, sent, received = state.rates(now_s)
    yield Line(
        f"{running} running, {waiting} waiting; {jobs:.1f} jobs/s, "
        f"{size_text(sent)}/s sent, {size_text(received)}/s received"
        + (f"; {live.missed} events missed" if live.missed else "")
    )
    for build in list(live.builds.values())[:3]:
        yield Line(_build_text(build, live.home_counts.get(build.id, 0), now_s, width))
    if not live.builds:
        yield Line("no build runs")
    if live.waits_for:
        yield Line(f"the queue waits for {printable(live.waits_for)}", Style.ALARM)


def _build_text(build: BuildRecord, home: int, now_s: float, width: int) -> str:
    """Return the line of a build. A long title is cut, so that the progress is always seen."""
    name, progress = f"build {build.id}: {printable(build_title(build))}", progress_text(build, home, now_s)
    room = max(width - len(progress) - 2, _LEAST_TITLE)
    if cell_len(name) > room:
        name = set_cell_size(name, room - 1) + "…"
    return f"{name}: {progress}"


def _workers(state: TopState, now_s: float, width: int, room: int) -> Iterator[Line]:
    workers = sorted(state.live.workers.values(), key=_worker_order)
    yield Line(f"{'worker':<20}{'busy':>10}{'jobs':>8}{'load':>7}{'free':>10}  state", Style.HEAD)
    if all(worker.is_gone for worker in workers):
        yield Line("none: commands run on this machine", Style.ALARM)
    for at, worker in enumerate(workers):
        lines = _worker_lines(worker, now_s, width)
        room -= len(lines)
        if room < 0:
            yield Line(f"and {len(workers) - at} more workers")
            return
        yield from lines


def _worker_lines(worker: WorkerState, now_s: float, width: int) -> list[Line]:
    style = Style.ALARM if standing_of(worker).is_bad else Style.PLAIN
    figures, word = _worker_figures(worker), worker_word(worker, now_s)
    if not word or len(figures) + len(word) <= width:
        return [Line(figures + word, style)]
    # A line of its own, so that a narrow screen shows the reason, too.
    return [Line(figures, style), Line(f"    {word}", style)]


def _worker_order(worker: WorkerState) -> tuple[bool, bool, str]:
    """Sort those that are in trouble first, and those that were stopped last."""
    standing = standing_of(worker)
    return not standing.is_bad, standing is Standing.STOPPED, worker.name


def _worker_figures(worker: WorkerState) -> str:
    load = f"{worker.load:.1f}" if worker.load >= 0 else "?"
    free = size_text(worker.free_memory_bytes) if worker.free_memory_bytes else "?"
    busy = f"{worker.running} of {worker.slots}"
    return f"{printable(worker.name, 40):<20}{busy:>10}{worker.jobs:>8}{load:>7}{free:>10}  "


def _job_rows(jobs: Sequence[JobRecord], marked: int, now_s: float) -> Iterator[Line]:
    yield Line(f"{'job':>7}  {'place':<16}{'stage':<8}{'time':>9}  {'end':<8} command", Style.HEAD)
    for at, job in enumerate(jobs):
        spent_s = slot_time_s(job, now_s) if job.sent_s else max(now_s - job.queued_s, 0.0)
        text = printable(job.text.partition("\n")[0])
        yield Line(
            f"{job.id:>7}  {place_word(job):<16.16}{_STAGES[job.stage]:<8}{duration_text(spent_s):>9}  "
            f"{end_word(job):<8} {text}",
            Style.MARKED if at == marked else Style.PLAIN,
        )


_STAGES = {Stage.QUEUED: "waits", Stage.SENT: "runs", Stage.ENDED: "returns", Stage.HOME: "home"}

# By how many rows a key moves, with a page of ten.
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10, "home": -(10**9), "end": 10**9}


def press(key: str, state: TopState, view: TopView) -> bool:
    """Change the view by a key. Return False if the user wants to quit.

    Keys have names: `up`, `page down`, `enter`, `escape`, `tab`, or the character.
    """
    match key:
        case "q":
            return False
        case "?":
            view.is_help_open = not view.is_help_open
        case "escape":
            view.is_help_open, view.open_job = False, 0
        case "tab":
            panes = list(Pane)
            view.pane, view.open_job = panes[(panes.index(view.pane) + 1) % len(panes)], 0
            view.marked_job = view.first = 0
        case "enter" | "o" | "w":
            jobs = state.listed(view.pane)
            if jobs and not view.open_job:
                view.open_job, view.first_line = jobs[view.find_marked(jobs)].id, 0
        case _ if key in _MOVES and view.open_job:
            view.first_line = max(view.first_line + _MOVES[key], 0)
        case _ if key in _MOVES:
            jobs = state.listed(view.pane)
            view.mark(view.find_marked(jobs) + _MOVES[key], jobs)
    return True
