"""Test which results may be used: the proofs of commands and of their shapes."""

import stat
import time

import msgspec
import pytest

from termite.engine.model import Attr, Change, Changeset
from termite.engine.recall.logic.concurrent_changes import ConcurrentChanges
from termite.engine.recall.logic.dependencies import NotStorable, Obstacle
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.look_up.evidence import (
    NEW_SHAPE,
    Execution,
    Proof,
    Shape,
    difference_of_results,
    is_audit_due,
    is_interpreter,
    is_of_day,
    judge_proof,
    merged_shape,
    refused_shape,
    shape_id,
    with_other_times,
    with_second_run,
)
from termite.engine.recall.look_up.observation import Observation, observe
from termite.engine.recall.look_up.stored_rows import OutputPiece, RecordedResult
from termite.engine.sparse_content import digest_of
from tests.unit.engine.recall.recall_trees import (
    READ,
    STAT,
    TIMING,
    WRITES,
    NoInterpreters,
    access,
    directory,
    ended,
    file,
    made,
    tree_of,
)
from tests.unit.tables import each_row

FIRST, SECOND = Execution(100.0, "one"), Execution(110.0, "two")
STRONG = [b"%032d" % number for number in range(9)]
GCC = {b"usr/bin/gcc": b"g" * 32, b"usr/bin/as": b"a" * 32}


def proven(*strong: bytes) -> Shape:
    shape = NEW_SHAPE
    for one in strong:
        shape = with_second_run(shape, one, FIRST, SECOND, "")
    return shape


def test_a_result_may_be_used_after_a_second_equal_run() -> None:
    assert judge_proof(NEW_SHAPE, STRONG[0], is_known=False, is_of_today=True) is Proof.UNPROVEN
    assert judge_proof(NEW_SHAPE, STRONG[0], is_known=True, is_of_today=False) is Proof.KNOWN
    assert judge_proof(proven(STRONG[0]), STRONG[0], is_known=False, is_of_today=True) is Proof.TWICE
    assert judge_proof(proven(STRONG[0]), STRONG[1], is_known=False, is_of_today=True) is Proof.UNPROVEN
    assert [proof for proof in Proof if proof.is_enough] == [Proof.KNOWN, Proof.TWICE, Proof.SHAPE]


@pytest.mark.parametrize("second", [Execution(101.0, "two"), Execution(99.0, "two"), Execution(500.0, "one")])
def test_runs_at_the_same_time_or_in_one_sandbox_prove_nothing(second: Execution) -> None:
    assert with_second_run(NEW_SHAPE, STRONG[0], FIRST, second, "") == NEW_SHAPE


def test_three_instances_prove_a_shape() -> None:
    assert judge_proof(proven(*STRONG[:2]), STRONG[5], is_known=False, is_of_today=True) is Proof.UNPROVEN
    assert (
        judge_proof(proven(STRONG[0], STRONG[0], STRONG[0]), STRONG[5], is_known=False, is_of_today=True)
        is Proof.UNPROVEN
    )
    assert judge_proof(proven(*STRONG[:3]), STRONG[5], is_known=False, is_of_today=True) is Proof.SHAPE
    assert proven(*STRONG[:9]) == proven(*STRONG[:3])


def test_one_difference_refuses_a_shape_for_ever() -> None:
    refused = with_second_run(proven(*STRONG[:3]), STRONG[4], FIRST, FIRST, "stdout at byte 3")
    assert refused == Shape(refused="stdout at byte 3")
    again = with_second_run(refused, STRONG[5], FIRST, SECOND, "")
    for shape in (refused, merged_shape(proven(*STRONG[:3]), refused), merged_shape(refused, NEW_SHAPE), again):
        for is_known in (True, False):
            assert judge_proof(shape, STRONG[0], is_known=is_known, is_of_today=True) is Proof.REFUSED
    assert refused_shape(refused, "another").refused == "stdout at byte 3"


