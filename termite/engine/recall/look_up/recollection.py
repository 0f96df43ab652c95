"""Look for a stored result that the command would produce again in the tree as it is now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import PathSet, State, find_intruder, states
from termite.engine.recall.look_up.differences import (
    RULE_OBSTACLES,
    Difference,
    MissCause,
    difference_of_command,
    difference_of_states,
)
from termite.engine.recall.look_up.fingerprints import CommandIdentity, strong_fingerprint
from termite.engine.recall.look_up.stored_rows import (
    LastRun,
    PathSetRow,
    ResultRow,
    StoredRows,
    digests_of_texts,
)

MOST_PATH_SETS = 20  # that are tried; a command with more of them has random names among its inputs


@dataclass(frozen=True, slots=True)
class Hit:
    """A result that the command would produce again.

    `by_times`: the times that the job asked for are the same, too.
    """

    row: ResultRow
    by_times: bool


@dataclass(frozen=True, slots=True)
class Miss:
    """No result can be used. `reasons` has the differences, the most telling first."""

    reasons: tuple[Difference, ...]


def recall(weak: bytes, identity: CommandIdentity, rows: StoredRows, facts: TreeFacts, *, is_blind: bool) -> Hit | Miss:
    """Return a hit among the stored rows of a command, or the reasons of a miss.

    `is_blind`: the times that such a command asks for do not change its results. Raise FactsMissing
    if a fact of the tree is missing.
    """
    by_time = {row.timed: row for row in rows.results if row.timed}
    by_state = {row.blind: row for row in rows.results if row.blind} if is_blind else {}
    reasons: list[Difference] = []
    for candidate in rows.path_sets[:MOST_PATH_SETS]:
        intruder = find_intruder(candidate.path_set, facts)
        facts.check()
        if intruder is not None:
            reasons.append(Difference(MissCause.SHADOW, b"/" + intruder, b"absent", b"there"))
            continue
        hit = _hit(weak, candidate, facts, by_time, by_state)
        if hit is not None:
            return hit
    first = _explain(identity, rows, facts)
    return Miss(tuple(dict.fromkeys([first, *reasons])))


def _hit(
    weak: bytes,
    candidate: PathSetRow,
    facts: TreeFacts,
    by_time: Mapping[bytes, ResultRow],
    by_state: Mapping[bytes, ResultRow],
) -> Hit | None:
    for with_times, rows in ((True, by_time), (False, by_state)):
        if not rows:
            continue
        now = states(candidate.path_set, facts, with_times=with_times)
        facts.check()
        row = rows.get(strong_fingerprint(weak, candidate.id, now, with_times=with_times))
        if row is not None:
            return Hit(row, with_times)
    return None


def _explain(identity: CommandIdentity, rows: StoredRows, facts: TreeFacts) -> Difference:
    """Return the first difference to the last run of the same job."""
    last = rows.last
    if last is None:
        return Difference(MissCause.NEVER)
    if found := difference_of_command(last, identity):
        return found
    if last.path_set is not None and last.states:
        now = states(last.path_set, facts, with_times=True)
        facts.check()
        then = unpack_states(last.states)
        if len(then) == len(now) and (found := difference_of_states(last.path_set.dependencies, then, now)):
            return found
    if last.obstacle:
        cause = MissCause.RULE if last.obstacle in RULE_OBSTACLES else MissCause.GAP
        return Difference(cause, last.detail, last.obstacle.encode())
    return Difference(MissCause.EVICTED)


def pack_states(found: Iterable[State]) -> bytes:
    """Return the states in the form in which a LastRun has them."""
    return msgspec.msgpack.encode(tuple(found))


def unpack_states(packed: bytes) -> list[State]:
    """Return packed states. Values that were packed by another version are no states: []."""
    try:
        return [tuple(map(_frozen, state)) for state in msgspec.msgpack.decode(packed, type=list[list[object]])]
    except msgspec.MsgspecError:
        return []


def last_run(
    identity: CommandIdentity,
    path_set: PathSet | None,
    found: Iterable[State],
    *,
    obstacle: str = "",
    detail: bytes = b"",
    job: str = "",
) -> LastRun:
    """Return what explains the next miss of the job of this name."""
    return LastRun(
        argv=identity.argv,
        variables=digests_of_texts(identity.variables),
        others={name: msgspec.msgpack.encode(value) for name, value in identity.others.items()},
        path_set=path_set,
        states=pack_states(found) if path_set is not None else b"",
        obstacle=obstacle,
        detail=detail,
        job=job,
    )


def _frozen(part: object) -> object:
    return tuple(map(_frozen, part)) if isinstance(part, list) else part
