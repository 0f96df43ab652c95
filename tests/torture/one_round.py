"""One round: make the place and the model, build with the fault, check, and clean up.

All rounds of a run use the same directory, one after the other, because the model holds for one
path. The directory of a failed round gets another name and is kept.
"""

import os
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.places import IS_ROOT, place
from tests.torture.checker import check_leftovers, check_output, check_partial_tree, check_tree, is_said
from tests.torture.model import Model, ModelError, model_of
from tests.torture.project import Project, write_project
from tests.torture.rig import Rig, RigError
from tests.torture.scene import Fault, Scene, send
from tests.torture.steps import USUAL, Size
from tests.torture.watch import Hang, wait_for_rest, watch_build

BUILD_JOBS = 8
PROJECT_SEEDS = 3  # different projects: few, so that their models are used again
END_S = 10.0
SHOWN_LINES = 4  # of the output of a failed build; the whole is in the kept directory


@dataclass(slots=True)
class Result:
    """A result of one round. `injected` is empty if the build ended before the fault's moment."""

    fault: str
    seed: int
    seconds: float = 0.0
    jobs: int = 0
    builds: int = 0
    injected: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kept: Path | None = None


class Rounds:
    """The rounds of one run below `base`, with the models that they share."""

    def __init__(self, base: Path, size: Size = USUAL) -> None:
        self._base = base
        self._size = size
        self._models: dict[tuple[Project, int], Model] = {}

    def run(self, fault: Fault, seed: int) -> Result:
        """Run one round; never raise because of what termite does."""
        result = Result(fault.name, seed)
        before = time.monotonic()
        rng = random.Random(f"{seed} {fault.name}")
        project = Project(rng.randrange(PROJECT_SEEDS), rng.choice(fault.tools), self._size, fault.ends_build)
        kind = rng.choice(("root", "ordinary")) if IS_ROOT else "ordinary"
        short = rng.choice(("0", "0", "auto"))
        here = self._base / "now"
        mark = f"torture-{fault.name}-{seed}-{time.time_ns()}"
        with place(kind, here, mark) as where:
            rig = Rig(where, here / "tree", fault.settings, short)
            scene = Scene(project, rig, mark, rng, [rig.seen(rig.tree / step.output) for step in project.steps()])
            with ended(scene):
                self._build_and_check(fault, scene, result)
            if fault.settings.tree_mb and scene.problems:
                shutil.copytree(scene.tree, here / "tree-kept", symlinks=True, dirs_exist_ok=True)
        result.injected, result.problems = scene.injected, scene.problems
        result.seconds = time.monotonic() - before
        self._put_away(here, result)
        return result

    def _build_and_check(self, fault: Fault, scene: Scene, result: Result) -> None:
        try:
            model = self._prepare(scene)
            scene.rig.start()
            if fault.is_warm:
                self._build(scene, result, None)
                self._write_tree(scene)
            self._build(scene, result, fault)
            result.jobs += _jobs(scene)
            if self._settle(fault, scene, result, model):
                scene.problems += check_tree(scene, lambda: self._model_now(scene, model))
        except Hang as hang:
            scene.problems.append(f"hang: {hang}")
            _end_build(scene)
        except (RigError, ModelError) as error:
            scene.problems.append(f"wrong: {error}")
        except Exception:  # around faults and checks: one that is broken must not end the run
            scene.problems.append(f"wrong: the harness itself: {traceback.format_exc()}")
            _end_build(scene)

    # -- steps of a round ----------------------------------------------------------------------------------------------

    def _prepare(self, scene: Scene) -> Model:
        """Make the tree with its sources, and the model if this project has none yet."""
        scene.rig.mount_tree()
        key = scene.project, scene.rig.where.uid
        if key not in self._models:
            self._write_tree(scene)
            self._models[key] = model_of(scene.project, scene.rig.where, scene.rig.tree, scene.tree)
        self._write_tree(scene)
        return self._models[key]

    def _write_tree(self, scene: Scene) -> None:
        """Write the sources into the tree, without anything that a build has made."""
        _empty(scene.tree)
        rig = scene.rig
        write_project(scene.project, scene.tree, rig.where.uid)
        for name, content in scene.edited.items():
            (scene.tree / name).write_bytes(content)
        for command in scene.project.prepare():
            done = rig.where.run(command, rig.tree)
            if done.code:
                raise ModelError(f"{command} ends with {done.code}: {done.stderr!r}")

    def _build(self, scene: Scene, result: Result, fault: Fault | None) -> int:
        """Build once, with the fault if there is one, and return the exit code."""
        result.builds += 1
        output = scene.rig.where.base / f"build-{result.builds}.out"
        scene.output = output
        scene.build = scene.rig.build(scene.project.command(BUILD_JOBS), output)
        code = watch_build(scene, output, fault)
        if code and fault is None:
            scene.problems.append(
                f"wrong: without a fault the build ends with {code}: {_last_words(output.read_bytes())}"
            )
        return code

    def _rebuild(self, scene: Scene, result: Result) -> bool:
        """Build once more, without a fault and with all daemons; return True if that succeeds."""
        scene.rig.revive()
        before = _jobs(scene)
        code = self._build(scene, result, None)
        result.jobs += max(_jobs(scene) - before, 0)
        return code == 0

    def _settle(self, fault: Fault, scene: Scene, result: Result, model: Model) -> bool:
        """Judge the end of the build with the fault, and build again if that is due.

        Return True if the tree should now be the model's.
        """
        output = (scene.rig.where.base / f"build-{result.builds}.out").read_bytes()
        assert scene.build is not None
        code = scene.build.returncode
        if fault.ends_build:
            wait_for_rest(scene)
            for name in scene.edited:
                (scene.tree / name).touch()
            return self._rebuild(scene, result)
        if code and is_said(output):
            scene.injected.append("the build said that a command was lost")
            scene.problems += check_partial_tree(scene, model)
            self._write_tree(scene)  # a user who was told that a command was lost builds from the beginning
            return self._rebuild(scene, result)
        if code:
            scene.problems.append(f"wrong: the build ends with {code}: {_last_words(output)}")
        else:
            scene.problems += check_output(model, output)
        return code == 0

    def _model_now(self, scene: Scene, model: Model) -> Model:
        """Return the model of the tree's sources: if some were edited, build them plainly."""
        if not scene.edited:
            return model
        self._write_tree(scene)
        return model_of(scene.project, scene.rig.where, scene.rig.tree, scene.tree)

    def _put_away(self, here: Path, result: Result) -> None:
        if not result.problems:
            shutil.rmtree(here)
            return
        result.kept = self._base / f"failed-{result.fault.replace(':', '-')}-{result.seed}"
        shutil.rmtree(result.kept, ignore_errors=True)
        here.rename(result.kept)


