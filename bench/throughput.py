"""Measure the limits of one master: its jobs per second, and how busy it keeps 200 slots.

The master is a real process with real TLS, a real journal and a real disk. Workers and launchers
are simulated in other processes, so that the master's CPU has none of their work in it.
"""

import contextlib
import functools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench import daemons
from bench.figures import Figure, Target, slot_use
from bench.load import make_directories
from bench.record import read_recorded
from bench.rounds import BenchError, Settings, repeated

RECORDED = ("lua", "llvm")  # Lua's jobs are short, LLVM's are long
RATE_JOBS = 3000
RATE_AT_ONCE = 64
WORKERS = 4  # in each of the processes
PROCESSES = 2
SLOTS = 200
SLOT_JOBS = 3000
QUICK_JOBS = 500
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate is the result of one load of jobs."""

    jobs_a_second: float
    master_ms: float  # CPU of the master for each job


def measure_rate(settings: Settings) -> list[Figure]:
    """Measure jobs per second, and the master's CPU for each job."""
    jobs = QUICK_JOBS if settings.quick else RATE_JOBS
    figures = []
    for name in RECORDED:
        with simulated(settings, name, RATE_AT_ONCE) as (master, _):
            loads = Loads(master, name)
            loads.run(QUICK_JOBS, RATE_AT_ONCE)  # opens the leases and warms the master up
            rates = repeated(settings, name, functools.partial(loads.rate, jobs, RATE_AT_ONCE))
        figures += _rate_figures(name, rates)
    return figures


def measure_slots(settings: Settings) -> list[Figure]:
    """Measure how busy one master keeps 200 slots."""
    jobs = max(QUICK_JOBS, 2 * SLOTS) if settings.quick else SLOT_JOBS

    def once() -> tuple[float, float]:
        with simulated(settings, "llvm", SLOTS, "--sleep") as (master, files):
            loads = Loads(master, "llvm")
            loads.run(SLOTS, SLOTS)  # opens the leases
            began = time.monotonic()
            wall_s, master_s = loads.run(jobs, SLOTS)
        # The workers have ended by now and have written their intervals.
        intervals = [(start, end) for file in files for start, end in json.loads(file.read_text()) if start >= began]
        return slot_use(intervals, SLOTS, left=SLOTS), master_s / wall_s

    runs = repeated(settings, f"{SLOTS} slots", once)
    workload = f"{SLOTS} slots, jobs of an LLVM build"
    return [
        Figure(
            workload,
            f"slot use until the last {SLOTS} jobs",
            "%",
            tuple(100 * use for use, _ in runs),
            Target(92.0, at_most=False),
        ),
        Figure(workload, "share of one core that the master uses", "%", tuple(100 * share for _, share in runs)),
    ]


class Loads:
    """A series of loads for one master; each load writes into a directory of its own."""

    def __init__(self, master: daemons.Master, name: str) -> None:
        self._master = master
        self._name = name
        self._count = 0

    def rate(self, jobs: int, at_once: int) -> Rate:
        """Run a load and return its rate."""
        wall_s, master_s = self.run(jobs, at_once)
        return Rate(jobs / wall_s, 1000 * master_s / jobs)

    def run(self, jobs: int, at_once: int) -> tuple[float, float]:
        """Run a load; return its wall time and the master's CPU, both in seconds.

        Raise BenchError if any job did not end with exit code 0.
        """
        self._count += 1
        directory = f"out-{self._count}"
        make_directories(self._master.tree, directory, jobs)
        before = self._master.cpu_s()
        command = daemons.module("load", str(self._master.tree), self._name, str(jobs), str(at_once), directory)
        done = subprocess.run(
            command, env=self._master.env, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        if done.returncode:
            raise BenchError(f"the load failed: {done.stderr.strip().splitlines()[-1:]}")
        answer = json.loads(done.stdout)
        if answer["ends"] != {"E code=0": jobs}:
            raise BenchError(f"jobs did not end as they should: {answer['ends']}")
        return float(answer["wall_s"]), self._master.cpu_s() - before


@contextlib.contextmanager
def simulated(
    settings: Settings, name: str, slots: int, *flags: str, program: Sequence[str] = ()
) -> Iterator[tuple[daemons.Master, list[Path]]]:
    """Start a master and simulated workers with `slots` slots in all; stop them at the end.

    `program` is that of `daemons.master`.
    Yield the master and the files into which the workers write their intervals when they end.
    """
    base = settings.work / "simulated"
    shutil.rmtree(base, ignore_errors=True)
    tree = base / "tree"
    tree.mkdir(parents=True)
    files = [base / f"intervals-{number}.json" for number in range(PROCESSES)]
    each = slots // (WORKERS * PROCESSES)
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(daemons.fleet(base))
        env = daemons.environment(base)
        for number, file in enumerate(files):
            words = [fleet.coordinator, str(fleet.secret), f"s{number}", str(WORKERS), str(each), name, str(file)]
            log = base / f"simulated-{number}.log"
            stack.enter_context(daemons.daemon(daemons.module("simulated", *words, *flags), log, env))
        master = stack.enter_context(daemons.master(fleet, tree, program=program))
        master.wait_for_workers(WORKERS * PROCESSES)
        yield master, files


def _rate_figures(name: str, rates: Sequence[Rate]) -> list[Figure]:
    workload = f"jobs of {name} to simulated workers"
    is_short = name == "lua"
    mean_s = fmean(job.cpu_s for job in read_recorded(name))
    return [
        Figure(
            workload,
            "jobs a second",
            "",
            tuple(rate.jobs_a_second for rate in rates),
            Target(600, at_most=False) if is_short else None,
        ),
        Figure(
            workload,
            "CPU of the master a job",
            "ms",
            tuple(rate.master_ms for rate in rates),
            Target(1.5) if is_short else None,
        ),
        Figure(workload, "jobs a second of the master's CPU", "", tuple(1000 / rate.master_ms for rate in rates)),
        Figure(
            workload,
            "worker cores that one core of the master keeps busy",
            "",
            tuple(1000 * mean_s / rate.master_ms for rate in rates),
        ),
    ]
