"""Report the results: one table for people and one JSON file for programs.

The file also describes the machine and the settings, so that a reader can judge the figures.
"""

import dataclasses
import datetime
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from projects import CHECKOUT

RESULTS = CHECKOUT / "build" / "bench" / "results"
KEPT = CHECKOUT / "bench" / "results"  # under version control: only files that a document cites
LOADED = 0.05  # share of the machine's work (or time) that others may use before a run says that it was disturbed
PEERS = ("distcc", "distcc-pump", "icecc", "ccache")

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Part:
    """A part is the outcome of one part of the benchmark.

    `trouble` says why the part has no figures; it is "" if it has some. `strangers` is the share of
    the machine's work that was not ours. `stolen` is the share of all cores' time that the host of
    this virtual machine gave to others. Both are NaN if they are unknown.
    """

    name: str
    figures: tuple[Figure, ...]
    wall_s: float
    strangers: float = math.nan
    trouble: str = ""
    notes: tuple[str, ...] = ()
    stolen: float = math.nan


def table(parts: Sequence[Part]) -> Table:
    """Return a table with a row for each figure."""
    made = Table()
    made.add_column("workload")
    made.add_column("figure")
    for head in ("median", "least", "most", "rounds", "to reach", ""):
        made.add_column(head, justify="right")
    for part in parts:
        for figure in part.figures:
            made.add_row(*row(figure))
        if part.trouble:
            made.add_row(part.name, part.trouble)
        made.add_section()
    return made


def row(figure: Figure) -> tuple[str, ...]:
    """Return the cells of one figure's row."""
    verdict = {None: "", True: "reached", False: "missed"}[figure.is_reached]
    return (
        figure.workload,
        figure.name,
        *(number(value, figure.unit) for value in (figure.median, min(figure.samples), max(figure.samples))),
        str(len(figure.samples)),
        str(figure.target or ""),
        verdict,
    )


def number(value: float, unit: str) -> str:
    """Format a value with about three significant digits, and with its unit unless that is `x`."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 or value == 0 else 3
    return f"{value:.{digits}f}" + (f" {unit}" if unit and unit != "x" else "")


def as_json(parts: Sequence[Part], settings: Mapping[str, object], measured: str, not_reached: Sequence[str]) -> Json:
    """Return all samples, with the machine and the settings.

    `measured` is the commit that was measured. `not_reached` names the chosen parts that the run
    did not begin or did not finish.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": measured,
        "machine": machine(),
        "peers": peer_versions(),
        "settings": dict(settings),
        "not_reached": list(not_reached),
        "parts": [_part_json(part) for part in parts],
    }


def write(report: Json, directory: Path = RESULTS) -> Path:
    """Write a report into a file named after its time and commit; return the path."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = str(report["date"]).replace(":", "").replace("+0000", "Z")
    path = directory / f"{stamp}-{str(report['commit'])[:10]}.json"
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    return path


def warnings(parts: Sequence[Part]) -> list[str]:
    """Return the lines that a reader must know before trusting a figure."""
    loaded = [
        f"{part.name}: measured on a loaded machine: {part.strangers:.0%} of its work was not this benchmark's"
        for part in parts
        if part.strangers > LOADED
    ]
    stolen = [
        f"{part.name}: the host gave {part.stolen:.0%} of the machine's time to others"
        for part in parts
        if part.stolen > LOADED
    ]
    return [*loaded, *stolen, *(f"{part.name}: {note}" for part in parts for note in part.notes)]


def show(parts: Sequence[Part], console: Console) -> None:
    """Print the table and the warnings."""
    console.print(table(parts))
    for line in warnings(parts):
        console.print(line, markup=False)


def machine() -> Json:
    """Return the properties of this machine that the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": int(memory[1]) >> 10 if memory else 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def commit() -> str:
    """Return the checkout's commit, with a `+` if it has changes; "unknown" without git."""
    try:
        head = _output("git", "-C", str(CHECKOUT), "rev-parse", "HEAD")
        changed = _output("git", "-C", str(CHECKOUT), "status", "--porcelain", "--", ":!bench/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def peer_versions() -> Json:
    """Return the versions of the peers that are installed, by Debian package."""
    found: Json = {}
    for package in PEERS:
        try:
            found[package] = _output("dpkg-query", "-W", "-f", "${Version}", package)
        except (OSError, subprocess.CalledProcessError):
            continue  # it is not installed, and the report leaves it out
    return found


def _part_json(part: Part) -> Json:
    return {
        "name": part.name,
        "wall_s": round(part.wall_s, 1),
        "strangers": None if math.isnan(part.strangers) else round(part.strangers, 3),
        "stolen": None if math.isnan(part.stolen) else round(part.stolen, 3),
        "trouble": part.trouble,
        "notes": list(part.notes),
        "figures": [_figure_json(figure) for figure in part.figures],
    }


def _figure_json(figure: Figure) -> Json:
    return {
        **{key: value for key, value in dataclasses.asdict(figure).items() if key != "target"},
        "median": figure.median,
        "min": min(figure.samples),
        "max": max(figure.samples),
        "target": str(figure.target) if figure.target else None,
        "reached": figure.is_reached,
    }


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
