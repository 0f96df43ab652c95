"""Builds an example of examples/: plainly, with termite, and with termite again, and compares every file.

What is particular to a project stands in its examples/NAME/VARIANT.toml, read by `read_example`. All builds happen at
the same path, one after the other: a path that gets into an output is then the same in all of them.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

import msgspec
from rich.console import Console
from rich.table import Table

from sources import SourceError, fetch_source
from trees import Entry, differences, put_back, read_tree

CHECKOUT = Path(__file__).resolve().parent.parent
COMMANDS = CHECKOUT / ".venv" / "bin"
BUILD_LIMIT_S = 3600  # LLVM and Emacs take minutes; a build that hangs must say so
START_S = 30
SHOWN = 20  # differences, and warnings of the log

console = Console(highlight=False)


class ExampleError(Exception):
    """The example cannot be built, or is not what it should be; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Example:
    """What examples/NAME/VARIANT.toml says.

    `package`: Debian's source package; where there is none, `given`: the environment variable that names the source.
    `parts`: of the source, all if empty. `configure` and `build` are command lines, run in `directory`; the
    first word of one in `build` is the build tool. `differs`: patterns of files in which two plain builds differ too,
    each with the reason. `needs`: programs and headers that must be installed, each with its Debian package.
    `remote`: so many jobs of each build with termite must run on workers. `otherwise`: a suite of Debian's from which
    the source package is taken where this machine's own has it in no mirror.
    """

    title: str
    build: tuple[str, ...]
    remote: int
    package: str = ""
    given: str = ""
    configure: tuple[str, ...] = ()
    directory: str = "."
    patched: bool = True
    otherwise: str = ""
    parts: tuple[str, ...] = ()
    needs: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an example is built."""

    tree: Path  # all builds
    saved: Path  # the tree as it was configured
    logs: Path

    @property
    def state(self) -> Path:
        """Where masters log."""
        return self.logs / "state"


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
        run_example(read_example(flags.example, flags.variant), _place(flags), flags)
    except (ExampleError, SourceError) as error:
        sys.exit(f"{flags.example.name}: {error}")


def read_example(directory: Path, variant: str) -> Example:
    """From its file."""
    try:
        text = (directory / f"{variant}.toml").read_text()
        return msgspec.convert(tomllib.loads(text), Example)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ExampleError(f"{variant}.toml: {error}") from error


def run_example(example: Example, place: Place, flags: argparse.Namespace) -> None:
    """All of it; ExampleError where a file differs without a reason or too little ran remotely."""
    _check_needs(example)
    configure(example, place, flags)
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
        raise ExampleError("the end of the master changed the tree")
    _report(example, plain, builds)
    unexplained = [
        path
        for built in builds
        for path in report_differences(f"{built.name} build", example, differences(plain.files, built.files))
    ]
    _report_log(place)
    if unexplained:
        raise ExampleError(f"{len(unexplained)} files differ from the plain build without a known reason")
    check_remote(example, builds)


# -- building ---------------------------------------------------------------------------------------------------------


def configure(example: Example, place: Place, flags: argparse.Namespace) -> None:
    """A fresh copy of the source, with our rules in it, configured plainly, and saved as it then is."""
    source = _source(example, flags)
    shutil.rmtree(place.tree.parent, ignore_errors=True)
    place.state.mkdir(parents=True)
    for part in example.parts or (".",):
        shutil.copytree(source / part, place.tree / part, symlinks=True)
    rules = flags.example / "termite-localrc"
    if rules.exists():
        shutil.copy(rules, place.tree / ".termite-localrc")
    (place.tree / example.directory).mkdir(exist_ok=True)
    for number, line in enumerate(example.configure):
        console.print(f"configuring: {line}", markup=False)
        _run(shlex.split(line.replace("{checkout}", str(CHECKOUT))), example, place, f"configure-{number}")
    shutil.copytree(place.tree, place.saved, symlinks=True)
    put_back(place.saved, place.tree)  # the times of directories as well


def _source(example: Example, flags: argparse.Namespace) -> Path:
    if example.package:
        return fetch_source(example.package, flags.sources, patched=example.patched, otherwise=example.otherwise)
    given = os.environ.get(example.given)
    if not given:
        raise ExampleError(f"{example.given} in the environment must name the source of {example.title}")
    return Path(given).resolve()


def build_plainly(name: str, example: Example, place: Place, flags: argparse.Namespace) -> Built:
    put_back(place.tree, place.saved)
    started = time.monotonic()
    for line in _lines(example, flags):
        console.print(f"{name}: {line}", markup=False)
        _run(shlex.split(line), example, place, name.replace(" ", "-"))
    wall_s = time.monotonic() - started
    return Built(name, read_tree(place.tree), wall_s)


def build_remotely(name: str, example: Example, place: Place, flags: argparse.Namespace) -> Built:
    before = _counts(_status(place, may_fail=True))
    said: Counter[str] = Counter()
    started = time.monotonic()
    for line in _lines(example, flags):
        tool, *rest = shlex.split(line)
        console.print(f"{name}: termite-{line}", markup=False)
        said += _run([str(COMMANDS / f"termite-{tool}"), *rest], example, place, name)
    wall_s = time.monotonic() - started
    status = _status(place)
    return Built(name, read_tree(place.tree), wall_s, _counts(status) - before, _peak_memory(status["pid"]), said)


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
        words += ["--socket", str(place.tree / ".termite-socket")]
        process = subprocess.Popen([str(COMMANDS / "termite-master"), *words], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if "serves" not in process.stdout.readline():
            raise ExampleError(f"the master did not start: exit code {process.wait(START_S)}")
    try:
        yield
    finally:
        _ctl(place, "shutdown")
        if process is not None:
            process.wait(START_S)


def _lines(example: Example, flags: argparse.Namespace) -> list[str]:
    return [line.replace("{jobs}", str(flags.jobs)) for line in example.build]


def _run(command: Sequence[str], example: Example, place: Place, name: str) -> Counter[str]:
    """Run it with its output in a log; what termite said in it, with numbers and names left out."""
    log = place.logs / f"{name}.log"
    directory = place.tree / example.directory
    environment = _environment(place) | example.env
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
        try:
            code = process.wait(BUILD_LIMIT_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGTERM)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ExampleError(f"{command[0]} did not end in {BUILD_LIMIT_S} s: see {log}") from None
            raise
    said = log.read_bytes()[start:].decode(errors="replace").splitlines()
    if code:
        raise ExampleError("\n".join([f"{shlex.join(command)} failed ({code}), see {log}:", *said[-20:]]))
    return Counter(line for line in said if line.startswith("termite: "))


def _environment(place: Place) -> dict[str, str]:
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TERMITE_"))}
    return ours | {"TERMITE_ROOT": str(place.tree), "TERMITE_VERBOSE": "1", "XDG_STATE_HOME": str(place.state)}


# -- asking the master ------------------------------------------------------------------------------------------------


def _status(place: Place, may_fail: bool = False) -> dict[str, Any]:
    done = _ctl(place, "status", "--json")
    if done.returncode and not may_fail:
        raise ExampleError(f"there is no master to ask: {done.stderr.strip()}")
    return {} if done.returncode else cast(dict[str, Any], msgspec.json.decode(done.stdout))


def _ctl(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMANDS / "termite-ctl"), *arguments]
    return subprocess.run(
        command, cwd=place.tree, env=_environment(place), capture_output=True, text=True, check=False, timeout=60
    )


def _counts(status: Mapping[str, Any]) -> Counter[str]:
    if not status:
        return Counter()
    counts = {name: count for name, count in status["jobs"].items() if isinstance(count, int) and name != "running"}
    fallbacks = sum(status["fallbacks"].values())
    return Counter(
        counts | {"fallbacks": fallbacks, "requests": status["fuse_requests"], "dropped": status["dropped_writes"]}
    )


def _peak_memory(master_pid: int) -> dict[str, int]:
    """Bytes, of the master and of the largest mirror below it."""
    peaks = {"master": _peak_bytes(master_pid)}
    below = [master_pid]
    for pid in below:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            below += map(int, task.read_text().split())
        if b"termite.fuse.mirror" in Path(f"/proc/{pid}/cmdline").read_bytes():
            peaks["mirror"] = max(peaks.get("mirror", 0), _peak_bytes(pid))
    return peaks


def _peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


# -- reporting --------------------------------------------------------------------------------------------------------


def report_differences(what: str, example: Example, different: Sequence[str]) -> list[str]:
    """Say them; those without a reason are returned."""
    reasons = {path: _reason(example, path) for path in different}
    explained = Counter(reason for reason in reasons.values() if reason)
    for reason, count in explained.items():
        console.print(f"{what}: {count} files differ: {reason}", markup=False)
    unexplained = [path for path, reason in reasons.items() if not reason]
    for path in unexplained[:SHOWN]:
        console.print(f"{what}: differs: {path}", markup=False)
    return unexplained


def check_remote(example: Example, builds: Sequence[Built]) -> None:
    """ExampleError for a build of which fewer jobs than should be ran on workers."""
    for built in builds:
        count = built.counts["remote"]
        if count < example.remote:
            raise ExampleError(f"{built.name} build: {count} jobs ran on workers, not {example.remote}: see the log")


def _reason(example: Example, path: str) -> str:
    return next((reason for pattern, reason in example.differs.items() if fnmatch(path, pattern)), "")


def _report(example: Example, plain: Built, builds: Sequence[Built]) -> None:
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


def _check_needs(example: Example) -> None:
    def is_there(need: str) -> bool:
        return Path(need).exists() if need.startswith("/") else shutil.which(need) is not None

    missing = [f"{need} (Debian: {package})" for need, package in example.needs.items() if not is_there(need)]
    if missing:
        raise ExampleError("needs " + ", ".join(missing))


def _place(flags: argparse.Namespace) -> Place:
    base = flags.work / f"{flags.example.name}-{flags.variant}"
    return Place(base / "tree", base / "saved", base / "logs")


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
