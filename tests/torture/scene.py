"""A scene is all that a fault may use: the running round, its random numbers, and what it tells.

A fault is a generator that yields the seconds to wait before its next step. The round resumes it
while the build runs, and closes it when the build has ended, so a fault undoes its deed in
`finally`.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.processes import Kind, Process, kinds_of, read_processes
from tests.torture.project import Project, Tool
from tests.torture.rig import USUAL_SETTINGS, Rig, Settings

Steps = Generator[float, None, None]
SOON_S = 0.01  # between two looks at something that tells nobody
PICK_S = 5.0  # a process of the wanted kind appears within this time, or there is none


@dataclass
class Scene:
    """A scene of one round. `problems` begin with "wrong:", "hang:" or "left:"."""

    project: Project
    rig: Rig
    mark: str
    rng: random.Random
    outputs: Sequence[Path]
    build: "subprocess.Popen[bytes] | None" = None
    output: Path | None = None  # what the build prints
    injected: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    edited: dict[str, bytes] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        """Return the top of the tree as this process reaches it."""
        return self.rig.seen(self.rig.tree)

    def made(self) -> float:
        """Return the share of the project's outputs that exist."""
        return sum(map(os.path.lexists, self.outputs)) / len(self.outputs)

    def processes(self) -> dict[int, Process]:
        return read_processes(self.mark, self.rig.where.base)

    def kinds(self) -> dict[Kind, list[int]]:
        return kinds_of(self.processes())


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault is hit into one build.

    `ends_build`: the build may fail, because the user or the fault ends it. It is then built again,
    so the project lacks the commands that may not run twice. `standstill_s` is how long the fault
    itself lets everything stand still. `is_warm`: the project was built once before, on the same
    workers.
    """

    name: str
    words: str
    inject: Callable[[Scene], Steps]
    settings: Settings = USUAL_SETTINGS
    ends_build: bool = False
    standstill_s: float = 0.0
    needs_root: bool = False
    is_warm: bool = False
    tools: tuple[Tool, ...] = tuple(Tool)


def moment(scene: Scene, low: float = 0.02, high: float = 0.85) -> Steps:
    """Wait until a random share of the outputs exists, between `low` and `high`, and a bit longer.

    A share of the build is the same moment on a slow machine as on a fast one.
    """
    share = scene.rng.uniform(low, high)
    extra_s = scene.rng.uniform(0.0, 0.15)
    while scene.made() < share:
        yield SOON_S
    yield extra_s


def wait_for_publishing(scene: Scene, *names: str) -> Steps:
    """Wait until one of the large results is in the tree, and probably not yet all of it.

    `names` are directories; the random one is published by a command that makes hundreds of files.
    """
    large = scene.tree / scene.rng.choice(names)
    while not os.path.lexists(large):
        yield 0.0
    yield scene.rng.uniform(0.0, 0.02)


def pick(scene: Scene, kind: Kind) -> Generator[float, None, int | None]:
    """Wait for a process of a kind, and return the pid of a random one.

    Return None if there is none for some seconds.
    """
    for _ in range(round(PICK_S / SOON_S)):
        if found := scene.kinds().get(kind):
            return scene.rng.choice(found)
        yield SOON_S
    return None


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
