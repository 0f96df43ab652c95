"""Observe a traced run: what it has used, and which of its inputs changed while it ran.

The AttrTree has the state before the run only until its results are published, so this comes first.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from termite.engine.errors import Retryable, TermiteError
from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.master.remote_runs.traced_jobs import job_trace
from termite.engine.model import Change
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.known.known_table import Known, NotKnown
from termite.engine.recall.logic.changed_inputs import ChangedInput, InputChanges
from termite.engine.recall.logic.concurrent_changes import ConcurrentChanges
from termite.engine.recall.logic.dependencies import (
    DependencySet,
    EndedJob,
    NotStorable,
    Obstacle,
    find_dependencies,
)
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.logic.uses import PathSet
from termite.engine.recall.look_up.canonical_changes import canonical_changes
from termite.engine.recall.look_up.observation import Observation, make_observation
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree
from termite.engine.wire.protocol.messages import Ran, Run

MOST_PATHS = 20_000  # of one run: each costs the event loop 3 us
MOST_ROUNDS = 50  # in which facts of the tree are got; each one may lead to further files

log = logging.getLogger(__name__)

# Raises FactsMissing.
AskTable = Callable[[DependencySet, TreeFacts], Known | NotKnown]


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """All that is known of a run that has ended and is not published.

    `dependencies` is what it has used, or None if nobody knows. `changed` is an input whose
    content, existence or listing changed while it ran, b"" if there is none: another run may end
    otherwise. New times and modes are no such change. `tools` has the SHA-256 of the programs that
    it executed, by path, and `changes` are those of its result, in canonical form. `known` is the
    answer of the table of known tools, or None if nobody has asked it.

    `observation` is None if the result cannot be stored. Then `obstacle` says why, and `detail`
    names what is to blame, as a path with its slash.
    """

    dependencies: DependencySet | None = None
    changed: bytes = b""
    tools: Mapping[bytes, bytes] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    observation: Observation | None = None
    known: Known | NotKnown | None = None
    obstacle: Obstacle | None = None
    detail: bytes = b""


class RunObserver:
    """The observer of one traced run in the tree whose top is `root`.

    Make it right after the dispatch, before anything waits. The job must keep its number until
    `observe` has returned, so that the journal keeps the changes.
    """

    __slots__ = ("_message", "_names_before", "_reader", "_root", "_tree")

    def __init__(self, tree: MasterTree, reader: FactReader, message: Run, root: bytes) -> None:
        self._tree, self._reader, self._message, self._root = tree, reader, message, root
        self._names_before = tree.attrs.name_changes

    async def observe(
        self, ran: Ran, names: LearntNames, timing: Timing, weak: bytes = b"", ask_table: AskTable | None = None
    ) -> ObservedRun:
        """Return what the run has used. `names` are those of its lease.

        `weak` is the weak fingerprint of the command. If it is b"", there is no observation, and no
        obstacle but those of the trace. `ask_table` asks the table of known tools.

        This blocks while facts of the tree are got, and never raises an error.
        """
        try:
            job = self._ended_job(ran, names, timing)
            for _ in range(MOST_ROUNDS):
                try:
                    return self._look(job, weak, ask_table)
                except FactsMissing as missing:
                    await self._supply(missing, ran)
        except NotStorable as error:
            return ObservedRun(obstacle=error.obstacle, detail=error.detail)
        except TermiteError as error:  # around the tree: the run is then unobserved
            return ObservedRun(obstacle=Obstacle.FACTS, detail=str(error).encode(errors="replace"))
        except Exception:  # around the observation of one run, which has ended: its results are as they are
            log.exception("result-cache-failed step=%s", "observe")
        return ObservedRun(obstacle=Obstacle.FACTS)

    def sees_changes(self) -> bool:
        """Return whether anything has changed since the dispatch, or may have."""
        try:
            return self._tree.drain() != self._message.number
        except Retryable:  # nobody knows what is at one of the places
            return True

    def changed_inputs(self, path_set: PathSet) -> tuple[ChangedInput, ...]:
        """Return the inputs that the run would find otherwise now, right after `observe`."""
        tree = self._tree
        return InputChanges(tree.changesets_since(self._message.number), self._has_other_names).find(path_set)

    def _has_other_names(self, directory: bytes) -> bool:
        return self._tree.attrs.names_changed_since(directory, self._names_before)

    def _ended_job(self, ran: Ran, names: LearntNames, timing: Timing) -> EndedJob:
        """Return the run as `recall` knows it. Raise NotStorable if its trace is of no use."""
        if ran.trace is None:
            raise NotStorable(Obstacle.GAP, b"untraced")
        if ran.trace.count > MOST_PATHS:
            raise NotStorable(Obstacle.GAP, b"paths")
        message = self._message
        trace = job_trace(ran.trace, names)
        return EndedJob(message.argv, message.cwd, trace, ran.changes, timing, self._root)

    def _look(self, job: EndedJob, weak: bytes, ask_table: AskTable | None) -> ObservedRun:
        """Look at the tree as it is now. Raise FactsMissing, NotStorable and Retryable."""
        tree = self._tree
        tree.drain()
        meanwhile = ConcurrentChanges(tree.changesets_since(self._message.number), self._has_other_names)
        facts = self._reader.facts()
        found = find_dependencies(job, facts)
        changed = meanwhile.changed_content(found.path_set) or b""
        if not weak:
            return ObservedRun(found, changed)
        try:
            observation = make_observation(found, weak, facts, meanwhile)
        except NotStorable as error:
            return ObservedRun(found, changed, obstacle=error.obstacle, detail=error.detail)
        changes = canonical_changes(job.changes, found.path_set, facts)
        tools = _tools_of(job, found, facts)
        known = ask_table(found, facts) if ask_table is not None else None
        return ObservedRun(found, changed, tools, changes, observation, known)

    async def _supply(self, missing: FactsMissing, ran: Ran) -> None:
        """Get facts from the tree, or from the result if the run has made the program."""
        for path, sha256 in list(missing.heads):
            if (content := ran.inline.get(sha256)) is not None:
                self._reader.learn(sha256, content)
                missing.heads.discard((path, sha256))
        await self._reader.supply(missing)


def _tools_of(job: EndedJob, found: DependencySet, facts: TreeFacts) -> dict[bytes, bytes]:
    """Return the digests of the executed programs. Raise FactsMissing."""
    made = {change.path: change.attr for change in job.changes}
    tools = {}
    for path in found.tools:
        attr = made[path] if path in made else facts.find(path)
        if attr is not None:
            tools[path] = facts.sha256(path, attr)
    facts.check()
    return tools
