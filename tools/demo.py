"""`make demo`: builds Lua twice, plainly and on an embedded termite cluster, and compares every file.

Both builds happen at the same path, one after the other: a path that gets into an output is then the same in both.
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
BUILD_LIMIT_S = 600  # Lua takes seconds; a demo that hangs must say so

console = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Built:
    """One finished build."""

    files: dict[str, Entry]
    wall_s: float


def main() -> None:
    try:
        demonstrate()
    except (DemoError, SourceError) as error:
        sys.exit(f"demo: {error}")


def demonstrate() -> None:
    WORK.mkdir(exist_ok=True)
    console.print("Fetching Lua 5.4's source package from Debian (private apt state, nothing of the system is changed)")
    # Debian's patches move Lua's build to libtool; without them this is the project as its authors released it.
    source = fetch_source("lua5.4", WORK / "sources", patched=False)
    pristine = read_tree(source)

    console.print(f"\nBuilding it plainly: make {JOBS} linux")
    plain = build(source, ["make", JOBS, "linux"])

    console.print(f"\nBuilding it with termite, on a cluster inside this machine: termite-make {JOBS} linux")
    try:
        remote = build(source, [str(COMMANDS / "termite-make"), JOBS, "linux"])
        jobs = status()["jobs"]
    finally:
        shutdown()
    remote = Built(read_tree(TREE), remote.wall_s)  # once more: a finished cluster must have left nothing behind

    different = differences(plain.files, remote.files)
    report(pristine, plain, remote, jobs, different)
    if different:
        raise DemoError(f"{len(different)} files differ from the plain build")
    if not jobs["remote"]:
        raise DemoError("no job ran on the cluster: see the lines above for the reason")


def build(source: Path, command: list[str]) -> Built:
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(source, TREE, symlinks=True)
    started = time.monotonic()
    run_visibly(command)
    return Built(read_tree(TREE), time.monotonic() - started)


def run_visibly(command: list[str]) -> None:
    """Run a build, showing what it does: one changing line on a terminal, every command elsewhere."""
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
    """The program and the end of the line: what differs from one command to the next."""
    text = " ".join(line.split())
    room = max(40, console.width - 8)
    first = text.partition(" ")[0]
    return text if len(text) <= room else f"{first} … {text[len(first) + 3 - room :]}"


def environment() -> dict[str, str]:
    """Ours without what the make that runs this demo has put there for its own children.

    Short commands go to the worker every time, as in the examples: what is shown is that it makes the same files.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TERMITE_"))}
    return ours | {"TERMITE_ROOT": str(TREE), "TERMITE_SHORT": "0"}


def status() -> dict[str, Any]:
    done = termite_ctl("status", "--json")
    if done.returncode:
        raise DemoError(f"there is no master to ask: {done.stderr.strip()}")
    return cast(dict[str, Any], msgspec.json.decode(done.stdout))


def shutdown() -> None:
    termite_ctl("shutdown")


def termite_ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMANDS / "termite-ctl"), *arguments]
    return subprocess.run(command, cwd=TREE, env=environment(), capture_output=True, text=True, check=False, timeout=60)


def report(pristine: dict[str, Entry], plain: Built, remote: Built, jobs: dict[str, int], different: list[str]) -> None:
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
        "(The second time includes starting the cluster. One machine shows the same bits, not a gain in time.)"
    )


if __name__ == "__main__":
    main()
