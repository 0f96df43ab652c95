"""Build an example plainly, with termite, and with termite again, and compare every file.

The file examples/NAME/VARIANT.toml describes the project; tools/projects.py explains its keys.
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
SHOWN = 20  # print at most so many differences, and so many warnings of the log

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Built:
    """The result of one finished build.

    `counts` are the master's counts of this build alone, `memory` has peaks in bytes, and `said`
    counts the lines that termite printed.
    """

    name: str
    files: dict[str, Entry]
    wall_s: float
    counts: Counter[str] = field(default_factory=Counter)
    memory: Mapping[str, int] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Run the example of the command line; exit with a message if it fails."""
    flags = _flags()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that the build and its master end too
    try:
        run_example(read_project(flags.example / f"{flags.variant}.toml"), _place(flags), flags)
    except (ProjectError, SourceError) as error:
        sys.exit(f"{flags.example.name}: {error}")


def run_example(example: Project, place: Place, flags: argparse.Namespace) -> None:
    """Prepare and build the example, and report.

    Raise ProjectError if a file differs without a known reason, or if too few jobs ran on workers.
    """
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
    left = read_tree(place.tree)  # read again, because a master that has ended must leave nothing behind
    if differences(left, builds[-1].files):
        raise ProjectError("the master changed the tree when it ended")
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
    """Build without termite in the tree as it was configured."""
    put_back(place.tree, place.saved)
    started = time.monotonic()
    for line in example.lines(flags.jobs):
        console.print(f"{name}: {line}", markup=False)
        run(shlex.split(line), example, place, name.replace(" ", "-"))
    wall_s = time.monotonic() - started
    return Built(name, read_tree(place.tree), wall_s)


def build_remotely(name: str, example: Project, place: Place, flags: argparse.Namespace) -> Built:
    """Build with termite in the tree as it is."""
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
    """Start a master for the coordinator that the flags name; stop the master at the end.

    If they name none, start nothing: termite-make starts a master of its own, which is stopped too.
    """
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
    """Return the peak memory of the master and of the largest mirror below it, in bytes."""
    peaks = {"master": peak_bytes(master_pid)}
    mirrors = [peak_bytes(pid) for pid in mirrors_below(master_pid)]
    return peaks | ({"mirror": max(mirrors)} if mirrors else {})


# -- reporting --------------------------------------------------------------------------------------------------------


def report_differences(what: str, example: Project, different: Sequence[str]) -> list[str]:
    """Print the differences, and return the paths that differ without a known reason."""
    reasons = {path: _reason(example, path) for path in different}
    explained = Counter(reason for reason in reasons.values() if reason)
    for reason, count in explained.items():
        console.print(f"{what}: {count} files differ: {reason}", markup=False)
    unexplained = [path for path, reason in reasons.items() if not reason]
    for path in unexplained[:SHOWN]:
        console.print(f"{what}: differs: {path}", markup=False)
    return unexplained


def check_remote(example: Project, builds: Sequence[Built]) -> None:
    """Raise ProjectError if fewer jobs of a build ran on workers than the example demands."""
    for built in builds:
        count = built.counts["remote"]
        if count < example.remote:
            least = example.remote
            raise ProjectError(
                f"{built.name} build: {count} jobs ran on workers, but at least {least} should: see the log"
            )


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
    """Print the warnings and errors of the logs."""
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
        prog="run.sh", description="Build an example plainly and with termite, and compare all files."
    )
    add = parser.add_argument
    add("example", type=Path, help=argparse.SUPPRESS)
    add("--variant", default="example", help="build VARIANT.toml, a file beside run.sh (default: example)")
    add("--jobs", type=int, default=4, help="the -j of all builds (default: 4)")
    add("--once", action="store_true", help="build only once with termite, without a second, warm build")
    add("--plain-twice", action="store_true", help="also show which files differ between two plain builds")
    add("--work", type=Path, default=CHECKOUT / "build" / "examples", help="build in this directory")
    add("--sources", type=Path, default=CHECKOUT / "build" / "sources", help="keep fetched sources in this directory")
    add(
        "--coordinator",
        metavar="HOST[:PORT]",
        help="use the workers of this coordinator instead of one on this machine",
    )
    add("--secret", type=Path, default=Path("secret.txt"), help="the secret file of that cluster (default: secret.txt)")
    flags = parser.parse_args()
    for name in ("example", "work", "sources", "secret"):
        setattr(flags, name, getattr(flags, name).resolve())
    return flags


if __name__ == "__main__":
    main()
