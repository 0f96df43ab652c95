"""Measure how long one command takes: on a worker, with a local verdict, and without a master.

Plain commands are measured beside them. latency.c starts each command once in every turn, so that
all of them meet the same machine.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench import daemons
from bench.figures import PERCENTILES, Figure, Target, percentile
from bench.rounds import BenchError, Settings, repeated
from projects import CHECKOUT, COMMANDS

WORKLOAD = "one command"
TURNS = 200
QUICK_TURNS = 30
LIMIT_S = 300.0
RULES = """\
[{"Regexp": "^/bin/true here$", "Local": true},
 {"Regexp": "^/bin/true recurse$", "Local": true, "Recurse": true}]
"""
TRUE = "/bin/true"  # with its path, because the master answers a bare `true` without running it

LAUNCHER = str(COMMANDS / "termite")
ELSEWHERE = "elsewhere"  # a directory beside the tree, from which the launcher finds no master
# The order is that of latency.c's columns.
COMMANDS_TIMED = {
    "sh -c true": ["sh", "-c", "true"],
    "plain": [TRUE, "here"],
    "remote": [LAUNCHER, TRUE],
    "local": [LAUNCHER, TRUE, "here"],
    "recurse": [LAUNCHER, TRUE, "recurse"],
    "answered": [LAUNCHER, "true"],
    "no master": [f"cd=../{ELSEWHERE}", LAUNCHER, TRUE, "here"],
}


def measure(settings: Settings) -> list[Figure]:
    """Measure milliseconds of each command; a sample is the median of one round's turns."""
    program = build_timer(settings.work)
    tree = settings.work / "latency" / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    (tree.parent / ELSEWHERE).mkdir(exist_ok=True)
    (tree / ".termite-localrc").write_text(RULES)
    turns = QUICK_TURNS if settings.quick else TURNS
    with (
        daemons.fleet(settings.work / "latency") as fleet,
        daemons.worker(fleet, "w", "--jobs", "4"),
        daemons.master(fleet, tree) as master,
    ):
        master.wait_for_workers(1)
        time_commands(program, list(COMMANDS_TIMED.values()), tree, master.env, QUICK_TURNS)  # warms everything up
        commands = list(COMMANDS_TIMED.values())
        rounds = repeated(settings, "all", lambda: time_commands(program, commands, tree, master.env, turns))
        _check_what_ran_where(master, (turns * len(rounds)) + QUICK_TURNS)
    by_name = {name: [[turn[at] for turn in turns] for turns in rounds] for at, name in enumerate(COMMANDS_TIMED)}
    return _figures(by_name)


def build_timer(work: Path) -> str:
    """Compile latency.c into the work directory and return the program's path."""
    work.mkdir(parents=True, exist_ok=True)
    program = work / "latency-timer"
    source = CHECKOUT / "bench" / "latency.c"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", str(program), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return str(program)


def time_commands(
    program: str, commands: Sequence[Sequence[str]], cwd: Path, env: Mapping[str, str] | None, turns: int
) -> list[list[float]]:
    """Run each command once in every turn; return the milliseconds by turn and command."""
    words: list[str] = []
    for command in commands:
        words += [*(["---"] if words else []), *command]
    done = subprocess.run(
        [program, str(turns), "--", *words],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise BenchError(f"the timer ended with {done.returncode}: {done.stderr.strip()}")
    return [[int(ns) / 1e6 for ns in line.split()] for line in done.stdout.splitlines()]


def _check_what_ran_where(master: daemons.Master, turns: int) -> None:
    """Raise BenchError unless each command ran in its place.

    Otherwise a command that fell back to this machine would be timed as a remote one.
    """
    jobs = master.status()["jobs"]
    expected = {"remote": turns, "local": 2 * turns, "answered": turns, "retried": 0, "failed": 0}
    counted = {name: jobs[name] for name in expected}
    if counted != expected:
        raise BenchError(f"commands did not run where they should: {counted}, not {expected}")


def _figures(by_name: dict[str, list[list[float]]]) -> list[Figure]:
    def medians(name: str) -> tuple[float, ...]:
        return tuple(median(samples) for samples in by_name[name])

    def over_plain(name: str) -> tuple[float, ...]:
        """Return each round's median difference to the plain command, taken turn by turn."""
        return tuple(
            median(one - plain for one, plain in zip(ones, plains, strict=True))
            for ones, plains in zip(by_name[name], by_name["plain"], strict=True)
        )

    remote = [sample for samples in by_name["remote"] for sample in samples]
    return [
        Figure(WORKLOAD, "plain /bin/true", "ms", medians("plain")),
        Figure(WORKLOAD, "plain sh -c true", "ms", medians("sh -c true")),
        Figure(WORKLOAD, "/bin/true on a worker", "ms", medians("remote"), Target(4.0)),
        *(
            Figure(WORKLOAD, f"/bin/true on a worker: {percent} % within", "ms", (percentile(remote, percent),))
            for percent in PERCENTILES[1:]
        ),
        Figure(WORKLOAD, "local verdict, over plain", "ms", over_plain("local"), Target(1.0)),
        Figure(WORKLOAD, "local verdict for a tool that recurses, over plain", "ms", over_plain("recurse")),
        Figure(WORKLOAD, "`true`, answered by the master", "ms", medians("answered")),
        Figure(WORKLOAD, "launcher without a master, over plain", "ms", over_plain("no master"), Target(0.3)),
    ]
