"""Run rounds: mutate, build with the cache, build plainly in a copy, and compare."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cache_proof.mutations import ENVIRONMENTS, UMASKS, Mutator
from tests.cache_proof.projects import TABLE, Project, give
from tests.cache_proof.twin import (
    BUILD_LIMIT_S,
    TOGETHER,
    copy_tree,
    difference_of_outcomes,
    differences,
    remove_tree,
    run_at,
)
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.places import Outcome, place
from tests.edge.engine.recall.table_commands import COMMANDS, MUTATIONS

JOBS = (1, 2, 4)
CLEAN_SHARE = 0.7  # of the rounds begin without what earlier ones have built
REWIND_SHARE = 0.3  # begin with the tree as it was at first
ENVIRONMENT_SHARE = 0.1  # have another environment, umask or time of a build
MUTATED_SHARE = 0.5  # of the directories of the table
MUTATION_COUNTS = (0, 0, 0, 1, 1, 1, 1, 2, 2, 3)
# A worker does not show the names in a directory that may be read, but not entered.
ALWAYS_LEFT_OUT = ("src closed",)
# Nor does it change a file that nobody may read.
LEFT_OUT = dict.fromkeys(("mv t1 out/moved", "ln t1 out/t1", "chmod 755 t1"), (*ALWAYS_LEFT_OUT, "t1 closed"))


@dataclass(slots=True)
class Result:
    """A result of one round. `name` and `number` replay it, `words` say what was mutated."""

    name: str
    number: int
    words: list[str]
    hits: int = 0
    jobs: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    kept: Path | None = None

    def line(self) -> str:
        """Return the line of this round."""
        verdict = "FAIL" if self.problems else "ok"
        said = "; ".join(self.words) or "nothing"
        return f"{verdict} {self.name} {self.number} {self.hits}/{self.jobs} {self.seconds:.1f} {said}"


@contextmanager
def caching(base: Path, mark: str, kind: str = "ordinary", *, short: str = "0") -> Iterator[Tree]:
    """Yield a tree whose master uses results again, in a place below `base`.

    `short` is as for `embedded`.
    """
    with (
        place(kind, base / "place", mark) as where,
        embedded(new_tree(where), env={"TERMITE_CACHE": "on"}, short=short) as tree,
    ):
        yield tree


class ProvenProject:
    """A project whose builds are compared. Its tree lasts from round to round."""

    def __init__(self, tree: Tree, project: Project, seed: int, kept: Path, targets: Sequence[str] = ()) -> None:
        """Make the project in the tree. With `targets`, only these are built."""
        self.project = project
        self._seed, self._kept, self._targets = seed, kept, targets
        self._number = 0
        self._env: dict[str, str] = {}
        self._umask = 0o022
        self._made: set[Path] = set()  # by builds
        self._tree = project.make(tree)
        self._pristine = tree.where.base / f"pristine-{project.name}"
        self._twin = tree.where.base / f"twin-{project.name}"
        copy_tree(self._tree.path, self._pristine)

    def run(self) -> Result:
        """Run the next round."""
        self._number += 1
        began = time.monotonic()
        rng = random.Random(f"{self._seed} {self.project.name} {self._number}")
        jobs = rng.choice(JOBS)
        words = [word for word in self._mutate(rng) if word]
        result = Result(self.project.name, self._number, [*words, f"-j{jobs}"])
        remove_tree(self._twin)
        copy_tree(self._tree.path, self._twin)
        before = self._files()
        known = self._tree.status()["jobs"]
        since_ns = time.time_ns()
        ours = self._build(jobs)
        now = self._tree.status()["jobs"]
        command = self._command("", jobs, *TOGETHER[self.project.tool])
        plain = run_at(self._tree, self._twin, command, self.project.within, self._env, self._umask)
        result.hits = now["cached"] - known["cached"]
        result.jobs = sum(now[kind] - known[kind] for kind in ("remote", "cached"))
        self._made |= self._files() - before
        result.problems = [*difference_of_outcomes(ours, plain), *differences(self._tree.path, self._twin, since_ns)]
        if self.project.name != TABLE:
            result.problems += self._next_difference()
        if result.problems:
            self._keep(result, ours, plain)
        result.seconds = time.monotonic() - began
        return result

    # -- steps of a round ----------------------------------------------------------------------------------------------

    def _mutate(self, rng: random.Random) -> Iterator[str]:
        if self._number == 1:
            return
        if self.project.name == TABLE:
            yield from self._mutate_table(rng)
        else:
            if rng.random() < REWIND_SHARE:
                yield self._rewind()
            elif rng.random() < CLEAN_SHARE:
                yield self._clean()
            for _ in range(rng.choice(MUTATION_COUNTS)):
                yield Mutator(self._tree.path, rng).mutate()
            give(self._tree.path, self._tree.where.uid)
        has_changed = rng.random() < ENVIRONMENT_SHARE
        self._env, self._umask = (rng.choice(ENVIRONMENTS), rng.choice(UMASKS)) if has_changed else ({}, 0o022)
        if self._env or self._umask != 0o022:
            yield f"{self._env} umask {self._umask:o}"

    def _mutate_table(self, rng: random.Random) -> Iterator[str]:
        """Make the directories of the table anew, and mutate some of them."""
        remove_tree(self._tree.path / "c0")
        lines = []
        for directory in sorted(path for path in self._pristine.iterdir() if path.is_dir()):
            if self._targets and directory.name not in self._targets:
                continue
            remove_tree(self._tree.path / directory.name)
            copy_tree(directory, self._tree.path / directory.name)
            if rng.random() < MUTATED_SHARE:
                command = COMMANDS[int(directory.name.removeprefix("c"))]
                possible = [name for name in MUTATIONS if name not in LEFT_OUT.get(command, ALWAYS_LEFT_OUT)]
                names = rng.sample(possible, rng.choice((1, 1, 1, 2)))
                yield f"{directory.name}: {', '.join(names)}"
                lines += [f"(cd {directory.name}; {MUTATIONS[name]})" for name in names]
        self._tree.plain("sh", "-c", "\n".join(lines))

    def _rewind(self) -> str:
        """Make the tree what it was before all builds and mutations."""
        for path in self._tree.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()
        copy_tree(self._pristine, self._tree.path)
        self._made.clear()
        return "rewind"

    def _clean(self) -> str:
        for path in sorted(self._made):
            if not path.is_dir() or path.is_symlink():
                path.unlink(missing_ok=True)
        self._made.clear()
        return "clean"

    def _files(self) -> set[Path]:
        return {path for path in self._tree.path.rglob("*") if not path.is_dir() or path.is_symlink()}

    def _command(self, prefix: str, jobs: int, *more: str) -> list[str]:
        tool = self._tree.where.termite(f"{prefix}{self.project.tool}") if prefix else self.project.tool
        return [tool, f"-j{jobs}", *self.project.words, *more, *self._targets]

    def _build(self, jobs: int) -> Outcome:
        return self._tree.where.run(
            self._command("termite-", jobs),
            self._tree.path / self.project.within,
            env=self._env,
            umask=self._umask,
            timeout_s=BUILD_LIMIT_S,
        )

    def _next_difference(self) -> Iterator[str]:
        """Yield a problem if the tool would go on otherwise: then the order of times is wrong."""
        command, within = self._command("", 1, "-n"), self.project.within
        ours = self._tree.where.run(command, self._tree.path / within, env=self._env)
        plain = run_at(self._tree, self._twin, command, within, self._env, 0o022)
        yield from (f"next build: {problem}" for problem in difference_of_outcomes(ours, plain))

    def _keep(self, result: Result, ours: Outcome, plain: Outcome) -> None:
        """Keep both trees, what both builds said, and the records of the jobs; then begin anew."""
        result.kept = self._kept / f"{self.project.name}-{self._number}"
        remove_tree(result.kept)
        result.kept.mkdir(parents=True)
        copy_tree(self._tree.path, result.kept / "cached")
        self._twin.rename(result.kept / "plain")
        for name, outcome in (("cached", ours), ("plain", plain)):
            (result.kept / f"{name}.out").write_bytes(outcome.stdout)
            (result.kept / f"{name}.err").write_bytes(outcome.stderr)
        (result.kept / "jobs.json").write_bytes(self._tree.ctl("jobs", "--json").stdout)
        if self.project.name != TABLE:
            self._rewind()


def jobs_of(tree: Tree, *options: str) -> list[dict[str, Any]]:
    """Return the records of the last build's jobs, or of those that the options name."""
    return [json.loads(line) for line in tree.ctl("jobs", "--json", *options).stdout.splitlines()]
