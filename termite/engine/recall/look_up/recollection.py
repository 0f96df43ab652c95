"""Look for a stored result that the command would produce again in the tree as it is now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import find_intruder, states
from termite.engine.recall.look_up.differences import Difference, DifferenceKind, MissCause
from termite.engine.recall.look_up.fingerprints import strong_fingerprint
from termite.engine.recall.look_up.stored_rows import PathSetRow, ResultRow, StoredRows

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
    """No result can be used.

    `intruders` are files that are there and were absent in former runs. `explain_miss` has more.
    """

    intruders: tuple[Difference, ...] = ()


def recall(
    weak: bytes,
    rows: StoredRows,
    facts: TreeFacts,
    is_vouched_blind: Callable[[ResultRow], bool] = lambda row: False,
) -> Hit | Miss:
    """Return a hit among the stored rows of a command, or a miss.

    `is_vouched_blind` tells of a row whether a table vouches that the times of files do not change
    its result (`KnownTable.is_vouched_blind`). Raise FactsMissing if a fact of the tree is missing.
    """
    by_time = {row.timed: row for row in rows.results if row.timed}
    vouched = {row.blind: row for row in rows.results if row.blind and is_vouched_blind(row)}
    intruders: list[Difference] = []
    for candidate in rows.path_sets[:MOST_PATH_SETS]:
        intruder = find_intruder(candidate.path_set, facts)
        facts.check()
        if intruder is not None:
            intruders.append(Difference(MissCause.SHADOW, b"/" + intruder, kind=DifferenceKind.CAME))
            continue
        hit = _hit(weak, candidate, facts, by_time, vouched)
        if hit is not None:
            return hit
    return Miss(tuple(dict.fromkeys(intruders)))


def _hit(
    weak: bytes,
    candidate: PathSetRow,
    facts: TreeFacts,
    by_time: Mapping[bytes, ResultRow],
    vouched: Mapping[bytes, ResultRow],
) -> Hit | None:
    path_set = candidate.path_set
    if by_time:
        now = states(path_set, facts, with_times=True)
        facts.check()
        row = by_time.get(strong_fingerprint(weak, candidate.id, now, with_times=True))
        if row is not None:
            return Hit(row, True)
    if vouched:
        now = states(path_set, facts, with_times=False)
        facts.check()
        row = vouched.get(strong_fingerprint(weak, candidate.id, now, with_times=False))
        if row is not None:
            return Hit(row, False)
    return None


def fingerprints_now(weak: bytes, candidate: PathSetRow, facts: TreeFacts) -> tuple[bytes, bytes] | None:
    """Return the strong fingerprints of a path set in the present tree, with times and without.

    Return None if a file is there that must be absent. Raise FactsMissing.
    """
    intruder = find_intruder(candidate.path_set, facts)
    facts.check()
    if intruder is not None:
        return None
    with_times, without = (states(candidate.path_set, facts, with_times=has_times) for has_times in (True, False))
    facts.check()
    return (
        strong_fingerprint(weak, candidate.id, with_times, with_times=True),
        strong_fingerprint(weak, candidate.id, without, with_times=False),
    )
