"""Store what a run that has ended left, and what it proves about runs like it.

Everything here blocks as far as the store does, and belongs into a thread.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from termite.engine.model import MachineFacts
from termite.engine.recall.known.known_table import Known, NotKnown
from termite.engine.recall.logic.dependencies import Obstacle
from termite.engine.recall.look_up.differences import last_run
from termite.engine.recall.look_up.evidence import (
    NEW_SHAPE,
    Shape,
    difference_of_results,
    execution_of,
    merged_shape,
    proof_key,
    shape_id,
    with_other_times,
    with_second_run,
)
from termite.engine.recall.look_up.fingerprints import CommandIdentity, recall_name
from termite.engine.recall.look_up.observation import Observation
from termite.engine.recall.look_up.stored_rows import PathSetRow, RecordedResult, ResultRow
from termite.engine.recall.result_store import ResultStore


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run whose results are in the user's tree.

    `tools` has the SHA-256 of the programs that it executed, by path. `contents` has the bytes of
    each content of the result by SHA-256, or a file that has it. If nothing is to be stored,
    `obstacle` says why, and `detail` what is to blame. `known` is the answer of the table of known
    tools, or None if it was not asked. `shared_from` is the machine on which the command ran if
    others may get the result, or None if it must stay here.
    """

    identity: CommandIdentity
    weak: bytes
    observation: Observation | None
    tools: Mapping[bytes, bytes]
    result: RecordedResult
    contents: Mapping[bytes, bytes | Path]
    obstacle: str = ""
    detail: bytes = b""
    known: Known | NotKnown | None = None
    shared_from: MachineFacts | None = None


class StoreEffect(enum.StrEnum):
    """The effect of an ended run on the store."""

    STORED = "stored"
    PROVED = "proved"  # an equal result was there
    REFUSED = "refused"  # an earlier result differed: none of this shape is used any more
    UNFIT = "unfit"  # its shape was refused before
    NOT_STORED = "not-stored"


@dataclass(frozen=True, slots=True)
class Kept:
    """The fate of an ended run. `difference` is the first one to an earlier result, or "".

    `row` is the result that is now in the store, or that was refused. None: there is none.
    """

    effect: StoreEffect
    difference: str = ""
    row: ResultRow | None = None


@dataclass(frozen=True, slots=True)
class FoundResult:
    """A result for the store, with the path set and the contents by which it is found and used.

    Contents that are in the store already may be missing. `evidence` is what others have told of
    its shape.
    """

    weak: bytes
    path_set: PathSetRow
    row: ResultRow
    contents: Mapping[bytes, bytes | Path]
    evidence: Shape = NEW_SHAPE


def keep_run(store: ResultStore, run: EndedRun, now_s: int) -> Kept:
    """Store the result of a run, compare it with an earlier one, and note the last run."""
    kept = _keep_result(store, run, now_s) if not run.obstacle else Kept(StoreEffect.NOT_STORED)
    obstacle, detail = run.obstacle, run.detail
    if kept.effect in (StoreEffect.REFUSED, StoreEffect.UNFIT):
        obstacle, detail = Obstacle.SHAPE, kept.difference.encode(errors="backslashreplace")
    last = last_run(run.identity, run.weak, run.observation, obstacle=obstacle, detail=detail, job=run.result.job)
    store.note_last(recall_name(run.identity), last, now_s)
    return kept


def _keep_result(store: ResultStore, run: EndedRun, now_s: int) -> Kept:
    seen = run.observation
    assert seen is not None, "without an observation there is an obstacle"
    # A known tool for which nobody vouches this time, as a compiler with __TIME__ in a source, must
    # not spoil the shape of all others.
    is_special = isinstance(run.known, NotKnown) and run.known.is_tool_known
    shape = shape_id(run.identity.argv, run.tools, root=run.identity.root, is_whole=is_special)
    entries, is_blind = (run.known.entries, run.known.is_blind) if isinstance(run.known, Known) else ((), False)
    blind_by = run.known.blind if isinstance(run.known, NotKnown) else ()
    row = ResultRow(seen.timed, seen.blind, seen.row.id, run.result, shape, entries, is_blind, blind_by)
    return keep_result(store, FoundResult(run.weak, seen.row, row, run.contents), now_s)


def keep_result(store: ResultStore, found: FoundResult, now_s: int) -> Kept:
    """Store a result, and compare it with an earlier one of the same command.

    A result of another user is a run like any other.
    """
    row = found.row
    known = store.shape(row.shape)
    if known.refused:
        return Kept(StoreEffect.UNFIT, known.refused)
    told = merged_shape(known, found.evidence)
    first, judged, difference = _compare(store, told, store.rows(found.weak).results, row)
    if judged != known:
        store.note_shape(row.shape, judged, now_s)
    if judged.refused:
        return Kept(StoreEffect.REFUSED, difference, row)
    is_better = first is not None and (bool(row.known) > bool(first.known) or bool(row.blind_by) > bool(first.blind_by))
    is_there = first is not None and not difference and first.timed == row.timed and not is_better
    if first is not None and is_there and store.has_contents(first):
        # The first one stays, so that later runs are compared with it however soon they follow.
        store.note_use(found.weak, first, now_s)
        return Kept(StoreEffect.PROVED, row=first)
    is_stored = store.add(found.weak, found.path_set, row, found.contents, now_s)
    return Kept(StoreEffect.STORED if is_stored else StoreEffect.NOT_STORED, difference, row)


def keep_shared(store: ResultStore, found: FoundResult, now_s: int) -> Kept:
    """Store a result of another user, whose contents are in the store already."""
    result = _with_output(store, found.row)
    if result is None:
        return Kept(StoreEffect.NOT_STORED)
    row = msgspec.structs.replace(found.row, result=result)
    return keep_result(store, replace(found, row=row), now_s)


def _compare(
    store: ResultStore, shape: Shape, rows: Sequence[ResultRow], new: ResultRow
) -> tuple[ResultRow | None, Shape, str]:
    """Compare a new result with an earlier one.

    Return the earlier one or None, the shape after the comparison, and the difference or "".
    """
    same = [row for row in rows if new.timed and row.timed == new.timed]
    alike = [row for row in rows if new.blind and row.blind == new.blind]
    for row in (*same, *alike):
        if (old := _with_output(store, row)) is None:
            continue
        difference = difference_of_results(old, new.result)
        is_same = row in same
        judged = shape if is_same else with_other_times(shape, difference)
        if is_same or not (difference or judged.sees_times):
            executions = execution_of(old), execution_of(new.result)
            judged = with_second_run(judged, proof_key(judged, new), *executions, difference)
        return row, judged, difference
    return None, shape, ""


def _with_output(store: ResultStore, row: ResultRow) -> RecordedResult | None:
    """Return the result with all of its output, or None if that is gone."""
    output = store.output(row)
    return None if output is None else msgspec.structs.replace(row.result, output=output, output_blob=None)
