"""Each entry of the table of known tools is executed twice, and its results are compared.

The first execution is a traced job in the product's own sandbox, and the second one is outside, so
that process numbers, users, host and temporary directories differ. Between them, the times of the
inputs, the order of their directory, HOME and LANG change, and seconds pass. The table gets the
real trace.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import TypeVar

import pytest
import trio

from termite.cli.master_command import BUILT_IN_PLUGINS
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.master.remote_runs.traced_jobs import job_trace
from termite.engine.model import TraceMode
from termite.engine.paths import is_below, tree_path
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.known.known_table import CommandFacts, Known, KnownTable, NotKnown, proof_of_table
from termite.engine.recall.logic.dependencies import EndedJob, find_dependencies
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.look_up.fingerprints import CommandIdentity
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.wire.protocol.messages import Ran
from tests.e2e.known_cases import KNOWN, OBJECTS, REFUSED, TEXTS, TIMED, UNSEEN, KnownCase, make_inputs
from tests.e2e.mirror_places import NOBODY, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror

CASES = (*KNOWN, *TIMED, *UNSEEN, *REFUSED)
TABLE = KnownTable(Plugins(BUILT_IN_PLUGINS).known_tools())
FIRST_ENV = {"PATH": "/usr/bin:/bin", "LANG": "C", "HOME": "/nonexistent"}
SECOND_ENV = {"PATH": "/usr/bin:/bin", "LANG": "de_DE.UTF-8", "HOME": "/"}
# By path below the directory of a case: mode, and digest or target.
State = Mapping[bytes, tuple[int, bytes]]

T = TypeVar("T")


@dataclass
class Outcome:
    """The two executions of a case, and what the table says about the first one."""

    proof: Known | NotKnown
    first: tuple[int, bytes, bytes, State]
    second: tuple[int, bytes, bytes, State] = field(default=(0, b"", b"", {}))


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Mapping[str, Outcome]]:
    """Execute all cases that this machine can: first all of them in the sandbox."""
    cases = [case for case in CASES if is_possible(case)]
    with mirror_place() as place:
        objects = place / "objects"
        objects.mkdir()
        for name in ("y.c", "h.h"):
            (objects / name).write_text(TEXTS[name])
        subprocess.run(["sh", "-ec", OBJECTS], cwd=objects, check=True)
        directories = {case.text: place / "project" / str(number) for number, case in enumerate(cases)}
        for directory in directories.values():
            make_inputs(directory, objects, is_second=False)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", str(NOBODY), place / "project"], check=True)
        found = trio.run(execute_in_sandbox, place, {case: directories[case.text] for case in cases})
        for case in cases:
            directory = directories[case.text]
            shutil.rmtree(directory)
            make_inputs(directory, objects, is_second=True)
            found[case.text].second = execute_here(case.argv, directory)
        yield found


def is_possible(case: KnownCase) -> bool:
    return not case.needs or shutil.which(case.needs, path="/usr/bin") is not None


async def execute_in_sandbox(place: Path, directories: Mapping[KnownCase, Path]) -> dict[str, Outcome]:
    master, learnt = FakeMaster(place / "project"), LearntNames()
    judge = Judge(place / "project")
    found = {}
    async with mirror(master, place, Starter(user=NOBODY if os.geteuid() == 0 else None)):
        for case, directory in directories.items():
            chunks: list[bytes] = []
            ran = await master.run(
                *case.argv,
                output=chunks,
                env=tuple(os.fsencode(f"{name}={text}") for name, text in FIRST_ENV.items()),
                cwd=bytes(directory),
                trace=TraceMode.EXACT,
                names_known=len(learnt),
                stdin=False,
            )
            assert ran.trace is not None
            learnt.learn(ran.trace)
            out, err = (b"".join(chunk[1:] for chunk in chunks if chunk[:1] == fd) for fd in (b"1", b"2"))
            proof = await judge.proof(case.argv, directory, ran, learnt, messages=out + err)
            found[case.text] = Outcome(proof, (ran.exit.code, out, err, state_after(directory, ran)))
    judge.tree.close()
    return found


class Judge:
    """The table with the facts of one tree."""

    def __init__(self, root: Path) -> None:
        self.tree = MasterTree(TreeConfig(tree_path(root)))
        self._reader = FactReader(self.tree)

    async def proof(
        self, argv: Sequence[str], directory: Path, ran: Ran, learnt: LearntNames, *, messages: bytes
    ) -> Known | NotKnown:
        """Return what the table says about a job that has ended."""
        assert ran.trace is not None
        words = tuple(map(os.fsencode, argv))
        timing = Timing(ran.started_ns, ran.started_ns, ran.ended_ns, 0, self.tree.number)
        top = tree_path(directory.parent)
        job = EndedJob(words, bytes(directory), job_trace(ran.trace, learnt), ran.changes, timing, top)
        dependencies = await self._answer(lambda facts: find_dependencies(job, facts))
        env = tuple(os.fsencode(f"{name}={text}") for name, text in FIRST_ENV.items())
        identity = CommandIdentity(words, words[0], True, bytes(directory), env, 0o22, top)
        command = CommandFacts(identity, dependencies, messages)
        return await self._answer(lambda facts: proof_of_table(TABLE, command, facts))

    async def _answer(self, question: Callable[[TreeFacts], T]) -> T:
        while True:
            try:
                return question(self._reader.facts())
            except FactsMissing as missing:
                await self._reader.supply(missing)


def execute_here(argv: Sequence[str], directory: Path) -> tuple[int, bytes, bytes, State]:
    done = subprocess.run(
        argv, cwd=directory, env=SECOND_ENV, stdin=subprocess.DEVNULL, capture_output=True, check=False, umask=0o022
    )
    return done.returncode, done.stdout, done.stderr, state_of(directory)


def state_of(directory: Path) -> dict[bytes, tuple[int, bytes]]:
    """Return the mode and the content of everything below a directory."""
    found = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        content = b""
        if S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        elif S_ISREG(status.st_mode):
            content = sha256(path.read_bytes()).digest()
        found[os.fsencode(path.relative_to(directory))] = (status.st_mode, content)
    return found


def state_after(directory: Path, ran: Ran) -> State:
    """Return the state that the changes of a job lead to."""
    state, top = state_of(directory), tree_path(directory)
    for change in ran.changes:
        name = change.path[len(top) + 1 :]
        if not is_below(change.path, top):
            continue
        if change.attr is None:
            state = {path: entry for path, entry in state.items() if path != name and not is_below(path, name)}
            continue
        old = state.get(name, (0, b""))[1]
        digest = change.attr.digest.sha256 if change.attr.digest else change.attr.target
        state[name] = (change.attr.mode, digest if change.content else old)
    return state


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.text)
def test_a_known_command_does_the_same_again(outcomes: Mapping[str, Outcome], case: KnownCase) -> None:
    if case.text not in outcomes:
        pytest.skip(f"{case.needs} is not installed")
    outcome = outcomes[case.text]
    assert isinstance(outcome.proof, Known), outcome.proof
    assert outcome.proof.is_blind is ("cp -p" not in case.text)
    assert outcome.first[0] == 0, outcome.first
    assert outcome.first == outcome.second


@pytest.mark.parametrize("case", TIMED, ids=lambda case: case.text)
def test_a_known_command_that_depends_on_times_is_not_blind(outcomes: Mapping[str, Outcome], case: KnownCase) -> None:
    outcome = outcomes[case.text]
    assert isinstance(outcome.proof, Known), outcome.proof
    assert not outcome.proof.is_blind
    assert outcome.first[0] == outcome.second[0] == 0, outcome
    assert outcome.first != outcome.second


@pytest.mark.parametrize("case", UNSEEN, ids=lambda case: case.text)
def test_times_do_not_matter_to_a_command_whose_failures_nobody_would_see(
    outcomes: Mapping[str, Outcome], case: KnownCase
) -> None:
    outcome = outcomes[case.text]
    assert isinstance(outcome.proof, NotKnown)
    assert outcome.proof.blind
    assert outcome.first[0] == 0, outcome.first
    assert outcome.first == outcome.second


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.text)
def test_what_a_guard_refuses_differs(outcomes: Mapping[str, Outcome], case: KnownCase) -> None:
    if case.text not in outcomes:
        pytest.skip(f"{case.needs} is not installed")
    outcome = outcomes[case.text]
    assert isinstance(outcome.proof, NotKnown)
    assert not outcome.proof.blind
    assert outcome.first[0] == outcome.second[0] == 0, outcome
    assert outcome.first != outcome.second


def test_each_entry_was_executed(outcomes: Mapping[str, Outcome]) -> None:
    proofs = [outcome.proof for outcome in outcomes.values()]
    used = {entry.partition(" ")[0] for proof in proofs if isinstance(proof, Known) for entry in proof.entries}
    needed = {"gold": "ld.gold", "lld": "ld.lld", "m4": "bison"}  # m4 is known below bison and flex only
    missing = {name for name in TABLE.tools.keys() - used if shutil.which(needed.get(name, name), path="/usr/bin")}
    assert missing == set()