def test_runs_of_one_day_prove_nothing_about_another_day() -> None:
    days = [Execution(86_400 * day + 43_200.0, str(day)) for day in range(9)]
    shape = proven(*STRONG[:3])
    assert judge_proof(shape, STRONG[0], is_known=False, is_of_today=False) is Proof.UNPROVEN
    assert judge_proof(shape, STRONG[5], is_known=False, is_of_today=False) is Proof.UNPROVEN
    assert judge_proof(NEW_SHAPE, STRONG[0], is_known=True, is_of_today=False) is Proof.KNOWN
    over_midnight = Execution(days[3].ended_s, "b", took_s=86_400.0)
    assert with_second_run(shape, STRONG[0], days[2], over_midnight, "") == shape
    shape = with_second_run(shape, STRONG[0], days[1], days[3], "")
    assert judge_proof(shape, STRONG[0], is_known=False, is_of_today=False) is Proof.TWICE
    assert judge_proof(shape, STRONG[5], is_known=False, is_of_today=False) is Proof.UNPROVEN
    for strong in STRONG[1:3]:
        shape = merged_shape(with_second_run(shape, strong, days[1], days[3], ""), NEW_SHAPE)
    assert judge_proof(shape, STRONG[5], is_known=False, is_of_today=False) is Proof.SHAPE


@pytest.mark.parametrize("zone", ["UTC", "UTC+12", "UTC-12"])
def test_a_result_is_of_a_day_by_the_local_time_and_by_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        at_s = 86_400.0 * 10
        old, long = (RecordedResult((), (), 0, took_ns, at_s=at_s + 60) for took_ns in (1, 120 * 10**9))
        assert is_of_day(old, at_s + 120)
        assert not is_of_day(old, at_s - 1), "another day of UTC"
        assert is_of_day(old, at_s + 86_399) is (zone == "UTC"), "another local day"
        assert not is_of_day(long, at_s + 120), "it began on the day before"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_two_masters_have_proved_adds_up() -> None:
    both = merged_shape(proven(*STRONG[:2]), proven(STRONG[1], STRONG[2]))
    assert judge_proof(both, STRONG[7], is_known=False, is_of_today=True) is Proof.SHAPE


def test_equal_results_with_other_times_do_not_prove_that_times_do_not_matter() -> None:
    assert with_other_times(NEW_SHAPE, "") == NEW_SHAPE
    seeing = with_other_times(proven(STRONG[0]), "/w/x differs")
    assert seeing == merged_shape(NEW_SHAPE, seeing) == Shape((STRONG[0],), sees_times=True)


def test_a_shape_leaves_out_names_of_files_but_no_options() -> None:
    def shape(*argv: bytes) -> bytes:
        return shape_id(argv, GCC)

    one = shape(b"gcc", b"-O2", b"-Iinc/a", b"-c", b"x/a.c", b"-o", b"out/a.o", b"-MF", b"a.d")
    assert one == shape(b"gcc", b"-O2", b"-I../b", b"-c", b"b.c", b"-o", b"b.o", b"-MF", b"d/b.d")
    assert one != shape(b"gcc", b"-O3", b"-Iinc/a", b"-c", b"x/a.c", b"-o", b"out/a.o", b"-MF", b"a.d")
    assert one != shape(b"gcc", b"-O2", b"-Linc/a", b"-c", b"x/a.c", b"-o", b"out/a.o", b"-MF", b"a.d")
    assert shape(b"gcc", b"-DX=1", b"a.c") != shape(b"gcc", b"-DX=2", b"a.c")
    assert shape_id((b"gcc", b"a.c"), GCC) != shape_id((b"gcc", b"a.c"), {**GCC, b"usr/bin/as": b"b" * 32})


@each_row(
    "tool",
    [
        *(b"usr/bin/python3.11", b"bin/sh", b"usr/bin/perl", b"usr/bin/gawk", b"usr/bin/dash", b"opt/pypy3"),
        *(
            b"opt/miniperl",
            b"opt/minilua",
            b"opt/buildvm",
            b"usr/bin/julia",
            b"usr/bin/octave-cli",
            b"usr/bin/xsltproc",
        ),
        *(
            b"usr/bin/pdflatex",
            b"usr/bin/pdftex",
            b"usr/bin/tex",
            b"usr/bin/lualatex",
            b"usr/bin/xetex",
            b"usr/bin/luahbtex",
        ),
        *(
            b"usr/bin/escript",
            b"usr/bin/gnuplot",
            b"bin/sed",
            b"usr/bin/bc",
            b"usr/bin/dc",
            b"usr/bin/m4",
            b"usr/bin/mawk",
        ),
    ],
)
def test_one_script_proves_nothing_about_another(tool: bytes) -> None:
    tools = {**GCC, tool: b"t" * 32}
    assert shape_id((b"tool", b"one.py"), tools) != shape_id((b"tool", b"two.py"), tools)


