"""Make of a job that has ended all that is stored about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from termite.engine.recall.logic.concurrent_changes import ConcurrentChanges
from termite.engine.recall.logic.dependencies import (
    DependencySet,
    EndedJob,
    NotStorable,
    Obstacle,
    find_dependencies,
)
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import State, pack_path_set, states
from termite.engine.recall.look_up.fingerprints import strong_fingerprint
from termite.engine.recall.look_up.stored_rows import PathSetRow


@dataclass(frozen=True, slots=True)
class Observation:
    """The dependencies of a job, and the fingerprints of its result.

    `states` are those before the job, with times. `timed` is b"" if the times before the job are
    not known. `blind` is b"" if the result has times that the command has set.
    """

    dependencies: DependencySet
    row: PathSetRow
    states: Sequence[State]
    timed: bytes
    blind: bytes


def observe(job: EndedJob, weak: bytes, facts: TreeFacts, meanwhile: ConcurrentChanges) -> Observation:
    """Return what is stored about a job that is not published yet.

    Raise FactsMissing if a fact of the tree is missing. Raise NotStorable if the trace cannot tell
    what the job used, or if an input changed while it ran.
    """
    return make_observation(find_dependencies(job, facts), weak, facts, meanwhile)


def make_observation(found: DependencySet, weak: bytes, facts: TreeFacts, meanwhile: ConcurrentChanges) -> Observation:
    """Return what is stored about a job with these dependencies, and raise as `observe` does."""
    if (changed := meanwhile.changed_input(found.path_set)) is not None:
        raise NotStorable(Obstacle.CHANGED, b"/" + changed)
    with_times = states(found.path_set, facts, with_times=True)
    without = states(found.path_set, facts, with_times=False)
    facts.check()
    identity, _ = pack_path_set(found.path_set)
    has_times = not meanwhile.has_later_directory(found.path_set)
    timed = strong_fingerprint(weak, identity, with_times, with_times=True) if has_times else b""
    blind = strong_fingerprint(weak, identity, without, with_times=False) if not found.has_set_times else b""
    if not timed and not blind:
        raise NotStorable(Obstacle.CHANGED)
    row = PathSetRow(identity, found.path_set)
    return Observation(found, row, with_times, timed, blind)
