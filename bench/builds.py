"""Whole builds, plain ones and those with termite, at the same path and in turns.

The master, the worker and the build are processes of their own on one machine. The figures
therefore show the cost of distribution, but not the time that other machines would save.
"""

import contextlib
import dataclasses
import math
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench import daemons
from bench.cpu import process_cpu_s
from bench.figures import NO_TARGETS, Figure, Measured, Target, Targets, compared, of_plain, ratios
from bench.packages import install
from bench.record import recording_environment, write_recorded
from bench.rounds import BenchError, Settings
from bench.turns import TERMITE, Build, Steps, alone, as_measured, in_turns
from projects import (
    CHECKOUT,
    COMMANDS,
    Place,
    Project,
    configure,
    job_counts,
    missing_needs,
    peak_bytes,
    read_project,
    save,
    unpack,
)
from trees import put_back

EXAMPLES = CHECKOUT / "examples"
KEEPALIVE_S = 7200  # a lease must outlast the builds of the other sides in a round
SMALL_ROUNDS = 5  # times as many rounds as other builds have: a build of four seconds has few turns
PREPARED = "prepared"  # this file marks a completely prepared project; it holds the recipe and the compiler's version

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ground:
    """A ground is a project that is configured and saved, ready to be built again and again."""

    project: Project
    place: Place
    settings: Settings

    def build(
        self, side: str, lines: Sequence[str], env: Mapping[str, str] | None = None, project: Project | None = None
    ) -> Build:
        """Return a build that runs these command lines in the tree as it was configured."""
        return Build(side, tuple(lines), env or {}, project or self.project, self.place)

    def plain_lines(self) -> list[str]:
        """Return the command lines of a build without termite."""
        return self.project.lines(self.settings.jobs)

    def plain(self) -> Steps[Measured]:
        """Build without termite and return the measurement."""
        return (yield self.build("plain", self.plain_lines()))

    def termite_lines(self) -> list[str]:
        """Return the command lines of a build through termite's front ends."""
        return [f"{COMMANDS / 'termite-'}{line}" for line in self.plain_lines()]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A traffic count has the requests and bytes that went over the wire between master and worker.

    Each request costs at most one round trip.
    """

    requests: Counter[str]  # by kind
    sent_bytes: int
    received_bytes: int

    def since(self, before: "Traffic") -> "Traffic":
        """Return the traffic between an earlier count and this one."""
        requests = self.requests - before.requests
        return Traffic(requests, self.sent_bytes - before.sent_bytes, self.received_bytes - before.received_bytes)


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote build has the measurement of one build through a master, and its daemons' work."""

    measured: Measured
    jobs: Counter[str]
    master_s: float
    mirror_s: float
    peaks: Mapping[str, int]  # bytes, by process
    traffic: Traffic


def traffic_of(status: Mapping[str, Any]) -> Traffic:
    """Return the traffic since the master started, from its status."""
    return Traffic(Counter(status["messages"]), status["bytes_sent"], status["bytes_received"])


def lua(settings: Settings) -> list[Figure]:
    """Measure warm builds of Lua against plain make."""
    return _small(settings, "lua")


def zlib(settings: Settings) -> list[Figure]:
    """Measure warm builds of zlib against plain make."""
    return _small(settings, "zlib")


def _small(settings: Settings, name: str) -> list[Figure]:
    if not settings.quick:
        settings = dataclasses.replace(settings, rounds=SMALL_ROUNDS * settings.rounds)
    ground = prepare(settings, EXAMPLES / name / "example.toml")
    return warm_ground(settings, name, ground, Targets(wall=Target(1.08)))


def warm_ground(settings: Settings, name: str, ground: Ground, targets: Targets) -> list[Figure]:
    """Measure a project's warm builds: master and worker have built it once before."""
    with warmed(ground) as termite:
        plain, remote = measure_both(settings, ground.plain, termite)
    return [
        *of_plain(name, plain),
        *beside(name, "termite", remote, plain, targets),
        *inside(name, remote),
        *master_share(name, remote, plain),
    ]


