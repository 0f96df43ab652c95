"""Keep runs that have ended in a real store, and see what they prove."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from termite.engine.model import Attr, Change, Digest, StoreLimits
from termite.engine.recall.ended_runs import EndedRun, StoreEffect, keep_run
from termite.engine.recall.logic.dependencies import DependencySet, Obstacle
from termite.engine.recall.logic.uses import Dependency, PathSet, Use, pack_path_set
from termite.engine.recall.look_up.evidence import Proof, is_of_day, judge_proof, proof_key, shape_id
from termite.engine.recall.look_up.fingerprints import CommandIdentity, recall_name, weak_fingerprint
from termite.engine.recall.look_up.observation import Observation
from termite.engine.recall.look_up.stored_rows import OutputPiece, PathSetRow, RecordedResult
from termite.engine.recall.result_store import INLINE_OUTPUT_BYTES, ResultStore

PATH_SET = PathSet((Dependency(b"w/a.c", Use.READ | Use.STAT),))
SET_ID = pack_path_set(PATH_SET)[0]
NOW_S = 1_700_000_000
TOOLS = {b"usr/bin/gcc": b"g" * 32}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultStore]:
    store = ResultStore(tmp_path / "results", StoreLimits(1 << 30, 1000), NOW_S)
    yield store
    store.close()


def a_run(
    at_s: float, content: bytes = b"object", *, name: bytes = b"a", times: bytes = b"t", output: bytes = b""
) -> EndedRun:
    """Return a run of `gcc -c a.c`, whose inputs have these times."""
    identity = CommandIdentity((b"gcc", b"-c", name + b".c"), b"gcc", True, b"/w", (b"LANG=C",), 0o22, b"w")
    weak = weak_fingerprint(identity)
    digest = Digest(hashlib.sha256(content).digest(), len(content))
    change = Change(b"w/" + name + b".o", Attr(0o100644, digest.size, 1, digest))
    timed, blind = (hashlib.sha256(weak + part).digest() for part in (times, b"blind"))
    seen = Observation(
        DependencySet(PATH_SET, tuple(TOOLS), (), has_set_times=False), PathSetRow(SET_ID, PATH_SET), (), timed, blind
    )
    pieces = (OutputPiece(1, output),) if output else ()
    result = RecordedResult((change,), pieces, 1, 2, job=f"job at {at_s}", at_s=at_s)
    return EndedRun(identity, weak, seen, TOOLS, result, {digest.sha256: content})


def keep(store: ResultStore, *runs: EndedRun) -> list[StoreEffect]:
    return [keep_run(store, run, NOW_S).effect for run in runs]


def proof(store: ResultStore, run: EndedRun, *, is_of_today: bool = True) -> Proof:
    """Return what is known of the stored result of a run."""
    shape = store.shape(shape_id(run.identity.argv, run.tools))
    (row, *_) = store.rows(run.weak).results
    return judge_proof(shape, proof_key(shape, row), is_known=False, is_of_today=is_of_today)


def test_a_result_is_proved_by_an_equal_one_two_seconds_later(store: ResultStore) -> None:
    assert keep(store, a_run(100.0)) == [StoreEffect.STORED]
    assert proof(store, a_run(0)) is Proof.UNPROVEN
    assert keep(store, a_run(101.0), a_run(101.9)) == [StoreEffect.PROVED] * 2
    assert proof(store, a_run(0)) is Proof.UNPROVEN
    assert keep(store, a_run(102.0)) == [StoreEffect.PROVED]
    assert proof(store, a_run(0)) is Proof.TWICE
    (row,) = store.rows(a_run(0).weak).results
    assert row.result.at_s == 100.0, "later runs are compared with the first one"


@pytest.mark.parametrize("output", [b"", b"x" * (INLINE_OUTPUT_BYTES + 1)])
def test_a_difference_refuses_the_shape_and_removes_its_results(store: ResultStore, output: bytes) -> None:
    other = a_run(100.0, name=b"b")
    keep(store, a_run(100.0, output=output), other)
    found = keep_run(store, a_run(105.0, b"objecT", output=output), NOW_S)
    assert (found.effect, found.difference) == (StoreEffect.REFUSED, "/w/a.o differs")
    assert not store.rows(other.weak).results and not store.rows(a_run(0).weak).results
    assert keep(store, a_run(110.0), other) == [StoreEffect.UNFIT] * 2, "it is never stored again"


def test_a_long_output_is_compared_too(store: ResultStore) -> None:
    long = b"x" * (INLINE_OUTPUT_BYTES + 1)
    assert keep(store, a_run(100.0, output=long), a_run(103.0, output=long)) == [StoreEffect.STORED, StoreEffect.PROVED]
    assert keep_run(store, a_run(106.0, output=long + b"y"), NOW_S).difference == f"stdout at byte {len(long)}"


def test_three_instances_prove_their_shape(store: ResultStore) -> None:
    for name in (b"a", b"b", b"c"):
        keep(store, a_run(100.0, name=name), a_run(103.0, name=name))
    new = a_run(104.0, name=b"d")
    assert keep(store, new) == [StoreEffect.STORED]
    assert proof(store, new) is Proof.SHAPE


def test_runs_that_differ_in_times_alone_prove_as_much(store: ResultStore) -> None:
    runs = [a_run(100.0 + 3 * n, times=b"%d" % n) for n in range(4)]
    assert keep(store, *runs) == [StoreEffect.STORED] * 4
    assert proof(store, runs[0]) is Proof.TWICE


def test_what_two_runs_of_one_day_prove_holds_for_this_day(store: ResultStore) -> None:
    keep(store, a_run(NOW_S), a_run(NOW_S + 3.0))
    (row,) = store.rows(a_run(0).weak).results
    assert proof(store, a_run(0)) is Proof.TWICE and not is_of_day(row.result, NOW_S + 86_400)
    assert proof(store, a_run(0), is_of_today=False) is Proof.UNPROVEN
    assert keep(store, a_run(NOW_S + 86_400)) == [StoreEffect.PROVED]
    assert proof(store, a_run(0), is_of_today=False) is Proof.TWICE


def test_a_shape_that_sees_times_is_proved_for_equal_times_only(store: ResultStore) -> None:
    keep(store, a_run(100.0, b"one", times=b"1"), a_run(103.0, b"two", times=b"2"))
    shape = store.shape(shape_id(a_run(0).identity.argv, TOOLS))
    assert shape.sees_times and not shape.refused and not shape.proven
    keep(store, a_run(106.0, b"two", times=b"2"))
    rows = {row.timed: row for row in store.rows(a_run(0).weak).results}
    judged = store.shape(shape_id(a_run(0).identity.argv, TOOLS))
    proofs = {
        times: judge_proof(judged, proof_key(judged, rows[seen.timed]), is_known=False, is_of_today=True)
        for times in (b"1", b"2")
        if (seen := a_run(0, times=times).observation) is not None
    }
    assert proofs == {b"1": Proof.UNPROVEN, b"2": Proof.TWICE}


def test_an_obstacle_is_noted_and_nothing_is_stored(store: ResultStore) -> None:
    run = not_stored(a_run(100.0), Obstacle.EXIT)
    assert keep(store, run) == [StoreEffect.NOT_STORED]
    assert not store.rows(run.weak).results
    last = store.last(recall_name(run.identity))
    assert last is not None and (last[0].obstacle, last[0].detail, last[0].job) == ("exit", b"2", "job at 100.0")


def not_stored(run: EndedRun, obstacle: Obstacle) -> EndedRun:
    """Return the run as one whose result is not stored."""
    result = msgspec.structs.replace(run.result, changes=())
    return EndedRun(run.identity, run.weak, None, {}, result, {}, obstacle, b"2")


def test_a_content_that_changed_in_the_tree_is_not_stored(store: ResultStore, tmp_path: Path) -> None:
    run = a_run(100.0)
    (sha256,) = run.contents
    (tmp_path / "a.o").write_bytes(b"edited")
    in_tree = EndedRun(run.identity, run.weak, run.observation, TOOLS, run.result, {sha256: tmp_path / "a.o"})
    assert keep(store, in_tree) == [StoreEffect.NOT_STORED]
    (tmp_path / "a.o").write_bytes(b"object")
    assert keep(store, in_tree) == [StoreEffect.STORED]