def test_nobody_knows_whether_a_program_of_the_tree_is_an_interpreter() -> None:
    built = {b"w/tree/generate": b"t" * 32}
    one, two = ((b"./generate", b"one.in"), (b"./generate", b"two.in"))
    assert shape_id(one, built, root=b"/w/tree") != shape_id(two, built, root=b"/w/tree")
    assert shape_id(one, built, root=b"/w/other") == shape_id(two, built, root=b"/w/other")


@pytest.mark.parametrize("tool", [b"usr/bin/gcc", b"usr/bin/ar", b"usr/bin/cp", b"usr/bin/bison"])
def test_compilers_and_the_like_are_no_interpreters(tool: bytes) -> None:
    assert not is_interpreter(tool)


def test_one_hit_in_two_hundred_is_checked() -> None:
    assert [hits for hits in range(1, 601) if is_audit_due(hits)] == [200, 400, 600]


# -- differences ------------------------------------------------------------------------------------------------------


def result(content: bytes = b"x", mode: int = 0o644, output: bytes = b"out", code: int = 0) -> RecordedResult:
    attr = Attr(stat.S_IFREG | mode, len(content), 5, digest_of(content))
    pieces = (OutputPiece(1, output[:1]), OutputPiece(2, b"err"), OutputPiece(1, output[1:]))
    return RecordedResult((Change(b"w/x", attr), Change(b"w/old", None)), pieces, 1, 2, code=code)


@each_row(
    ("other", "difference"),
    [
        (result(), ""),
        (result(content=b"y"), "/w/x differs"),
        (result(mode=0o755), "/w/x differs"),
        (result(output=b"ouT"), "stdout at byte 2"),
        (result(output=b"output"), "stdout at byte 3"),
        (result(code=1), "exit code 0, then 1"),
        (msgspec.structs.replace(result(), changes=result().changes[:1]), "/w/old is in one result only"),
        (msgspec.structs.replace(result(), changes=result().changes[::-1], started_ns=7, job="b"), ""),
        (msgspec.structs.replace(result(), output=(OutputPiece(1, b"out"), OutputPiece(2, b"err"))), ""),
        (msgspec.structs.replace(result(), output=(OutputPiece(1, b"out"),)), "stderr at byte 0"),
    ],
)
def test_the_first_difference_of_two_results_is_named(other: RecordedResult, difference: str) -> None:
    assert difference_of_results(result(), other) == difference


# -- what is stored about a job ---------------------------------------------------------------------------------------


def observed(meanwhile: ConcurrentChanges, change: Change | None = None) -> Observation:
    tree = tree_of({b"w/src": directory(), b"w/src/a.c": file("a"), b"w/out": directory()})
    accesses = [access(b"/w/src", STAT), access(b"/w/src/a.c", READ), access(b"/w/out/a.o", WRITES)]
    return observe(
        ended(accesses, [change or made(b"w/out/a.o")]), b"w" * 32, TreeFacts(tree, NoInterpreters()), meanwhile
    )


def changes(*found: Change) -> ConcurrentChanges:
    return ConcurrentChanges([Changeset(1, found)], lambda path: False)


def test_a_job_is_observed_with_both_fingerprints() -> None:
    found = observed(changes())
    assert found.timed and found.blind and found.timed != found.blind
    assert len(found.states) == len(found.row.path_set.dependencies)
    assert observed(changes(Change(b"w/other", file()))) == found


def test_a_job_whose_input_changed_is_not_stored() -> None:
    with pytest.raises(NotStorable) as refused:
        observed(changes(Change(b"w/src/a.c", file("b"))))
    assert (refused.value.obstacle, refused.value.detail) == (Obstacle.CHANGED, b"/w/src/a.c")


def test_a_fingerprint_is_missing_if_its_times_are_unsure_or_set() -> None:
    later = changes(Change(b"w/src", directory(), content=False))
    set_time = made(b"w/out/a.o", file("made", mtime_ns=5))
    assert observed(later).timed == b"" != observed(later).blind
    assert observed(changes(), set_time).blind == b"" != observed(changes(), set_time).timed
    assert not TIMING.is_made_in_job(5)
    with pytest.raises(NotStorable):
        observed(later, set_time)
