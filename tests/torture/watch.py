"""Watch a build: resume its fault at the right times, and notice that nothing goes on any more."""

import os
import time
from pathlib import Path

from tests.torture.processes import Kind, kinds_of, waiting_in
from tests.torture.scene import Fault, Scene, Steps

STILL_S = 30.0  # without progress, beyond the standstill of the fault itself, a build hangs
LONGEST_S = 240.0  # a build takes seconds; one that goes on for so long does something again and again
LOOK_S = 0.005  # at the build's end
PROGRESS_S = 1.0  # between two looks for progress, which read all of /proc
SHOWN = 4  # processes of a hang in the verdict
_WORKING = (Kind.LAUNCHER, Kind.COMMAND, Kind.TOOL)


class Hang(Exception):
    """A build makes no progress."""


class _Progress:
    """The progress of a build shows in its output, its tree and its processes."""

    def __init__(self, scene: Scene, output: Path) -> None:
        self._scene = scene
        self._output = output
        self._last: object = None
        self.changed_at = self._looked_at = time.monotonic()

    def look(self, now: float) -> None:
        """Look whether something has changed, unless the last look was just before."""
        if now < self._looked_at + PROGRESS_S:
            return
        self._looked_at = now
        kinds = self._scene.kinds()
        working = [kinds.get(kind, []) for kind in _WORKING]
        names = sum(len(files) for _, _, files in os.walk(self._scene.tree))
        seen = (self._output.stat().st_size, names, working)
        if seen != self._last:
            self._last, self.changed_at = seen, now


def watch_build(scene: Scene, output: Path, fault: Fault | None) -> int:
    """Wait for the build's end, and return its exit code. Raise Hang if it makes no progress.

    The generator of the fault is closed when the build has ended.
    """
    assert scene.build is not None
    progress = _Progress(scene, output)
    patience_s = STILL_S + (fault.standstill_s if fault else 0.0)
    steps: Steps | None = fault.inject(scene) if fault else None
    begun = due = time.monotonic()
    try:
        while (code := scene.build.poll()) is None:
            now = time.monotonic()
            if steps is not None and now >= due:
                wait_s = next(steps, None)
                due = time.monotonic() + (wait_s or 0.0)
                steps = steps if wait_s is not None else None
            progress.look(now)
            if now > progress.changed_at + patience_s:
                raise Hang(_description(scene, f"nothing happens for {patience_s:g} s"))
            if now > begun + LONGEST_S + patience_s:
                raise Hang(_description(scene, f"the build has not ended after {now - begun:.0f} s"))
            time.sleep(min(LOOK_S, max(due - time.monotonic(), 0.0)) if steps else LOOK_S)
    finally:
        if steps is not None:
            steps.close()
    return code


def wait_for_rest(scene: Scene) -> None:
    """Wait until nothing of a build works any more. The tools below a killed one build on.

    Raise Hang if that takes longer than a build may stand still.
    """
    until = time.monotonic() + STILL_S
    while any(scene.kinds().get(kind) for kind in _WORKING):
        if time.monotonic() > until:
            raise Hang(_description(scene, f"the rest of a build works on for {STILL_S:g} s"))
        time.sleep(PROGRESS_S)


def _description(scene: Scene, words: str) -> str:
    """Return what hangs, and write more of it to `hang.txt`: each process, and what it waits for.

    The fault is still in force.
    """
    processes = scene.processes()
    lines = [
        f"{kind.value} {processes[pid]} in {waiting_in(pid)}"
        for kind, pids in kinds_of(processes).items()
        for pid in pids
    ]
    (scene.rig.where.base / "hang.txt").write_text("\n".join([str(scene.rig.status()), *lines, ""]))
    stopped = [line for line in lines if " T " in line]
    working = [line for line in lines if line.startswith((Kind.COMMAND.value, Kind.LAUNCHER.value))]
    return "; ".join([words, *(stopped + working)[:SHOWN]])
