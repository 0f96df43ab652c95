"""Builds an example of examples/: plainly, with termite, and with termite again, and compares every file.

What is particular to a project stands in its examples/NAME/VARIANT.toml (tools/projects.py).
"""

import argparse
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.table import Table

from projects import (
    CHECKOUT,
    COMMANDS,
    Place,
    Project,
    ProjectError,
    check_needs,
    configure,
    ctl,
    job_counts,
    mirrors_below,
    peak_bytes,
    read_project,
    run,
    save,
    status,
    unpack,
)
from sources import SourceError
from trees import Entry, differences, put_back, read_tree

START_S = 30
SHOWN = 20  # differences, and warnings of the log

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Built:
    """One finished build; the counts are of this build alone."""

    name: str
    files: dict[str, Entry]
    wall_s: float
    counts: Counter[str] = field(default_factory=Counter)
    memory: Mapping[str, int] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)


def main() -> None:
    flags = _flags()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # the build and its master end with us
    try:
        run_example(read_project(flags.example / f"{flags.variant}.toml"), _place(flags), flags)
    except (ProjectError, SourceError) as error:
        sys.exit(f"{flags.example.name}: {error}")


def run_example(example: Project, place: Place, flags: argparse.Namespace) -> None:
    """All of it; ProjectError where a file differs without a reason or nothing ran remotely."""
    check_needs(example)
    unpack(example, place, flags.sources, flags.example / "termite-localrc")
    configure(example, place, _say)
    save(place)
    plain = build_plainly("plain", example, place, flags)
    if flags.plain_twice:
        again = build_plainly("plain again", example, place, flags)
        report_differences("two plain builds", example, differences(plain.files, again.files))
    put_back(place.tree, place.saved)
    with master(place, flags):
        builds = [build_remotely("first", example, place, flags)]
        if not flags.once:
            put_back(place.tree, place.saved)
            builds.append(build_remotely("second", example, place, flags))
    left = read_tree(place.tree)  # once more: a master that has ended must have left nothing behind
    if differences(left, builds[-1].files):
        raise ProjectError("the end of the master changed the tree")
    _report(example, plain, builds)
    unexplained = [
        path
        for built in builds
        for path in report_differences(f"{built.name} build", example, differences(plain.files, built.files))
    ]
    _report_log(place)
    if unexplained:
        raise ProjectError(f"{len(unexplained)} files differ from the plain build without a known reason")
    check_remote(example, builds)


def _say(line: str) -> None:
    console.print(line, markup=False)


# -- building ---------------------------------------------------------------------------------------------------------


def build_plainly(name: str, example: Project, place: Place, flags: argparse.Namespace) -> Built:
    put_back(place.tree, place.saved)
    started = time.monotonic()
    for line in example.lines(flags.jobs):
        console.print(f"{name}: {line}", markup=False)
        run(shlex.split(line), example, place, name.replace(" ", "-"))
    wall_s = time.monotonic() - started
    return Built(name, read_tree(place.tree), wall_s)


def build_remotely(name: str, example: Project, place: Place, flags: argparse.Namespace) -> Built:
    before = job_counts(status(place, may_fail=True))
    said: Counter[str] = Counter()
    started = time.monotonic()
    for line in example.lines(flags.jobs):
        tool, *rest = shlex.split(line)
        console.print(f"{name}: termite-{line}", markup=False)
        said += run([str(COMMANDS / f"termite-{tool}"), *rest], example, place, name)
    wall_s = time.monotonic() - started
    after = status(place)
    return Built(name, read_tree(place.tree), wall_s, job_counts(after) - before, _peak_memory(after["pid"]), said)


