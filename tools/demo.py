"""The program of `make demo`: build Lua plainly and on an embedded cluster, and compare every file.

Both builds run at the same path, one after the other. Therefore a path that gets into an output is
the same in both.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from rich.console import Console
from rich.table import Table

from sources import SourceError, fetch_source
from trees import Entry, differences, read_tree

CHECKOUT = Path(__file__).resolve().parent.parent
COMMANDS = CHECKOUT / ".venv" / "bin"
WORK = CHECKOUT / "demo-build"
TREE = WORK / "lua"
JOBS = "-j4"
BUILD_LIMIT_S = 600  # Lua takes seconds; a demo that hangs must end with an error

console = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Built:
    """The result of one finished build."""

    files: dict[str, Entry]
    wall_s: float


def main() -> None:
    """Run the demo; exit with a message if it fails."""
    try:
        demonstrate()
    except (DemoError, SourceError) as error:
        sys.exit(f"demo: {error}")


def demonstrate() -> None:
    """Build Lua twice and report. Raise DemoError if files differ or no job was remote."""
    WORK.mkdir(exist_ok=True)
    console.print("Fetching Lua 5.4's source package from Debian (with private apt state; the system is not changed)")
    # Debian's patches move Lua's build to libtool. Without them the project is as its authors
    # released it.
    source = fetch_source("lua5.4", WORK / "sources", patched=False)
    pristine = read_tree(source)

    console.print(f"\nBuilding it plainly: make {JOBS} linux")
    plain = build(source, ["make", JOBS, "linux"])

    console.print(f"\nBuilding it with termite, on a cluster within this machine: termite-make {JOBS} linux")
    try:
        remote = build(source, [str(COMMANDS / "termite-make"), JOBS, "linux"])
        jobs = status()["jobs"]
    finally:
        shutdown()
    remote = Built(read_tree(TREE), remote.wall_s)  # read again, because a cluster that has ended must leave nothing

    different = differences(plain.files, remote.files)
    report(pristine, plain, remote, jobs, different)
    if different:
        raise DemoError(f"{len(different)} files differ from the plain build")
    if not jobs["remote"]:
        raise DemoError("no job ran on the cluster: see the lines above for the reason")


def build(source: Path, command: list[str]) -> Built:
    """Run a build in a fresh copy of the source, and return its files and its time."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(source, TREE, symlinks=True)
    started = time.monotonic()
    run_visibly(command)
    return Built(read_tree(TREE), time.monotonic() - started)


def run_visibly(command: list[str]) -> None:
    """Run a build and show its commands: on a terminal in one line that changes."""
    with (
        subprocess.Popen(
            command, cwd=TREE, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        console.status("starting") as shown,
    ):
        assert process.stdout is not None
        deadline = time.monotonic() + BUILD_LIMIT_S
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("termite"):
                console.print(line.rstrip(), markup=False)
            elif console.is_terminal:
                shown.update(f"{len(lines):3} {shortened(line)}")
            else:
                console.print(f"  {shortened(line)}", markup=False)
            if time.monotonic() > deadline:
                process.kill()
        if process.wait():
            raise DemoError("\n".join([f"{Path(command[0]).name} failed ({process.returncode}):", *lines[-20:]]))


def shortened(line: str) -> str:
    """Return the program and the end of a command line, which is where commands differ."""
    text = " ".join(line.split())
    room = max(40, console.width - 8)
    first = text.partition(" ")[0]
    return text if len(text) <= room else f"{first} … {text[len(first) + 3 - room :]}"


def environment() -> dict[str, str]:
    """Return the environment of a build: ours with termite's variables, and without make's.

    The make that runs this demo sets variables for its own children. TERMITE_SHORT=0 sends short
    commands to the worker every time, because the demo shows that a worker makes the same files.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TERMITE_"))}
    return ours | {"TERMITE_ROOT": str(TREE), "TERMITE_SHORT": "0"}


def status() -> dict[str, Any]:
    """Return the master's status. Raise DemoError if it does not answer."""
    done = termite_ctl("status", "--json")
    if done.returncode:
        raise DemoError(f"the master does not answer: {done.stderr.strip()}")
    return cast(dict[str, Any], msgspec.json.decode(done.stdout))


def shutdown() -> None:
    """Stop the master and its worker, if they run."""
    termite_ctl("shutdown")


def termite_ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run termite-ctl in the tree."""
    command = [str(COMMANDS / "termite-ctl"), *arguments]
    return subprocess.run(command, cwd=TREE, env=environment(), capture_output=True, text=True, check=False, timeout=60)


def report(pristine: dict[str, Entry], plain: Built, remote: Built, jobs: dict[str, int], different: list[str]) -> None:
    """Print the paths that differ, and a table of both builds."""
    for path in different:
        console.print(f"  differs: {path}", markup=False)
    outputs = [path for path in plain.files if path not in pristine]
    console.print(f"\nLua: {len(outputs)} outputs, {len(plain.files)} files compared byte for byte")
    table = Table()
    table.add_column("")
    table.add_column(f"make {JOBS}", justify="right")
    table.add_column(f"termite-make {JOBS}", justify="right")
    table.add_row("wall time", f"{plain.wall_s:.1f} s", f"{remote.wall_s:.1f} s")
    table.add_row("jobs remote", "", str(jobs["remote"]))
    table.add_row("jobs local", "", str(jobs["local"]))
    table.add_row("differences", "", str(len(different)))
    console.print(table)
    console.print(
        "(The second time includes the start of the cluster. On one machine termite makes the same files,"
        " but saves no time.)"
    )


if __name__ == "__main__":
    main()