def _empty(top: Path) -> None:
    """Remove everything in a directory but the master's own files and mount points.

    If rmdir(2) is called from our mount namespace, it takes the mount away in that of the place.
    """
    for path in top.iterdir():
        if path.name.startswith(".termite-"):
            continue
        if path.is_dir() and not path.is_symlink():
            if path.stat().st_dev == top.stat().st_dev:
                shutil.rmtree(path)
            else:
                _empty(path)
        else:
            path.unlink()


@contextmanager
def ended(scene: Scene) -> Iterator[None]:
    """Stop the daemons at the end, look for what is left, and end it."""
    try:
        yield
    finally:
        try:
            if scene.rig.processes:
                scene.problems += scene.rig.stop()
                scene.problems += check_leftovers(scene)
        finally:  # even if SIGTERM ends the run at this moment
            for pid in scene.processes():
                send(pid, signal.SIGKILL)
            scene.rig.kill()


def _end_build(scene: Scene) -> None:
    """End a build that hangs: as a user would, and if that is no use, by force."""
    if scene.build is None:
        return
    for number in (signal.SIGINT, signal.SIGCONT, signal.SIGKILL):
        if number is signal.SIGINT:
            with suppress(ProcessLookupError):
                os.killpg(scene.build.pid, number)  # as the keyboard does
        else:
            for pid in scene.processes():
                send(pid, number)
        with suppress(subprocess.TimeoutExpired):
            scene.build.wait(END_S)
            return
        scene.problems.append(f"hang: the build does not end after {number.name}")


def _jobs(scene: Scene) -> int:
    """Return the number of jobs of the running master; 0 if it does not answer."""
    jobs = scene.rig.status().get("jobs", {})
    return sum(jobs.get(kind, 0) for kind in ("remote", "local", "short"))


def _last_words(output: bytes) -> str:
    """Return the lines before the first failure that the tool reports, as one line."""
    lines = output.decode(errors="replace").splitlines()
    failed = next((n for n, line in enumerate(lines) if "***" in line or line.startswith("FAILED:")), len(lines) - 1)
    return " | ".join(lines[max(failed - SHOWN_LINES + 1, 0) : failed + 1])
