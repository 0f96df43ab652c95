"""Test with a real tree and its journal which changes of inputs are noticed while a job runs."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from termite.engine.errors import FsError, Stale
from termite.engine.recall.fact_reader import MOST_BYTES_AT_ONCE, PIECE_BYTES, FactReader, find_texts
from termite.engine.recall.logic.concurrent_changes import ConcurrentChanges
from termite.engine.recall.logic.dependencies import EndedJob, NotStorable, Obstacle
from termite.engine.recall.logic.interpreters import ELF_HEAD
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess
from termite.engine.recall.logic.tree_facts import FactsMissing
from termite.engine.recall.look_up.observation import Observation, observe
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig

WEAK = b"w" * 32
READ, LIST, EXEC = (kind | AccessKind.FOLLOW for kind in (AccessKind.READ, AccessKind.LIST, AccessKind.EXEC))
WRITES = AccessKind.CREATE | AccessKind.TRUNC | AccessKind.FOLLOW


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "proj"
    for name in ("src", "inc", "inc2", "list", "out"):
        (root / name).mkdir(parents=True)
    (root / "src/a.c").write_text("a")
    (root / "inc2/a.h").write_text("h")
    (root / "list/one").write_text("1")
    (root / "cur").symlink_to("inc2")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


@pytest.fixture
def tree(root: Path) -> Iterator[MasterTree]:
    tree = MasterTree(TreeConfig(bytes(root).strip(b"/")))
    yield tree
    tree.close()


def observed(root: Path, tree: MasterTree, meanwhile: Callable[[], object] = lambda: None) -> Observation:
    """Return what is stored about a job during which `meanwhile` happens."""
    reader, at = FactReader(tree), bytes(root)
    named = [(b"run.sh", EXEC), (b"src/a.c", READ), (b"inc/a.h", READ), (b"cur/a.h", READ), (b"list", LIST)]
    accesses = [PathAccess(at + b"/" + name, kind, kind) for name, kind in [*named, (b"out/a.o", WRITES)]]
    for directory in ("src", "inc", "inc2", "list", "out"):
        tree.load(bytes(root / directory).strip(b"/"), "")  # as a mirror does while the job runs
    number, names = tree.drain(), tree.attrs.name_changes
    meanwhile()
    tree.drain()
    now = time.time_ns()
    job = EndedJob((b"./run.sh",), at, JobTrace(tuple(accesses)), (), Timing(now, now, now, 0, number), at.strip(b"/"))
    while True:
        try:
            changesets = tree.changesets_since(number)
            changed = ConcurrentChanges(changesets, lambda path: tree.attrs.names_changed_since(path, names))
            return observe(job, WEAK, reader.facts(), changed)
        except FactsMissing as missing:
            trio.run(reader.supply, missing)


def test_a_tree_that_did_not_change_gives_the_same_fingerprints_to_every_master(root: Path, tree: MasterTree) -> None:
    found = observed(root, tree)
    assert {b"bin/dash", b"usr/bin/dash"} & set(found.dependencies.tools) or found.dependencies.tools[1:]
    other = MasterTree(TreeConfig(bytes(root).strip(b"/")))
    again = observed(root, other)
    assert (again.timed, again.blind, again.row) == (found.timed, found.blind, found.row)
    (root / "src/a.c").write_text("b")
    assert observed(root, tree).blind != found.blind
    other.close()


def _replace(path: Path) -> None:
    path.rename(path.with_name("moved"))
    shutil.copytree(path.with_name("moved"), path)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda root: (root / "src/a.c").write_text("b"), "src/a.c"),
        (lambda root: (root / "src/a.c").chmod(0o600), "src/a.c"),
        (lambda root: os.utime(root / "inc2/a.h", (1, 1)), "inc2/a.h"),
        (lambda root: (root / "inc/a.h").write_text("new"), "inc/a.h"),
        (lambda root: (root / "list/two").write_text("2"), "list"),
        (lambda root: (root / "list/one").unlink(), "list"),
        (lambda root: ((root / "list/one").unlink(), (root / "list/one").mkdir()), "list"),
        (lambda root: (root / "list/one").rename(root / "out/one"), "list"),
        (lambda root: ((root / "cur").unlink(), (root / "cur").symlink_to("inc")), "cur"),
        (lambda root: _replace(root / "inc2"), "inc2/a.h"),
        (lambda root: (root / "out/a.o").write_text("somebody else's"), "out/a.o"),
    ],
)
def test_an_input_that_changes_while_the_job_runs_is_noticed(
    root: Path, tree: MasterTree, change: Callable[[Path], object], path: str
) -> None:
    with pytest.raises(NotStorable) as refused:
        observed(root, tree, lambda: change(root))
    assert refused.value.obstacle is Obstacle.CHANGED
    assert refused.value.detail == bytes(root / path)


def test_outputs_of_other_jobs_are_no_change_of_an_input(root: Path, tree: MasterTree) -> None:
    found = observed(root, tree)

    def others() -> None:
        for name in ("out/b.o", "src/b.o", "inc/other.h"):
            (root / name).write_text("other")
        (root / "src").chmod(0o700)
        (root / "src").chmod(0o755)
        (root / "new").mkdir()
        (root / "list/one").write_text("other")
        os.replace(root / "out/b.o", root / "list/one")

    assert observed(root, tree, others).blind == found.blind


def test_a_fact_that_nobody_can_have_is_an_error(root: Path, tree: MasterTree) -> None:
    reader = FactReader(tree)
    with pytest.raises(Stale):
        trio.run(reader.supply, FactsMissing({b"none/at/all"}, set(), set()))
    with pytest.raises(FsError):
        trio.run(reader.supply, FactsMissing(set(), {bytes(root / "none").strip(b"/")}, set()))
    with pytest.raises(NotStorable):
        trio.run(reader.supply, FactsMissing(set(), set(), {(bytes(root / "run.sh").strip(b"/"), b"x" * 32)}))


def test_texts_are_found_wherever_they_are_in_a_file(tmp_path: Path) -> None:
    wanted = (ELF_HEAD, b"needle", b"x", b"absent")
    for content, found in (
        (b"", set()),
        (b"needl", set()),
        (b"needle", {b"needle"}),
        (ELF_HEAD + b"needle", {ELF_HEAD, b"needle"}),
        (b"x" + ELF_HEAD, {b"x"}),
        (b"\0" * (PIECE_BYTES - 3) + b"needle", {b"needle"}),
        (b"\0" * (2 * PIECE_BYTES) + b"x", {b"x"}),
    ):
        path = tmp_path / "file"
        path.write_bytes(content)
        with path.open("rb") as opened:
            assert find_texts(opened.fileno(), wanted) == found
            assert find_texts(opened.fileno(), ()) == frozenset()


@pytest.mark.parametrize("size", [10, 2 * MOST_BYTES_AT_ONCE])
def test_a_search_is_remembered_by_the_content(root: Path, tree: MasterTree, size: int) -> None:
    path = root / "src/a.c"
    path.write_bytes(b"-" * size + b"__DATE__")
    tree.drain()
    reader, name, wanted = FactReader(tree), bytes(path).strip(b"/"), (b"__DATE__", b"__TIME__")
    sha256 = hashlib.sha256(path.read_bytes()).digest()
    assert reader.facts().texts_in(name, sha256, wanted) is None
    trio.run(reader.supply, FactsMissing(set(), set(), set(), {(name, sha256, wanted)}))
    facts = reader.facts()
    assert facts.texts_in(b"another/name", sha256, wanted) == frozenset({b"__DATE__"})
    facts.check()
    assert facts.texts_in(name, sha256, (b"another text",)) is None
    with pytest.raises(FactsMissing):
        facts.check()
    with pytest.raises(Stale):
        trio.run(reader.supply, FactsMissing(set(), set(), set(), {(name, b"x" * 32, wanted)}))
