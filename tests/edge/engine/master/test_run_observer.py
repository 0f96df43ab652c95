"""Observe runs with a real tree and its journal, and with traces as mirrors pack them."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.master.reuse.run_observer import ObservedRun, RunObserver
from termite.engine.model import Attr, Change, Digest, Exit, Usage
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.logic.dependencies import Obstacle
from termite.engine.recall.logic.traced_paths import AccessKind
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.wire.protocol.messages import Ran, Run
from termite.fuse.view.trace_names import TraceNames
from tests.unit.fuse.view.test_trace_names import noted

WEAK = b"w" * 32
READ, EXEC, LIST = (kind | AccessKind.FOLLOW for kind in (AccessKind.READ, AccessKind.EXEC, AccessKind.LIST))
WRITES = AccessKind.CREATE | AccessKind.TRUNC | AccessKind.FOLLOW
PROGRAM = b"#!/bin/sh\nexit 1\n"


def nothing() -> None:
    """Happen while a run goes on."""


class Project:
    """A tree with a source and a directory for headers, and its master."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "inc").mkdir(parents=True)
        (root / "src").mkdir()
        (root / "lib").mkdir()
        (root / "src/a.c").write_text("a")
        self.top = bytes(root).strip(b"/")
        self.tree = MasterTree(TreeConfig(self.top))
        for directory in ("src", "inc", "lib"):
            self.tree.load(self.top + b"/" + directory.encode(), "")
        self.uses = {b"src/a.c": READ, b"inc/gen.h": READ}
        self.inline: dict[bytes, bytes] = {}
        self.changes: tuple[Change, ...] = ()

    def make(self, name: bytes, content: bytes) -> None:
        """Let the run have made a program of this name, and executed it."""
        self.uses[name] = WRITES | EXEC
        sha256 = hashlib.sha256(content).digest()
        self.inline[sha256] = content
        attr = Attr(0o100755, len(content), time.time_ns(), Digest(sha256, len(content)))
        self.changes += (Change(self.top + b"/" + name, attr),)

    async def observe(
        self, meanwhile: Callable[[], object] = nothing, *, weak: bytes = WEAK, is_traced: bool = True
    ) -> ObservedRun:
        """Return what is found of a run during which `meanwhile` happens."""
        return (await self._observe(meanwhile, weak=weak, is_traced=is_traced))[1]

    async def changed_inputs(self, meanwhile: Callable[[], object]) -> tuple[bool, list[bytes]]:
        """Return whether anything seems to have changed, and the changed inputs below the root."""
        observer, found = await self._observe(meanwhile, weak=b"")
        assert found.dependencies is not None
        changed = observer.changed_inputs(found.dependencies.path_set)
        return observer.sees_changes(), [one.path.removeprefix(self.top + b"/") for one in changed]

    async def _observe(
        self, meanwhile: Callable[[], object], *, weak: bytes, is_traced: bool = True
    ) -> tuple[RunObserver, ObservedRun]:
        number = self.tree.drain()
        message = Run(1, number, (), (b"gcc",), b"gcc", True, (), b"/" + self.top, 0o22, False, False)
        observer = RunObserver(self.tree, FactReader(self.tree), message, self.top)
        meanwhile()
        uses = [(b"/" + self.top + b"/" + name, kinds, kinds) for name, kinds in self.uses.items()]
        learnt = LearntNames()
        trace = TraceNames().pack(noted(uses), 3, 0)
        learnt.learn(trace)
        now = time.time_ns()
        ran = Ran(Exit(1), Usage(), self.changes, self.inline, now, now, trace=trace if is_traced else None)
        return observer, await observer.observe(ran, learnt, Timing(now, now, now, 0, number), weak)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path / "proj")
    yield project
    project.tree.close()