@contextlib.contextmanager
def warmed(ground: Ground) -> Iterator[Callable[[], Steps[Remote]]]:
    """Start a cluster, build once with termite, and yield a function that begins another build."""
    with cluster(ground) as (master, worker):
        ground.settings.say("once with termite, to warm it up")
        as_measured(ground.settings, build_remotely(ground, master, worker))
        yield lambda: build_remotely(ground, master, worker)


def measure_both(
    settings: Settings, plain: Callable[[], Steps[Measured]], termite: Callable[[], Steps[Remote]]
) -> tuple[list[Measured], list[Remote]]:
    """Measure plain builds and builds with termite in turns; return the results of both."""
    sides: dict[str, Callable[[], Steps[Measured] | Steps[Remote]]] = {"plain": plain, TERMITE: termite}
    runs = in_turns(settings, sides)
    return all_of(Measured, runs["plain"]), all_of(Remote, runs[TERMITE])


def all_of(kind: type[T], results: Iterable[object]) -> list[T]:
    """Return one side's results with their type restored: all results of a side have one type."""
    found = []
    for one in results:
        assert isinstance(one, kind), f"{type(one).__name__} of a side that has {kind.__name__}"
        found.append(one)
    return found


def beside(
    name: str, side: str, remote: Sequence[Remote], plain: Sequence[Measured], targets: Targets = NO_TARGETS
) -> list[Figure]:
    """Return the figures that compare builds through a master with plain ones."""
    return compared(name, side, [one.measured for one in remote], plain, targets)


def inside(name: str, remote: Sequence[Remote]) -> list[Figure]:
    """Return what the daemons did for each job on the worker.

    The master's CPU includes its work for jobs that ran on the master's machine.
    """

    def per_job(of: Callable[[Remote], float]) -> tuple[float, ...]:
        return tuple(of(one) / one.jobs["remote"] for one in remote)

    return [
        Figure(name, "jobs on the worker", "", tuple(float(one.jobs["remote"]) for one in remote)),
        Figure(name, "jobs here, as they are short", "", tuple(float(one.jobs["short"]) for one in remote)),
        Figure(name, "jobs here, by a rule", "", tuple(float(one.jobs["local"]) for one in remote)),
        Figure(name, "FUSE requests a job", "", per_job(lambda one: one.jobs["requests"])),
        Figure(name, "CPU of the master / jobs on the worker", "ms", per_job(lambda one: 1000 * one.master_s)),
        Figure(name, "CPU of the mirror a job", "ms", per_job(lambda one: 1000 * one.mirror_s)),
        Figure(name, "requests on the wire a job", "", per_job(lambda one: one.traffic.requests.total())),
        Figure(name, "sent to the worker a job", "KB", per_job(lambda one: one.traffic.sent_bytes / 1024)),
        Figure(name, "received from the worker a job", "KB", per_job(lambda one: one.traffic.received_bytes / 1024)),
        *(
            Figure(name, f"peak memory of the {who}", "MB", tuple(one.peaks.get(who, 0) / 2**20 for one in remote))
            for who in ("master", "mirror")
        ),
    ]


def master_share(name: str, remote: Sequence[Remote], plain: Sequence[Measured]) -> list[Figure]:
    """Return the CPU of the plain build divided by the master's CPU; nothing if it was not counted.

    If every job is remote, the ratio is the number of worker cores that one core of the master
    keeps busy. Otherwise the master's CPU also has its decisions about jobs that ran locally.
    """
    samples = ratios([one.own_s for one in plain], [one.master_s for one in remote])
    if not samples or any(map(math.isnan, samples)):  # without a cgroup the CPU of the plain build is unknown
        return []
    return [Figure(name, "CPU of plain / CPU of the master", "x", samples)]


