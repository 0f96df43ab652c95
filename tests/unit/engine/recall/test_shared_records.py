"""Test which results of others may be used here, and which path sets are kept for a command."""

import hashlib
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.decide.known_tools import KnownTool, Vouch
from termite.engine.model import Attr, Change, Digest, MachineFacts
from termite.engine.recall.known.known_table import KnownTable
from termite.engine.recall.logic.uses import Dependency, PathSet, Use, pack_path_set
from termite.engine.recall.look_up.evidence import NEW_SHAPE, Shape
from termite.engine.recall.look_up.fingerprints import FORMAT
from termite.engine.recall.look_up.stored_rows import CHECKSUM_BYTES, PathSetRow, RecordedResult, ResultRow
from termite.engine.recall.shared_store import shared_records
from termite.engine.recall.shared_store.shared_records import (
    MOST_PATH_SETS,
    MOST_RESULT_BYTES,
    MOST_SET_BYTES,
    AskedResult,
    ProofHere,
    ProvedResult,
    RunGround,
    SharedPathSet,
    SharedRefusal,
    Unusable,
    evidence_of,
    find_obstacle,
    is_refusal,
    merged_path_sets,
    open_path_sets,
    open_result,
    packed_record,
    result_name,
)
from termite.engine.recall.shared_store.signatures import Distrust, Distrusted, RecordKind, RecordName, WriterKey
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

CI, DESK, STRANGER = (WriterKey(Ed25519PrivateKey.generate()) for _ in range(3))
TRUSTED = {CI.public: "ci", DESK.public: "desk"}
NOW_S = 1_700_000_000.0
WEAK, TIMED, BLIND = (hashlib.sha256(word).digest() for word in (b"weak", b"timed", b"blind"))
HERE = RunGround("host", MachineFacts("x86_64", "Linux 6"))
TABLE = KnownTable([KnownTool("gcc", "gcc", ("GCC",), lambda call: Vouch())])
SETS = RecordName(RecordKind.PATH_SETS, WEAK)
TWICE = Shape(proven=(BLIND,))


def a_set(number: int) -> PathSetRow:
    found = PathSet((Dependency(b"w/%d" % number, Use.READ),))
    return PathSetRow(pack_path_set(found)[0], found)


ASKED = AskedResult(WEAK, a_set(0), TIMED, BLIND)


def shared(*, known: bool = False, evidence: Shape = NEW_SHAPE, **of_row: object) -> ProvedResult:
    row = ResultRow(
        TIMED,
        BLIND,
        a_set(0).id,
        RecordedResult((), (), 1, 2, at_s=NOW_S),
        b"shape",
        ("gcc 1",) if known else (),
        known,
    )
    return ProvedResult(FORMAT, WEAK, msgspec.structs.replace(row, **of_row), evidence, HERE)


def obstacle(
    found: ProvedResult,
    *,
    asked: AskedResult = ASKED,
    shape: Shape = NEW_SHAPE,
    table: KnownTable = TABLE,
    ground: RunGround = HERE,
    now_s: float = NOW_S + 60,
) -> Unusable | None:
    return find_obstacle(found, asked, ProofHere(table, lambda identity: shape, (ground,), now_s))


def test_what_is_proved_may_be_used() -> None:
    assert obstacle(shared(known=True)) is None
    assert obstacle(shared(evidence=TWICE)) is None
    assert obstacle(shared(evidence=Shape(proven=(b"1", b"2", b"3")))) is None


def test_what_is_not_proved_may_not() -> None:
    assert obstacle(shared()) is Unusable.PROOF
    assert obstacle(shared(evidence=Shape(proven=(b"1", b"2")))) is Unusable.PROOF
    assert obstacle(shared(known=True), table=KnownTable([])) is Unusable.PROOF
    assert obstacle(shared(evidence=TWICE), now_s=NOW_S + 100_000) is Unusable.PROOF
    lasting = Shape(proven=(BLIND,), lasting=(BLIND,))
    assert obstacle(shared(evidence=lasting), now_s=NOW_S + 100_000) is None


def test_proofs_of_both_sides_count_together() -> None:
    assert obstacle(shared(evidence=Shape(proven=(b"1", b"2"))), shape=Shape(proven=(b"3",))) is None


def test_only_what_is_known_holds_for_other_hosts_and_machines() -> None:
    for other in (RunGround("host", MachineFacts("x86_64", "Linux 5")), RunGround("other", HERE.machine)):
        assert obstacle(shared(evidence=TWICE), ground=other) is Unusable.GROUND
        assert obstacle(shared(known=True), ground=other) is None


def test_one_refusal_is_enough() -> None:
    refused = Shape(refused="/w/a.o differs")
    assert obstacle(shared(known=True), shape=refused) is Unusable.REFUSED
    assert obstacle(shared(known=True, evidence=refused)) is Unusable.REFUSED


