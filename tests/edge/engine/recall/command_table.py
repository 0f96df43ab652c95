"""Predict, for each command and each mutation of its tree, whether its result may be used again.

usage: python -m tests.edge.engine.recall.command_table [COMMAND_PART [MUTATION_PART]]
       python -m tests.edge.engine.recall.command_table --random ROUNDS SEED

Each command is run once. Its trace was recorded earlier (`table_traces.json`: paths in the tree,
which is `@`, and programs). Then the tree is mutated in many ways. Each time the prediction is made
from the AttrTree alone, and the command is really run: a hit is wrong if anything but the times
differs. A round of `--random` applies two or three of the mutations at once, to each command.
"""

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from termite.engine.model import Attr, Change, Digest
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.logic.dependencies import DependencySet, EndedJob, find_dependencies
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.logic.uses import State, states
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.recall.table_commands import COMMANDS, MUTATIONS, SETUP, TIMED, argv_of

TRACES = Path(__file__).with_name("table_traces.json")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

T = TypeVar("T")
Look = tuple[object, ...]
Snapshot = dict[bytes, Look]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of a command: its exit code and output, and the tree before and after it.

    `rewritten` are the files that have another time.
    """

    told: tuple[int, bytes, bytes]
    before: Snapshot
    after: Snapshot
    rewritten: tuple[bytes, ...] = ()

    @property
    def result(self) -> Snapshot:
        """The paths that the run changed, with their new states."""
        paths = self.before.keys() | self.after.keys()
        return {path: self.after.get(path, ()) for path in paths if self.before.get(path) != self.after.get(path)}


@dataclass
class Row:
    """The predictions of one command, by the name of the mutation."""

    command: str
    right_hits: list[str] = field(default_factory=list)
    right_misses: list[str] = field(default_factory=list)
    lost_hits: list[str] = field(default_factory=list)
    wrong_hits: list[str] = field(default_factory=list)


class Table:
    """A tree in which commands run, and the AttrTree that follows it."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.top = self.root / "tree"
        self._pristine = base / "pristine"
        self.root.mkdir(parents=True)
        self._pristine.mkdir()
        shell(SETUP, self._pristine)
        self.tree = MasterTree(TreeConfig(bytes(self.root).strip(b"/")))
        self.reader = FactReader(self.tree)
        self._traces = json.loads(TRACES.read_text())

    def close(self) -> None:
        """Stop to follow the tree."""
        self.tree.close()

    def make(self, mutation: str = "true") -> None:
        """Make the tree anew, and mutate it."""
        if self.top.exists():
            subprocess.run(["chmod", "-R", "u+rwx", self.top], check=True)
            shutil.rmtree(self.top)
        subprocess.run(["cp", "-a", self._pristine, self.top], check=True)
        shell(mutation, self.top)
        self.tree.drain()

    def accesses(self, command: str) -> tuple[PathAccess, ...]:
        """Return the recorded accesses of a command, for this tree."""
        top = os.fsencode(self.top)
        return tuple(
            PathAccess(os.fsencode(path).replace(b"@", top, 1), AccessKind(first), AccessKind(kinds))
            for path, first, kinds in self._traces[command]
        )

    def run(self, command: str) -> Ended:
        """Run a command in the tree as it is."""
        before, times = snapshot(self.top), times_of_files(self.top)
        done = subprocess.run(
            argv_of(command), cwd=self.top, capture_output=True, stdin=subprocess.DEVNULL, env=ENVIRONMENT, check=False
        )
        rewritten = tuple(path for path, time in times_of_files(self.top).items() if times.get(path, time) != time)
        return Ended((done.returncode, done.stdout, done.stderr), before, snapshot(self.top), rewritten)

    def answer(self, question: Callable[[TreeFacts], T]) -> T:
        """Ask until no fact is missing."""
        while True:
            facts = self.reader.facts()
            try:
                answer = question(facts)
                facts.check()
                return answer
            except FactsMissing as missing:
                trio.run(self.reader.supply, missing)

    def dependencies(self, command: str) -> tuple[Ended, DependencySet]:
        """Run a command in a new tree, and return what it depends on.

        The tree is new afterwards, too.
        """
        self.make()
        started_ns = time.time_ns()
        ended = self.run(command)
        timing = Timing(started_ns, started_ns, time.time_ns(), 0, self.tree.number)
        changes = tuple(self._changes(ended))
        self.make()
        argv = tuple(map(os.fsencode, argv_of(command)))
        job = EndedJob(
            argv, bytes(self.top), JobTrace(self.accesses(command)), changes, timing, bytes(self.root).strip(b"/")
        )
        return ended, self.answer(lambda facts: find_dependencies(job, facts))

    def _changes(self, ended: Ended) -> Iterator[Change]:
        for name in {*ended.result, *ended.rewritten}:
            path = self.top / os.fsdecode(name)
            try:
                found = path.lstat()
            except OSError:
                yield Change(bytes(path).strip(b"/"), None)
                continue
            digest, target = None, b""
            if stat.S_ISLNK(found.st_mode):
                target = os.readlink(bytes(path))
            elif stat.S_ISREG(found.st_mode):
                content = path.read_bytes()
                digest = Digest(hashlib.sha256(content).digest(), len(content))
                self.reader.learn(digest.sha256, content)
            attr = Attr(found.st_mode, found.st_size, found.st_mtime_ns, digest, target, found.st_nlink)
            yield Change(bytes(path).strip(b"/"), attr)

    def predict(self, command: str, mutations: dict[str, str]) -> Row:
        """Predict and run the command after each of the mutations."""
        row = Row(command)
        first, found = self.dependencies(command)
        with_times = found.has_set_times or any(word in command for word in TIMED)

        def ask(facts: TreeFacts) -> list[State]:
            return states(found.path_set, facts, with_times=with_times)

        expected = self.answer(ask)
        for name, mutation in mutations.items():
            self.make(mutation)
            is_hit = self._answer_or_nothing(ask) == expected
            then = self.run(command)
            with_result = {path: look for path, look in {**then.before, **first.result}.items() if look}
            is_same = then.told == first.told and without_removed(with_result, first.result) == then.after
            hits = row.wrong_hits if not is_same else row.right_hits
            (hits if is_hit else row.lost_hits if is_same else row.right_misses).append(name)
        return row

    def _answer_or_nothing(self, question: Callable[[TreeFacts], T]) -> T | None:
        """Return None if a fact cannot be had, such as the content of an unreadable file."""
        try:
            return self.answer(question)
        except Exception as error:  # around one prediction, which is a miss then
            assert type(error).__name__ in ("FsError", "Retryable", "Stale"), error
            return None


