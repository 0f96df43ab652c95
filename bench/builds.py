"""Whole builds: plainly and with termite, at the same path, in alternation, everything warm.

The master, the worker and the build are processes of their own on this machine: what distribution costs, without
what it gains.
"""

import contextlib
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from bench import daemons
from bench.cpu import process_cpu_s
from bench.figures import Figure, Measured, Target, Targets, compared, of_plain
from bench.record import recording_environment, write_recorded
from bench.rounds import BenchError, Settings, alternate
from projects import (
    CHECKOUT,
    COMMANDS,
    Place,
    Project,
    check_needs,
    configure,
    job_counts,
    peak_bytes,
    read_project,
    run,
)
from trees import put_back

EXAMPLES = CHECKOUT / "examples"
PREPARED = "prepared"  # a file that says that a tree was prepared to the end


@dataclass(frozen=True, slots=True)
class Ground:
    """A project that is configured and saved, ready to be built again and again."""

    name: str
    project: Project
    place: Place
    settings: Settings

    def build(self, side: str, lines: Sequence[str], env: Mapping[str, str] | None = None) -> Measured:
        """The tree as it was configured, then these command lines, timed."""
        put_back(self.place.tree, self.place.saved)

        def work() -> None:
            for line in lines:
                run(shlex.split(line), self.project, self.place, side, env=env, limit_s=self.settings.limit_s)

        return self.settings.accounts.measure(work)

    def plain_lines(self) -> list[str]:
        return self.project.lines(self.settings.jobs)

    def termite_lines(self) -> list[str]:
        return [f"{COMMANDS / 'termite-'}{line}" for line in self.plain_lines()]


@dataclass(frozen=True, slots=True)
class Remote:
    """One build through a master: what it took, and what the daemons did for it."""

    measured: Measured
    jobs: Counter[str]
    master_s: float
    mirror_s: float
    peaks: Mapping[str, int] = field(default_factory=dict)  # bytes, by process


def lua(settings: Settings) -> list[Figure]:
    return warm(settings, "lua", "example", Targets(wall=Target(1.08)))


def zlib(settings: Settings) -> list[Figure]:
    return warm(settings, "zlib", "example", Targets(wall=Target(1.08)))


def warm(settings: Settings, name: str, variant: str, targets: Targets) -> list[Figure]:
    """An example, when everything is known everywhere."""
    ground = prepare(settings, name, variant)
    with cluster(ground) as (master, worker):
        ground.settings.say("once with termite, to warm it up")
        build_remotely(ground, master, worker)
        sides: dict[str, Callable[[], Measured | Remote]] = {
            "plain": lambda: ground.build("plain", ground.plain_lines()),
            "termite": lambda: build_remotely(ground, master, worker),
        }
        runs = alternate(settings, sides)
    plain = [one for one in runs["plain"] if isinstance(one, Measured)]
    remote = [one for one in runs["termite"] if isinstance(one, Remote)]
    return [
        *of_plain(name, plain),
        *compared(name, "termite", [one.measured for one in remote], plain, targets),
        *inside(name, remote, plain),
    ]


def inside(name: str, remote: Sequence[Remote], plain: Sequence[Measured]) -> list[Figure]:
    """What the daemons did for each job."""

    def per_job(of: Callable[[Remote], float]) -> tuple[float, ...]:
        return tuple(of(one) / one.jobs["remote"] for one in remote)

    cores = tuple(one.own_s / other.master_s for one, other in zip(plain, remote, strict=True) if other.master_s)
    figures = [
        Figure(name, "jobs on the worker", "", tuple(float(one.jobs["remote"]) for one in remote)),
        Figure(name, "FUSE requests a job", "", per_job(lambda one: one.jobs["requests"])),
        Figure(name, "CPU of the master a job", "ms", per_job(lambda one: 1000 * one.master_s)),
        Figure(name, "CPU of the mirror a job", "ms", per_job(lambda one: 1000 * one.mirror_s)),
        *(
            Figure(name, f"peak memory of the {who}", "MB", tuple(one.peaks.get(who, 0) / 2**20 for one in remote))
            for who in ("master", "mirror")
        ),
    ]
    if cores and fmean(cores) == fmean(cores):  # no NaN: without a cgroup nobody knows what plain took
        figures.append(Figure(name, "worker cores that one core of the master keeps busy", "", cores))
    return figures


def build_remotely(ground: Ground, master: daemons.Master, worker: daemons.Worker) -> Remote:
    """Refuses a build in which a job ran elsewhere than it should: it would be measured as something else."""
    before, master_s, mirror_s = job_counts(master.status()), master.cpu_s(), _mirrors_cpu_s(worker)
    measured = ground.build("termite", ground.termite_lines(), _without_preparation(master.env))
    counted = job_counts(master.status()) - before
    if not counted["remote"] or counted["fallbacks"] or counted["retried"]:
        raise BenchError(f"jobs did not run as they should, see {ground.place.logs}: {dict(counted)}")
    peaks = {"master": peak_bytes(master.pid), "mirror": max(map(peak_bytes, worker.mirrors()), default=0)}
    return Remote(measured, counted, master.cpu_s() - master_s, _mirrors_cpu_s(worker) - mirror_s, peaks)


def record(settings: Settings, name: str, variant: str) -> None:
    """Build an example plainly, one command at a time, and write down what each command took and made."""
    ground = prepare(settings, name, variant)
    log = settings.work / f"record-{name}.jsonl"
    log.unlink(missing_ok=True)
    lines = [f"{line} -d keepdepfile" if line.startswith("ninja") else line for line in ground.project.lines(1)]
    ground.build("record", lines, recording_environment(COMMANDS / "libtermite-exec.so", log))
    settings.say(f"{write_recorded(name, log)} commands recorded")


def prepare(settings: Settings, name: str, variant: str) -> Ground:
    """Fetch, unpack and configure, unless an earlier run has done it."""
    directory = EXAMPLES / name
    project = read_project(directory / f"{variant}.toml")
    check_needs(project)
    base = settings.work / f"{name}-{variant}"
    ground = Ground(name, project, Place.below(base), settings)
    if settings.fresh or not (base / PREPARED).exists():
        settings.say(f"preparing {project.title}")
        configure(project, ground.place, settings.sources, directory / "termite-localrc", settings.say)
        (base / PREPARED).touch()
    return ground


@contextlib.contextmanager
def cluster(ground: Ground) -> Iterator[tuple[daemons.Master, daemons.Worker]]:
    """A coordinator, one worker and a master for the tree, on this machine, with nothing known from earlier runs."""
    base = ground.place.logs.parent / "cluster"
    shutil.rmtree(base, ignore_errors=True)
    put_back(ground.place.tree, ground.place.saved)
    with (
        daemons.fleet(base) as fleet,
        daemons.worker(fleet, "w") as worker,
        daemons.master(fleet, ground.place.tree) as master,
    ):
        master.wait_for_workers(1)
        yield master, worker


def _mirrors_cpu_s(worker: daemons.Worker) -> float:
    return sum(map(process_cpu_s, worker.mirrors()))


def _without_preparation(env: Mapping[str, str]) -> dict[str, str]:
    """Where the master's caches are, and nothing else of its environment: jobs must see what plain ones see."""
    return {name: env[name] for name in ("XDG_CACHE_HOME",)}
