"""Show the share of hits in clean builds of packages in one directory, and why others miss."""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from termite.engine.master.reuse.result_cache import AUDIT
from termite.engine.recall.logic.uses import Dependency, PathSet, State
from termite.engine.recall.look_up.differences import difference_of_states
from termite.engine.recall.look_up.evidence import Shape
from termite.engine.recall.look_up.stored_rows import LastRun, PathSetRow, ResultRow, unpack_value
from tests.cache_proof.projects import TABLE, Project
from tests.cache_proof.rounds import caching, jobs_of
from tests.cache_proof.twin import BUILD_LIMIT_S, copy_tree, remove_tree
from tests.e2e.cluster import Tree

BUILDS = 3
APART_S = 2.5
SHOWN = 6  # reasons of one build
RESULTS = Path("home/.cache/termite/results")
ON_WORKERS = ("worker", "cache")


@dataclass(frozen=True, slots=True)
class Stored:
    """All that the index says at one moment: last runs by name, path sets, and shapes."""

    last: Mapping[bytes, LastRun]
    path_sets: Mapping[tuple[bytes, bytes], PathSet]
    shapes: Mapping[bytes, Shape]  # by weak fingerprint

    def of_job(self, number: int) -> tuple[bytes, LastRun] | None:
        """Return the name and the run of the job of this number."""
        return next((found for found in self.last.items() if found[1].job.startswith(f"job {number} ")), None)


def show_rates(base: Path, projects: list[Project], *, with_commands: bool, short: str = "0") -> int:
    """Print the share of hits of each build, and its commonest reasons of misses.

    Short commands that ran here are no part of the share. A hit that was executed all the same, to
    compare it, counts as a hit. `with_commands`: print each command that missed after the first
    build.
    """
    print(
        "| package | build | commands that end with 0 | hits | share | short ones that ran here | reasons of misses |\n"
        "|---|---|---|---|---|---|---|"
    )
    with caching(base, f"cache-rates-{os.getpid()}", short=short) as tree:
        for project in projects:
            for number, jobs, missed in _builds(tree, project):
                reasons = Counter(reason for _, reason in missed)
                passed = [job for job in jobs if job["where"] in ON_WORKERS and job["exit_code"] == 0]
                hits = sum(job["where"] == "cache" or job["miss"] == AUDIT for job in passed)
                share = 100 * hits / len(passed) if passed else 0.0
                here = sum(job["cause"]["kind"] == "short" for job in jobs)
                said = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(SHOWN))
                counts = f"{len(passed)} | {hits} | {share:.1f} % | {here}"
                print(f"| {project.name} | {number} | {counts} | {said} |", flush=True)
                for text, reason in missed if with_commands and number > 1 else ():
                    print(f"    {reason}: {text!r}", flush=True)
    return 0


def _builds(tree: Tree, project: Project) -> Iterator[tuple[int, list[dict[str, Any]], list[tuple[str, str]]]]:
    """Build the project several times from its sources in one directory.

    Yield the number of the build, its jobs, and the texts of those that missed with the reasons.
    """
    own = project.make(tree)
    pristine = tree.where.base / f"pristine-{project.name}"
    copy_tree(own.path, pristine)
    index = next((tree.where.base / RESULTS).glob("index-*.db"))
    before = _read(index)
    for number in range(1, BUILDS + 1):
        words = [tree.where.termite(f"termite-{project.tool}"), "-j2", *project.words]
        done = tree.where.run(words, own.path / project.within, timeout_s=BUILD_LIMIT_S)
        assert done.code == 0 or project.name == TABLE, done
        time.sleep(APART_S)  # until everything is stored, and the next run is a proof
        jobs, now = jobs_of(own), _read(index)
        missed = [job for job in jobs if _is_miss(job)]
        yield number, jobs, [(job["text"], _reason(job, before, now)) for job in missed]
        before = now
        _begin_anew(own.path, pristine)