def without_removed(snapshot: Snapshot, result: Snapshot) -> Snapshot:
    """Return the snapshot without what was below a directory that the result removes."""
    gone = tuple(path + b"/" for path, look in result.items() if not look)
    return {path: look for path, look in snapshot.items() if not path.startswith(gone)} if gone else snapshot


def snapshot(top: Path) -> Snapshot:
    """Return everything in the tree but the times and the modes of unchanged directories."""
    found: Snapshot = {}
    for directory, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, os.fsencode(top))] = look(path)
    return found


def times_of_files(top: Path) -> dict[bytes, int]:
    """Return the times of all regular files in the tree, of which a worker reports each new one."""
    found = {}
    for directory, _, files in os.walk(os.fsencode(top)):
        for path in (os.path.join(directory, name) for name in files):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                found[os.path.relpath(path, os.fsencode(top))] = status.st_mtime_ns
    return found


def look(path: bytes) -> Look:
    """Return what an entry is: its kind, its mode, and its content."""
    try:
        status = os.lstat(path)
    except PermissionError:
        return ("closed",)
    if stat.S_ISLNK(status.st_mode):
        return "link", os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return (stat.S_IFMT(status.st_mode), status.st_mode & 0o7777)
    if not os.access(path, os.R_OK):
        return "file", status.st_mode & 0o7777, status.st_size, status.st_mtime_ns
    return "file", status.st_mode & 0o7777, Path(os.fsdecode(path)).read_bytes()


def shell(script: str, cwd: Path) -> None:
    """Run a script."""
    subprocess.run(["sh", "-ec", script], cwd=cwd, check=True, env=ENVIRONMENT)


def random_mutations(rounds: int, rng: random.Random) -> dict[str, str]:
    """Return so many mutations, each of which is two or three others.

    One that cannot be made is left out.
    """
    found = {}
    for _ in range(rounds):
        names = rng.sample(sorted(MUTATIONS), rng.choice((2, 2, 3)))
        found[" + ".join(names)] = "\n".join(f"( {MUTATIONS[name]} ) 2>/dev/null || true" for name in names)
    return found


def main() -> int:
    """Run the whole table, or the part whose commands and mutations contain these texts."""
    part, mutation_part = (*sys.argv[1:], "", "")[:2]
    mutations = {name: text for name, text in MUTATIONS.items() if mutation_part in name}
    rng = None
    if part == "--random":
        part, rng = "", random.Random(int(sys.argv[3]))
    rows = []
    with tempfile.TemporaryDirectory(prefix="termite-table-", dir="/var/tmp") as base:
        table = Table(Path(base))
        for command in (command for command in COMMANDS if part in command):
            if rng is not None:
                mutations = random_mutations(int(sys.argv[2]), rng)
            rows.append(row := table.predict(command, mutations))
            print(f"{command[:70]:70} hits {len(row.right_hits)}, misses {len(row.right_misses)}", flush=True)
            lists = [("WRONG HITS", row.wrong_hits)]
            if rng is None:
                lists += [("misses", row.right_misses), ("lost hits", row.lost_hits)]
            for text, names in lists:
                if names:
                    print(f"    {text}: {', '.join(names)}", flush=True)
        table.make()
        table.close()
    hits, misses, lost, wrong = (
        sum(map(len, lists))
        for lists in zip(*((r.right_hits, r.right_misses, r.lost_hits, r.wrong_hits) for r in rows), strict=True)
    )
    print(f"{hits + misses + lost + wrong} predictions: {hits} right hits, {misses} right misses, {lost} hits lost,")
    print(f"{wrong} WRONG HITS")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