@contextmanager
def master(place: Place, flags: argparse.Namespace) -> Iterator[None]:
    """One that uses the workers of a coordinator, if we are given one; else termite-make starts its own."""
    process = None
    if flags.coordinator:
        words = [
            "--coordinator",
            flags.coordinator,
            "--secret",
            str(flags.secret),
            "--logfile",
            str(place.state / "master.log"),
        ]
        words += ["--socket", str(place.tree / ".termite-socket"), "--short", "0"]
        process = subprocess.Popen([str(COMMANDS / "termite-master"), *words], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if "serves" not in process.stdout.readline():
            raise ProjectError(f"the master did not start: exit code {process.wait(START_S)}")
    try:
        yield
    finally:
        ctl(place, "shutdown")
        if process is not None:
            process.wait(START_S)


def _peak_memory(master_pid: int) -> dict[str, int]:
    """Bytes, of the master and of the largest mirror below it."""
    peaks = {"master": peak_bytes(master_pid)}
    mirrors = [peak_bytes(pid) for pid in mirrors_below(master_pid)]
    return peaks | ({"mirror": max(mirrors)} if mirrors else {})


# -- reporting --------------------------------------------------------------------------------------------------------


def report_differences(what: str, example: Project, different: Sequence[str]) -> list[str]:
    """Say them; those without a reason are returned."""
    reasons = {path: _reason(example, path) for path in different}
    explained = Counter(reason for reason in reasons.values() if reason)
    for reason, count in explained.items():
        console.print(f"{what}: {count} files differ: {reason}", markup=False)
    unexplained = [path for path, reason in reasons.items() if not reason]
    for path in unexplained[:SHOWN]:
        console.print(f"{what}: differs: {path}", markup=False)
    return unexplained


def check_remote(example: Project, builds: Sequence[Built]) -> None:
    """ProjectError for a build of which fewer jobs than should be ran on workers."""
    for built in builds:
        count = built.counts["remote"]
        if count < example.remote:
            raise ProjectError(f"{built.name} build: {count} jobs ran on workers, not {example.remote}: see the log")


def _reason(example: Project, path: str) -> str:
    return next((reason for pattern, reason in example.differs.items() if fnmatch(path, pattern)), "")


def _report(example: Project, plain: Built, builds: Sequence[Built]) -> None:
    table = Table(title=f"\n{example.title}: {len(plain.files)} files compared byte for byte", title_justify="left")
    table.add_column("")
    for built in (plain, *builds):
        table.add_column(built.name, justify="right")
    table.add_row("wall time, s", *(f"{built.wall_s:.1f}" for built in (plain, *builds)))
    for label, key in _ROWS.items():
        table.add_row(label, "", *(str(built.counts[key]) for built in builds))
    table.add_row(
        "FUSE requests a job",
        "",
        *(f"{built.counts['requests'] / (built.counts['remote'] or 1):.0f}" for built in builds),
    )
    for who in builds[-1].memory:
        table.add_row(f"peak memory of the {who}, MB", "", *(str(built.memory.get(who, 0) >> 20) for built in builds))
    table.add_row("differences", "", *(str(len(differences(plain.files, built.files))) for built in builds))
    console.print(table)
    for built in builds:
        for line, count in built.said.most_common(SHOWN):
            console.print(f"{built.name}: {count} x {line}", markup=False)


_ROWS = {
    "jobs remote": "remote",
    "jobs local": "local",
    "jobs answered at once": "answered",
    "jobs retried": "retried",
    "jobs that fell back": "fallbacks",
}


def _report_log(place: Place) -> None:
    """What an operator would have to look at."""
    lines = [
        line
        for log in place.state.rglob("*.log")
        for line in log.read_text(errors="replace").splitlines()
        if re.search("WARNING|ERROR|Traceback", line)
    ]
    for line in lines[:SHOWN]:
        console.print(f"log: {line}", markup=False)
    console.print(f"{len(lines)} warnings in the master's log")


# -- the command line -------------------------------------------------------------------------------------------------


def _place(flags: argparse.Namespace) -> Place:
    return Place.below(flags.work / f"{flags.example.name}-{flags.variant}")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.sh", description="Build an example plainly and with termite, and compare."
    )
    parser.add_argument("example", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variant", default="example", help="which .toml beside run.sh (default: example)")
    parser.add_argument("--jobs", type=int, default=4, help="-j of all builds (default: 4)")
    parser.add_argument("--once", action="store_true", help="no second build with everything warm")
    parser.add_argument("--plain-twice", action="store_true", help="show which files differ between two plain builds")
    parser.add_argument("--work", type=Path, default=CHECKOUT / "build" / "examples", help="where to build")
    parser.add_argument("--sources", type=Path, default=CHECKOUT / "build" / "sources", help="where sources are kept")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="use its workers, not one on this machine")
    parser.add_argument("--secret", type=Path, default=Path("secret.txt"), help="of that cluster")
    flags = parser.parse_args()
    for name in ("example", "work", "sources", "secret"):
        setattr(flags, name, getattr(flags, name).resolve())
    return flags


if __name__ == "__main__":
    main()