def test_times_do_not_matter_only_if_the_table_says_so() -> None:
    touched = replace(ASKED, timed=b"other")
    assert obstacle(shared(known=True), asked=touched) is None
    assert obstacle(shared(known=True, is_known_blind=False), asked=touched) is Unusable.OTHER
    assert obstacle(shared(evidence=TWICE), asked=touched) is Unusable.OTHER
    assert obstacle(shared(known=True, evidence=Shape(sees_times=True)), asked=touched) is Unusable.PROOF
    assert obstacle(shared(known=True), shape=Shape(sees_times=True), asked=touched) is Unusable.PROOF


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, weak=b"other"),
        replace(ASKED, candidate=a_set(1)),
        replace(ASKED, timed=b"other", blind=b"other"),
    ],
)
def test_an_answer_to_another_question_is_not_used(asked: AskedResult) -> None:
    assert obstacle(shared(known=True), asked=asked) is Unusable.OTHER
    assert (
        obstacle(shared(known=True, timed=b"", blind=b""), asked=replace(asked, timed=b"", blind=b"")) is Unusable.OTHER
    )


def test_a_failed_command_is_not_used() -> None:
    assert obstacle(shared(known=True, result=RecordedResult((), (), 1, 2, code=1, at_s=NOW_S))) is Unusable.OTHER


@each_row("path", [b"../x", b"/x", b"w/../../x", b"w//x", b"w/\0x", b"w/" + b"x" * 2000])
def test_a_result_that_names_no_paths_is_not_used(path: bytes) -> None:
    for change in (Change(path, None), Change(b"w/a", Attr(0o100644, 1, 1), link_to=path)):
        result = RecordedResult((change,), (), 1, 2, at_s=NOW_S)
        assert obstacle(shared(known=True, result=result)) is Unusable.PLACE


def test_a_result_that_is_too_large_is_not_used() -> None:
    digest = Digest(b"d" * 32, MOST_RESULT_BYTES + 1)
    result = RecordedResult((Change(b"w/a", Attr(0o100644, digest.size, 1, digest)),), (), 1, 2, at_s=NOW_S)
    assert obstacle(shared(known=True, result=result)) is Unusable.PLACE


def test_a_result_is_found_without_times_only_if_the_table_vouched_for_that() -> None:
    for known, fields, digest in (
        (True, {}, BLIND),
        (False, {}, TIMED),
        (True, {"blind": b""}, TIMED),
        (True, {"is_known_blind": False}, TIMED),
    ):
        name = result_name(shared(known=known, **fields).row)
        assert name == RecordName(RecordKind.RESULT, digest) and name in ASKED.names
    assert result_name(shared(timed=b"").row) is None


def test_a_result_is_opened_as_it_was_signed() -> None:
    name = RecordName(RecordKind.RESULT, BLIND)
    written = shared(evidence=TWICE, result=RecordedResult((), (), 1, 2, job="job 7"))
    opened = open_result(CI.sign(name, packed_record(written)), name, TRUSTED)
    assert opened.row.result.job == "job 7 (ci)"
    assert (opened.evidence, opened.ground, opened.weak) == (TWICE, HERE, WEAK)
    for other in (msgspec.structs.replace(written, format=FORMAT + 1), SharedRefusal(FORMAT, "x")):
        with pytest.raises(Distrusted) as refused:
            open_result(CI.sign(name, packed_record(other)), name, TRUSTED)
        assert refused.value.reason is Distrust.FORM


def test_a_known_result_tells_no_proofs_of_others() -> None:
    shape = Shape(proven=(b"1",), sees_times=True, lasting=(b"1",))
    assert evidence_of(shared().row, shape, is_known=True) == Shape(sees_times=True)
    assert evidence_of(shared().row, shape, is_known=False) == shape


def test_a_refusal_counts_if_its_writer_is_trusted() -> None:
    name = RecordName(RecordKind.SHAPE, b"s" * 16)
    body = packed_record(SharedRefusal(FORMAT, "x"))
    assert is_refusal(CI.sign(name, body), name, TRUSTED)
    assert not is_refusal(CI.sign(name, packed_record(SharedRefusal(FORMAT - 1, "x"))), name, TRUSTED)
    with pytest.raises(Distrusted):
        is_refusal(STRANGER.sign(name, body), name, TRUSTED)


# -- path sets --------------------------------------------------------------------------------------------------------


def signed(number: int, key: WriterKey = CI) -> bytes:
    return key.sign(SETS, packed_record(SharedPathSet(FORMAT, a_set(number))))


def ids(packed: bytes) -> list[bytes]:
    return [row.path_set.dependencies[0].path for row in open_path_sets(packed, SETS, TRUSTED)[0]]


def merged(*numbers: int, packed: bytes = b"", key: WriterKey = CI) -> bytes:
    for number in numbers:
        packed = merged_path_sets(packed, signed(number, key), SETS, TRUSTED)
    return packed


