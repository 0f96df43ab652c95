"""The plain build as the model: what it makes, what it prints, and in which order of times.

The model is built in the same place and at the same path as the build that is compared with it,
because some tools write absolute paths.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.e2e.places import Place
from tests.e2e.snapshot import Entry, snapshot, times
from tests.torture.project import Project

T = TypeVar("T")

PLAIN_JOBS = 4
READ_ATTEMPTS = 20
LIMIT_S = 120.0
# Files in which a tool keeps times or its own notes, and what git and termite keep in a tree.
_PRIVATE = re.compile(
    rb"(^|/)(\.git|\.termite-(socket|staging)|\.ninja_(log|deps|lock))(/|$)|^build/(?!.*\.[oa]$)|^core(\.|$)"
)
# Lines of the tools that depend on time or order, and lines in which termite speaks to the user.
_UNCOUNTED = re.compile(rb"^(termite|\[ *\d+%\]|g?make|ninja: )")


@dataclass(frozen=True, slots=True)
class Model:
    """A model is the result of a plain build.

    `pairs` are the inputs and outputs of steps of which the output is not older than the input.
    """

    entries: dict[bytes, Entry]
    lines: Counter[bytes]
    pairs: frozenset[tuple[str, str]]


class ModelError(Exception):
    """A plain build fails, so there is nothing to compare with.

    The harness or the machine is at fault.
    """


def build_plainly(project: Project, where: Place, tree: Path) -> bytes:
    """Build without termite, and return all that was printed.

    Raise ModelError if the build fails.
    """
    done = where.run(project.command(PLAIN_JOBS), tree, merge=True, timeout_s=LIMIT_S)
    if done.code:
        raise ModelError(f"a plain build ends with {done.code}: {done.stdout[-800:]!r}")
    return done.stdout


def model_of(project: Project, where: Place, tree: Path, seen: Path) -> Model:
    """Build the project in `tree`, which has its sources.

    `seen` is the same directory for this process.
    """
    output = build_plainly(project, where, tree)
    found = times(seen)
    pairs = {
        (name, step.output)
        for step in project.steps()
        for name in step.inputs
        if found[name.encode()] <= found[step.output.encode()]
    }
    return Model(read_tree(seen), counted_lines(output), frozenset(pairs))


def read_tree(seen: Path) -> dict[bytes, Entry]:
    """Return everything that a build makes, without the private files of tools."""
    entries = _read_all(snapshot, seen)
    return {path: entry for path, entry in entries.items() if not _PRIVATE.search(path)}


def _read_all(read: Callable[[Path], dict[bytes, T]], seen: Path) -> dict[bytes, T]:
    """Read the tree; begin again if a file vanishes, as private files of a master do."""
    for _ in range(READ_ATTEMPTS):
        try:
            return read(seen)
        except FileNotFoundError:
            time.sleep(0.1)
    return read(seen)


def read_times(seen: Path) -> dict[bytes, int]:
    """Return the mtime of every file; a directory's changes with the private files in it."""
    return {
        path: mtime_ns
        for path, mtime_ns in _read_all(times, seen).items()
        if not _PRIVATE.search(path) and not (seen / path.decode(errors="surrogateescape")).is_dir()
    }


def counted_lines(output: bytes) -> Counter[bytes]:
    """Return how often the jobs of a build have printed each line."""
    return Counter(line for line in output.splitlines() if line and not _UNCOUNTED.match(line))


def differences(wanted: dict[bytes, Entry], found: dict[bytes, Entry]) -> list[str]:
    """Return a line for each path that differs."""
    return [
        f"{path.decode(errors='replace')}: {_words(wanted.get(path))}, not {_words(found.get(path))}"
        for path in sorted(wanted.keys() | found.keys())
        if wanted.get(path) != found.get(path)
    ]


def _words(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    links = f" links={len(entry.links)}" if len(entry.links) > 1 else ""
    return f"{entry.kind:o}/{entry.mode:o} {len(entry.content)} bytes {entry.content[:40]!r}{links}"


def order_broken(pairs: frozenset[tuple[str, str]], found: dict[bytes, int]) -> Sequence[str]:
    """Return the pairs of which the output has become older than the input."""
    nothing = -1
    return [
        f"{output} is older than {name}"
        for name, output in sorted(pairs)
        if found.get(name.encode(), nothing) > found.get(output.encode(), nothing)
    ]
