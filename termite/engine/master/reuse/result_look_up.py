"""Look for a stored result that may be used in the tree as it is now, and say why there is none."""

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from termite.engine.history.logic.job_record import MissDetail
from termite.engine.history.logic.recorded_text import recorded_text
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.known.known_table import KnownTable
from termite.engine.recall.logic.dependencies import NotStorable, Obstacle
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.look_up.differences import Difference, MissCause, explain_miss
from termite.engine.recall.look_up.evidence import is_of_day, judge_proof, proof_key
from termite.engine.recall.look_up.fingerprints import CommandIdentity, recall_name
from termite.engine.recall.look_up.recollection import Hit, Miss, recall
from termite.engine.recall.look_up.stored_rows import ResultRow
from termite.engine.recall.result_store import ResultStore
from termite.engine.tree.master_tree import MasterTree

MOST_ROUNDS = 50  # in which facts of the tree are got; each one may lead to further files

T = TypeVar("T")


class ResultSource(NamedTuple):
    """The stored results, and the table of the tools whose results need no second execution."""

    store: ResultStore
    table: KnownTable


async def look_up(
    source: ResultSource, identity: CommandIdentity, weak: bytes, tree: MasterTree, reader: FactReader
) -> ResultRow | Difference:
    """Return a result that the command would produce again, or the reason of the miss.

    Nothing has waited since the last drain of the tree if a result is returned. Raise an error of
    the tree if a fact cannot be had, and NotStorable.
    """
    store, table = source
    rows = store.rows(weak)
    shapes = {shape: store.shape(shape) for shape in {row.shape for row in rows.results}}

    def is_vouched_blind(row: ResultRow) -> bool:
        return table.is_vouched_blind(row, shapes[row.shape])

    found: Hit | Miss = Miss()
    if rows.results:
        found = await ask_tree(tree, reader, lambda facts: recall(weak, rows, facts, is_vouched_blind))
    if isinstance(found, Hit):
        row, shape = found.row, shapes[found.row.shape]
        is_known, is_of_today = table.still_vouches(row), is_of_day(row.result, time.time())
        proof = judge_proof(shape, proof_key(shape, row), is_known=is_known, is_of_today=is_of_today)
        if not proof.is_enough:
            return Difference(MissCause.SHAPE, new=proof.encode())
        if store.has_files(row):
            return row
        return Difference(MissCause.EVICTED)
    last, path_set = store.last(recall_name(identity)) or (None, None)
    if last is None:
        return Difference(MissCause.NEVER)
    return await ask_tree(tree, reader, lambda facts: explain_miss(identity, last, path_set, facts))


def miss_detail(found: Difference, hidden: Sequence[str]) -> MissDetail:
    """Return a difference as a record has it.

    `hidden` are the values of variables that no record may have, as `mask_text` wants them.
    """
    texts = (recorded_text(os.fsdecode(part), hidden) for part in (found.name, found.old, found.new))
    return MissDetail(found.kind.value, *texts)


async def ask_tree(tree: MasterTree, reader: FactReader, question: Callable[[TreeFacts], T]) -> T:
    """Answer a question about the tree as it is now, and get the facts that the answer needs."""
    for _ in range(MOST_ROUNDS):
        tree.drain()
        try:
            return question(reader.facts())
        except FactsMissing as missing:
            await reader.supply(missing)
    raise NotStorable(Obstacle.FACTS)