def _is_miss(job: Mapping[str, Any]) -> bool:
    return bool(job["where"] == "worker" and job["exit_code"] == 0 and job["miss"] != AUDIT)


def _begin_anew(top: Path, pristine: Path) -> None:
    """Remove what was built. Sources that a build has changed are as before."""
    for path in sorted(top.rglob("*"), reverse=True):
        first = pristine / path.relative_to(top)
        if path.is_dir() and not path.is_symlink():
            if not first.exists():
                remove_tree(path)
        elif not os.path.lexists(first):
            path.unlink()
        elif path.lstat().st_mtime_ns != first.lstat().st_mtime_ns:
            path.unlink()
            copy_tree(first, path)


def _reason(job: Mapping[str, Any], before: Stored, now: Stored) -> str:
    """Return why a job was executed in the latest build."""
    found = now.of_job(job["id"])
    if found is None:
        return "no identity" if job["trace_paths"] else "untraced"
    name, run = found
    if run.obstacle:
        return f"not stored: {run.obstacle} {run.detail.decode(errors='replace')}"
    last = before.last.get(name)
    if last is None:
        return "never seen"
    if last.weak != run.weak:
        return f"another {_other_command(last, run)}"
    shape = now.shapes.get(run.weak)
    if shape is not None and shape.refused:
        return f"refused: {shape.refused}"
    if last.path_set_id != run.path_set_id:
        one, other = (
            stored.path_sets.get((run.weak, found.path_set_id)) for stored, found in ((before, last), (now, run))
        )
        return f"other inputs: {_other_input(one, other)}"
    path_set = now.path_sets.get((run.weak, run.path_set_id))
    if path_set is None:
        return "no path set"
    different = difference_of_states(path_set.dependencies, _states(last), _states(run))
    if different is None:
        return "unproven"
    return f"{different.cause.value} {different.name.decode(errors='replace')}"


def _other_command(one: LastRun, other: LastRun) -> str:
    """Return the first part in which two commands of the same name differ."""
    if one.argv != other.argv:
        return "command of this name"
    parts = [name for name in one.others if one.others[name] != other.others.get(name)]
    names = one.variables.keys() | other.variables.keys()
    variables = sorted(name.decode() for name in names if one.variables.get(name) != other.variables.get(name))
    return ", ".join(parts or variables) or "directory"


def _other_input(one: PathSet | None, other: PathSet | None) -> str:
    if one is None or other is None:
        return "gone"
    differing = set(one.dependencies) ^ set(other.dependencies)
    return " ".join(
        f"{found.path.decode(errors='replace')}:{found.use:#x}" for found in sorted(differing, key=_path)[:4]
    )


def _path(dependency: Dependency) -> bytes:
    return dependency.path


def _states(run: LastRun) -> list[State]:
    return [tuple(map(_frozen, state)) for state in msgspec.msgpack.decode(run.states, type=list[list[object]])]


def _frozen(part: object) -> object:
    return tuple(map(_frozen, part)) if isinstance(part, list) else part


def _read(index: Path) -> Stored:
    """Read the whole index."""
    database = sqlite3.connect(index)
    try:
        last, path_sets, shapes, of_weak = {}, {}, {}, {}
        for name, packed in database.execute("SELECT name, packed FROM last_runs"):
            if (run := unpack_value(packed, LastRun)) is not None:
                last[name] = run
        for weak, packed in database.execute("SELECT weak, packed FROM path_sets"):
            if (row := unpack_value(packed, PathSetRow)) is not None:
                path_sets[weak, row.id] = row.path_set
        for identity, packed in database.execute("SELECT id, packed FROM shapes"):
            if (shape := unpack_value(packed, Shape)) is not None:
                shapes[identity] = shape
        for weak, packed in database.execute("SELECT weak, packed FROM results"):
            if (result := unpack_value(packed, ResultRow)) is not None and result.shape in shapes:
                of_weak[weak] = shapes[result.shape]
    finally:
        database.close()
    return Stored(last, path_sets, of_weak)
