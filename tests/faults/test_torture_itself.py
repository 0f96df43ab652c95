"""The torture test itself.

It must see a wrong tree, a second output, a build that hangs, and what is left on the machine.
"""

import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.places import CHECKOUT, Place, environment
from tests.e2e.snapshot import times
from tests.torture import hostile, watch
from tests.torture.__main__ import summary
from tests.torture.checker import check_leftovers, check_output, check_partial_tree, check_tree, is_said
from tests.torture.faults import FAULTS
from tests.torture.model import Model, ModelError, build_plainly, model_of
from tests.torture.one_round import Result
from tests.torture.project import Project, Tool, write_project
from tests.torture.rig import USUAL_SETTINGS, Rig
from tests.torture.scene import Fault, Scene, Steps
from tests.torture.steps import SMALL
from tests.torture.watch import Hang, watch_build

MARK = "torture-itself"


@pytest.fixture(scope="module", params=list(Tool))
def built(base: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Scene, Model, Path]]:
    """Build the project plainly; the output of the build is in a file."""
    here = base / request.param.value
    for directory in (here, here / "home", here / "tree", here / "scratch-w0", here / "scratch-w1"):
        directory.mkdir()
    where = Place((), (), 0, here, environment(here, MARK))
    scene = scene_in(where, request.param)
    yield scene, build(scene), here


def scene_in(where: Place, tool: Tool) -> Scene:
    project = Project(0, tool, SMALL, is_repeatable=False)
    rig = Rig(where, where.base / "tree", USUAL_SETTINGS, "0")
    return Scene(project, rig, MARK, random.Random(0), [rig.tree / step.output for step in project.steps()])


def build(scene: Scene) -> Model:
    write_project(scene.project, scene.tree, scene.rig.where.uid)
    for command in scene.project.prepare():
        assert scene.rig.where.run(command, scene.tree).code == 0
    return model_of(scene.project, scene.rig.where, scene.rig.tree, scene.tree)


def test_a_plain_build_is_right(built: tuple[Scene, Model, Path]) -> None:
    scene, model, _ = built
    assert list(check_tree(scene, lambda: model)) == []
    assert list(check_partial_tree(scene, model)) == []
    assert scene.made() == 1.0
    assert len(model.lines) > 5 and len(model.pairs) > 20