def test_the_newest_path_set_comes_first_and_each_once() -> None:
    assert ids(merged(1, 2, 3)) == [b"w/3", b"w/2", b"w/1"]
    assert ids(merged(1, 2, 3, 1)) == [b"w/1", b"w/3", b"w/2"]
    assert ids(merged(*range(20))) == [b"w/%d" % n for n in range(19, 19 - MOST_PATH_SETS, -1)]


def test_those_of_other_writers_stay_if_they_are_trusted() -> None:
    theirs = merged(1, 2, key=DESK)
    assert ids(merged(3, packed=theirs)) == [b"w/3", b"w/2", b"w/1"]
    strange = msgspec.msgpack.encode([signed(9, STRANGER), signed(1, DESK)])
    assert ids(merged(3, packed=strange)) == [b"w/3", b"w/1"]
    assert open_path_sets(strange, SETS, TRUSTED)[1] == {Distrust.WRITER: 1}
    assert merged_path_sets(strange, signed(3), SETS, TRUSTED) == msgspec.msgpack.encode([signed(3), signed(1, DESK)])


MANY = [b""] * (MOST_PATH_SETS + 1)
LONG = [bytes(MOST_SET_BYTES), bytes(MOST_SET_BYTES)]


@pytest.mark.parametrize("packed", [b"x", b"\x91", b"\xc0", *map(msgspec.msgpack.encode, ([1], {}, MANY, LONG))])
def test_what_is_no_list_is_dropped(packed: bytes) -> None:
    assert open_path_sets(packed, SETS, TRUSTED) == ((), {Distrust.FORM: 1})
    assert ids(merged(1, packed=packed)) == [b"w/1"]


def test_a_path_set_has_its_own_name() -> None:
    other = PathSetRow(b"other", a_set(1).path_set)
    packed = msgspec.msgpack.encode([CI.sign(SETS, packed_record(SharedPathSet(FORMAT, other)))])
    assert open_path_sets(packed, SETS, TRUSTED) == ((), {Distrust.FORM: 1})


def test_path_sets_have_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_records, "MOST_SET_BYTES", 2 * len(signed(1)) + 1)
    assert ids(merged(1, 2, 3)) == [b"w/3", b"w/2"]


# -- what a store, or a writer, may send ------------------------------------------------------------------------------

KEPT = merged(1, 2, 3)
FULL = shared(
    known=True,
    evidence=TWICE,
    result=RecordedResult((Change(b"w/a", Attr(0o100644, 1, 1, Digest(b"d" * 32, 1))),), (), 1, 2, at_s=NOW_S),
)
RESULT, SHAPE = RecordName(RecordKind.RESULT, BLIND), RecordName(RecordKind.SHAPE, b"s" * 16)


@pytest.mark.attack
@given(mutations(KEPT))
def test_a_damaged_list_has_no_other_path_sets_than_the_whole_one(packed: bytes) -> None:
    found, distrusted = open_path_sets(packed, SETS, TRUSTED)
    assert {row.id for row in found} <= {a_set(number).id for number in (1, 2, 3)}
    assert len(found) == 3 or distrusted or len(packed) < len(KEPT)
    assert ids(merged(4, packed=packed))[0] == b"w/4", "a writer can still add its own"


@pytest.mark.attack
def test_a_list_may_be_cut_anywhere() -> None:
    for end in range(len(KEPT)):
        found, distrusted = open_path_sets(KEPT[:end], SETS, TRUSTED)
        assert (found, bool(distrusted)) == ((), bool(end))
        assert ids(merged(4, packed=KEPT[:end])) == [b"w/4"]


def signed_bodies() -> st.SearchStrategy[tuple[RecordName, bytes]]:
    """Return records of a trusted writer that were damaged before they were signed."""
    bodies = [
        (SETS, packed_record(SharedPathSet(FORMAT, a_set(1)))),
        (RESULT, packed_record(FULL)),
        (SHAPE, packed_record(SharedRefusal(FORMAT, "x"))),
    ]

    def signed_body(named: tuple[RecordName, bytes]) -> st.SearchStrategy[tuple[RecordName, bytes]]:
        name, body = named
        head = body[:CHECKSUM_BYTES]
        right = mutations(body[CHECKSUM_BYTES:]).map(lambda rest: hashlib.sha256(rest).digest()[:CHECKSUM_BYTES] + rest)
        wrong = mutations(body[CHECKSUM_BYTES:]).map(lambda rest: head + rest)
        return st.tuples(st.just(name), right | wrong)

    return st.sampled_from(bodies).flatmap(signed_body)


@pytest.mark.attack
@given(signed_bodies())
def test_what_a_trusted_writer_has_damaged_is_judged_or_refused(named: tuple[RecordName, bytes]) -> None:
    name, body = named
    packed = CI.sign(name, body)
    open_path_sets(msgspec.msgpack.encode([packed]), name, TRUSTED)
    merged_path_sets(msgspec.msgpack.encode([packed]), signed(1), name, TRUSTED)
    for judge in (lambda: obstacle(open_result(packed, name, TRUSTED)), lambda: is_refusal(packed, name, TRUSTED)):
        with suppress(Distrusted):
            judge()