async def test_a_run_is_observed_with_what_it_used(project: Project) -> None:
    found = await project.observe()
    assert (found.obstacle, found.changed) == (None, b"")
    assert found.observation is not None and found.dependencies is not None
    paths = {dependency.path for dependency in found.dependencies.path_set.dependencies}
    assert {project.top + b"/src/a.c", project.top + b"/inc/gen.h"} <= paths
    assert (await project.observe()).observation == found.observation
    without_command = await project.observe(weak=b"")
    assert (without_command.dependencies, without_command.observation) == (found.dependencies, None)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda root: (root / "inc/gen.h").write_text("late"), "inc/gen.h"),
        (lambda root: (root / "src/a.c").write_text("other"), "src/a.c"),
        (lambda root: (root / "src/a.c").unlink(), "src/a.c"),
        (lambda root: (root / "lib/new").write_text(""), "lib"),
    ],
)
@pytest.mark.parametrize("weak", [b"", WEAK])
async def test_an_input_that_changed_meanwhile_is_named(
    project: Project, change: Callable[[Path], object], name: str, weak: bytes
) -> None:
    project.uses[b"lib"] = LIST
    found = await project.observe(lambda: change(project.root), weak=weak)
    assert b"/" + found.changed == bytes(project.root / name)
    assert found.dependencies is not None and found.observation is None
    if weak:
        assert (found.obstacle, found.detail) == (Obstacle.CHANGED, bytes(project.root / name))


async def test_a_new_time_alone_is_no_change_but_is_not_stored(project: Project) -> None:
    found = await project.observe(lambda: os.utime(project.root / "src/a.c", (1, 1)))
    assert (found.changed, found.observation, found.obstacle) == (b"", None, Obstacle.CHANGED)


async def test_changes_of_others_do_not_count(project: Project) -> None:
    found = await project.observe(lambda: (project.root / "src/b.o").write_text("b"))
    assert found.changed == b"" and found.observation is not None


async def test_the_inputs_that_a_second_run_would_find_otherwise_are_named(project: Project) -> None:
    def change() -> None:
        (project.root / "inc/gen.h").write_text("late")
        (project.root / "lib/new").write_text("")
        os.utime(project.root / "src/a.c", (1, 1))

    project.uses[b"lib"] = LIST
    assert await project.changed_inputs(nothing) == (False, [])
    assert await project.changed_inputs(lambda: os.utime(project.root / "src/a.c", (2, 2))) == (True, [])
    assert await project.changed_inputs(change) == (True, [b"inc/gen.h", b"lib/new"])


async def test_a_run_without_a_trace_is_not_observed(project: Project) -> None:
    found = await project.observe(is_traced=False)
    assert found == ObservedRun(obstacle=Obstacle.GAP, detail=b"untraced")


async def test_a_directory_that_nobody_may_enter_keeps_a_result_out_and_for_root_its_mode_counts(
    project: Project,
) -> None:
    (project.root / "src/dir.c").mkdir()
    (project.root / "src/dir.c").chmod(0)
    project.uses[b"src/dir.c/a.h"] = READ
    found = await project.observe()
    (project.root / "src/dir.c").chmod(0o755)
    if os.geteuid():
        assert found.obstacle is Obstacle.FACTS
    else:
        assert found.observation is not None
    assert (await project.observe()).observation not in (None, found.observation)


async def test_the_interpreter_of_a_program_that_the_run_made_is_known_from_its_result(project: Project) -> None:
    project.make(b"src/run.sh", PROGRAM)
    found = await project.observe()
    assert found.obstacle is None and found.dependencies is not None
    assert any(tool.endswith((b"bin/sh", b"bin/dash", b"bin/bash")) for tool in found.dependencies.tools)
    project.inline.clear()
    project.changes = tuple(_changed(change) for change in project.changes)
    assert (await project.observe()).obstacle in (Obstacle.FACTS, Obstacle.PROGRAM)


def _changed(change: Change) -> Change:
    """Return the change with another content, whose head nobody knows."""
    assert change.attr is not None
    return msgspec.structs.replace(change, attr=msgspec.structs.replace(change.attr, digest=Digest(b"?" * 32, 9)))