def build_remotely(ground: Ground, master: daemons.Master, worker: daemons.Worker) -> Steps[Remote]:
    """Build once through the master and measure it.

    Raise BenchError if no job ran on the worker, or if one was retried or fell back. Such a
    build must not be taken for a normal one.
    """
    status, master_s, mirror_s = master.status(), master.cpu_s(), _mirrors_cpu_s(worker)
    measured = yield ground.build(TERMITE, ground.termite_lines(), _caches(master.env))
    after = master.status()
    counted = job_counts(after) - job_counts(status)
    if not counted["remote"] or counted["fallbacks"] or counted["retried"]:
        raise BenchError(f"jobs did not run as they should, see {ground.place.logs}: {dict(counted)}")
    peaks = {"master": peak_bytes(master.pid), "mirror": max(map(peak_bytes, worker.mirrors()), default=0)}
    traffic = traffic_of(after).since(traffic_of(status))
    return Remote(measured, counted, master.cpu_s() - master_s, _mirrors_cpu_s(worker) - mirror_s, peaks, traffic)


def record(settings: Settings, name: str, file: Path) -> None:
    """Build a project plainly, one command at a time, and record its commands."""
    ground = prepare(settings, file)
    log = settings.work / f"record-{name}.jsonl"
    log.unlink(missing_ok=True)
    lines = [f"{line} -d keepdepfile" if line.startswith("ninja") else line for line in ground.project.lines(1)]
    build = ground.build("record", lines, recording_environment(COMMANDS / "libtermite-exec.so", log))
    alone(settings, _only(build))
    settings.say(f"{write_recorded(name, log)} commands recorded")


def prepare(
    settings: Settings, file: Path, place: str = "", more: Callable[[Ground], None] = lambda ground: None
) -> Ground:
    """Fetch, unpack and configure a project at `place`, unless an earlier run has done it.

    `place` is a directory name below the work directory; "" means one named after the project's
    file. `more` is called before the tree is saved. Raise BenchError, ProjectError or SourceError
    if the project cannot be prepared.
    """
    project = read_project(file)
    install(" ".join(missing_needs(project).values()).split(), settings.say)
    base = settings.work / (place or f"{file.parent.name}-{file.stem}")
    ground = Ground(project, Place.below(base), settings)
    rules = file.parent / "termite-localrc"
    recipe = file.read_text() + rules.read_text() + _compiler_version()
    prepared = base / PREPARED
    if settings.fresh or not prepared.exists() or prepared.read_text() != recipe:
        settings.say(f"preparing {project.title}")
        unpack(project, ground.place, settings.sources, rules)
        configure(project, ground.place, settings.say)
        more(ground)
        save(ground.place)
        prepared.write_text(recipe)
    return ground


@contextlib.contextmanager
def cluster(ground: Ground, *worker_flags: str, keep: bool = False) -> Iterator[tuple[daemons.Master, daemons.Worker]]:
    """Start a coordinator, one worker and a master for the tree; stop them at the end.

    The worker's store and the master's digests are empty. If `keep` is set, both still have the
    contents of the previous cluster.
    """
    base = ground.place.logs.parent / "cluster"
    if not keep:
        shutil.rmtree(base, ignore_errors=True)
    put_back(ground.place.tree, ground.place.saved)
    flags = ("--keepalive", str(KEEPALIVE_S))
    with contextlib.ExitStack() as stack:
        with ground.settings.accounts.inside(TERMITE):
            fleet = stack.enter_context(daemons.fleet(base))
            worker = stack.enter_context(daemons.worker(fleet, "w", *worker_flags))
            master = stack.enter_context(daemons.master(fleet, ground.place.tree, *flags, short=ground.settings.short))
        master.wait_for_workers(1)
        yield master, worker


def _compiler_version() -> str:
    return subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True, timeout=60).stdout


def _only(build: Build) -> Steps[Measured]:
    return (yield build)


def _mirrors_cpu_s(worker: daemons.Worker) -> float:
    return sum(map(process_cpu_s, worker.mirrors()))


def _caches(env: Mapping[str, str]) -> dict[str, str]:
    """Return only the variable that names the master's caches.

    The rest of its environment is left out, because a job must see the environment of a plain one.
    """
    return {name: env[name] for name in ("XDG_CACHE_HOME",)}
