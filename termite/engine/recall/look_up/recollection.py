"""Look for a stored result that the command would produce again in the tree as it is now."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import find_intruder, states
from termite.engine.recall.look_up.differences import Difference, MissCause
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
    blind_shapes: Collection[bytes] = (),
    is_vouched_blind: Callable[[ResultRow], bool] = lambda row: False,
) -> Hit | Miss:
    """Return a hit among the stored rows of a command, or a miss.

    `blind_shapes` are those of the rows' shapes whose results do not change with the times of
    files. `is_vouched_blind` tells of a row whether a table vouches for that
    (`KnownTable.is_vouched_blind`). Raise FactsMissing if a fact of the tree is missing.
    """
    by_time = {row.timed: row for row in rows.results if row.timed}
    by_state = {
        row.blind: row for row in rows.results if row.blind and (row.shape in blind_shapes or is_vouched_blind(row))
    }
    intruders: list[Difference] = []
    for candidate in rows.path_sets[:MOST_PATH_SETS]:
        intruder = find_intruder(candidate.path_set, facts)
        facts.check()
        if intruder is not None:
            intruders.append(Difference(MissCause.SHADOW, b"/" + intruder, b"absent", b"there"))
            continue
        hit = _hit(weak, candidate, facts, by_time, by_state)
        if hit is not None:
            return hit
    return Miss(tuple(dict.fromkeys(intruders)))


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