@pytest.mark.parametrize("name", ["once/append0.log", "lib0/libx.a", "app/p0.out"])
def test_another_content_is_wrong(built: tuple[Scene, Model, Path], name: str) -> None:
    scene, model, _ = built
    content = (scene.tree / name).read_bytes()
    stamps = (scene.tree / name).stat()
    (scene.tree / name).write_bytes(content + b"line\n")
    problems = list(check_tree(scene, lambda: model))
    assert any(problem.startswith("wrong:") and name in problem for problem in problems), problems
    assert bool(list(check_partial_tree(scene, model))) == name.startswith("once/")
    (scene.tree / name).write_bytes(content)
    os.utime(scene.tree / name, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


def test_a_name_too_many_a_lost_link_and_another_mode_are_wrong(built: tuple[Scene, Model, Path]) -> None:
    scene, model, _ = built
    (scene.tree / "once" / "moved" / "many").mkdir()
    hard = scene.tree / "app" / "p0.hard"
    content = hard.read_bytes()
    hard.unlink()
    hard.write_bytes(content)
    hard.chmod(0o640)
    problems = list(check_tree(scene, lambda: model))
    assert any(problem.startswith("wrong: 3 paths differ: app/p0.hard") for problem in problems), problems
    (scene.tree / "once" / "moved" / "many").rmdir()
    hard.unlink()
    hard.hardlink_to(scene.tree / "app" / "p0.out")
    assert list(check_tree(scene, lambda: model)) == []


def test_output_that_comes_twice_or_not_at_all_is_wrong(built: tuple[Scene, Model, Path]) -> None:
    _, model, _ = built
    whole = b"\n".join(model.lines.elements())
    assert list(check_output(model, b"termite: 3 jobs\n" + whole)) == []
    assert list(check_output(model, whole + b"\nbefore 0\n"))
    assert list(check_output(model, whole.replace(b"before 0", b"")))


def test_a_file_and_a_process_that_are_left_are_found(
    built: tuple[Scene, Model, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, _, here = built
    monkeypatch.setattr("tests.torture.checker.GONE_S", 0.2)
    assert list(check_leftovers(scene)) == []
    (scene.tree / ".termite-socket").touch()
    (here / "scratch-w0" / "rest").touch()
    with subprocess.Popen(["sleep", "60"], env={"E2E_MARK": MARK}) as process:
        problems = list(check_leftovers(scene))
        process.kill()
    (scene.tree / ".termite-socket").unlink()
    (here / "scratch-w0" / "rest").unlink()
    assert [problem.split()[1] for problem in problems] == ["process", "file", "file"], problems


def test_a_build_without_progress_hangs(built: tuple[Scene, Model, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _, here = built
    monkeypatch.setattr(watch, "STILL_S", 0.3)
    monkeypatch.setattr(watch, "PROGRESS_S", 0.1)
    undone = []

    def inject(scene: Scene) -> Steps:
        try:
            yield 3600.0
        finally:
            undone.append("")

    (here / "out").touch()
    scene.build = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(Hang):
            watch_build(scene, here / "out", Fault("sleep", "", inject))
    finally:
        scene.build.kill()
        scene.build.wait()
    assert undone == [""]


def test_a_plain_build_that_fails_is_no_model(built: tuple[Scene, Model, Path]) -> None:
    scene, model, _ = built
    before = times(scene.tree)
    hidden = scene.tree / "hidden"
    name = {Tool.MAKE: "Makefile", Tool.NINJA: "build.ninja", Tool.CMAKE: "build"}[scene.project.tool]
    (scene.tree / name).rename(hidden)
    with pytest.raises(ModelError):
        build_plainly(scene.project, scene.rig.where, scene.rig.tree)
    hidden.rename(scene.tree / name)
    assert times(scene.tree).keys() >= before.keys()
    assert model.entries


def test_only_what_termite_has_said_counts_as_said() -> None:
    assert is_said(b"x\ntermite: lost the master, in the middle of: sort\nmake: *** [all] Error 2\n")
    assert is_said(b"make: *** [Makefile:5: x] Error 101\n")
    assert not is_said(b"make: *** [Makefile:5: x] Error 1\n")


def test_the_summary_counts_rounds_not_lines() -> None:
    results = [
        Result("a", 1, builds=2, injected=["x"], problems=["wrong: 1", "wrong: 2", "left: 3"]),
        Result("b", 1, builds=1, injected=["x"]),
        Result("c", 1, builds=1),
    ]
    assert summary(results) == "2 faults in 4 builds: 1 wrong, 0 hangs, 1 left"


@pytest.mark.parametrize(("seed", "verdict"), [(7, "wrong: FAILED"), (8, "")])
def test_an_attack_that_succeeds_with_one_seed_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, verdict: str
) -> None:
    test = tmp_path / "test_attack.py"
    test.write_text("import os\ndef test_attack():\n    assert os.environ['HOSTILE_SEED'] != '7'\n")
    monkeypatch.setitem(hostile._TESTS, hostile.HOSTILE, (str(test),))
    result = hostile.attack(tmp_path, hostile.HOSTILE, seed)
    assert [problem[: len(verdict)] for problem in result.problems] == [verdict] * bool(verdict)
    assert (result.kept is not None) == bool(verdict)


def test_every_attack_that_takes_a_seed_is_repeated() -> None:
    takes_seed = re.compile(r"HOSTILE_SEED|\bSEED\b")
    files = (CHECKOUT / "tests/hostile").glob("test_*.py")
    assert {str(file.relative_to(CHECKOUT)) for file in files if takes_seed.search(file.read_text())} == set(
        hostile.SEEDED
    )


def test_every_kind_of_fault_is_described() -> None:
    document = (CHECKOUT / "docs" / "develop" / "faults.md").read_text()
    kinds = {name.partition(":")[0] for name in FAULTS}
    assert len(kinds) > 8 and len(FAULTS) > 80
    assert {kind for kind in kinds if f"`{kind}:`" not in document} == set()
    assert all(fault.name == name and fault.words for name, fault in FAULTS.items())
