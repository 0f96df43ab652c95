"""Test the format of the plan, whole, cut at every offset and with each byte changed."""

import contextlib
import struct

import msgspec
import pytest
from hypothesis import given

from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.tree.logic import redo_plan
from termite.engine.tree.logic.redo_plan import (
    ALIGNMENT,
    DONE,
    HEADER,
    OUTCOME_AT,
    JobEnd,
    MakeDirectory,
    Outcome,
    PlaceEntry,
    RedoPlan,
    SetAttributes,
    SetDirectory,
    Step,
    Stood,
    Trash,
    Unlock,
    area_of,
    newest_record,
    pack_record,
)
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

BOOT = b"0123456789abcdef0123456789abcdef0123"
STOOD = Stood(1, 2, 3, 4)
STEPS: tuple[Step, ...] = (
    Unlock(b"closed"),
    MakeDirectory(b"d", b"x.1", None),
    PlaceEntry(b"d/f", b"x.2", STOOD),
    PlaceEntry(b"d/h", b"x.3", None, b"d/f"),
    SetAttributes(b"g", 0o100644, 5, STOOD),
    Trash(b"old", b"x.4", STOOD, (b"old/kept",)),
    SetDirectory(b"d", 0o40755, 6),
)
END = JobEnd(b"\1" * 8, 7, 3, 0, b"stdin_offset=5\0")
EARLIER = JobEnd(b"\2" * 8, 8, 0, 9, b"")
PLAN = RedoPlan(99, END, STEPS, (EARLIER,))
WHOLE = pack_record(1, BOOT, PLAN)
SEALED = len(WHOLE) - DONE.size  # what the sum covers, and the outcome


def test_a_plan_comes_back_as_it_was() -> None:
    record = newest_record(WHOLE)
    assert record is not None
    assert (record.plan, record.outcome, record.boot_id, record.number) == (PLAN, Outcome.OPEN, BOOT, 1)
    assert record.end_of(END.token) == END
    assert record.end_of(EARLIER.token) == EARLIER
    assert record.end_of(b"\3" * 8) is None


@pytest.mark.parametrize(("tail", "done"), [(b"", 0), (b"\2\0", 0), (b"\2\0\0\0", 2), (b"\xff" * 4, len(STEPS))])
def test_the_number_of_steps_that_were_carried_out_is_never_more_than_there_are(tail: bytes, done: int) -> None:
    record = newest_record(WHOLE[:SEALED] + tail)
    assert record is not None and record.done == done and record.done_at == SEALED


def test_what_comes_after_it_means_nothing() -> None:
    assert newest_record(WHOLE + b"rubbish") == newest_record(WHOLE)
    assert newest_record(b"") is None


def test_a_plan_that_was_cut_is_none() -> None:
    for length in range(SEALED):
        assert newest_record(WHOLE[:length]) is None, length
        assert newest_record(WHOLE[:length] + b"\xff" * (len(WHOLE) - length)) is None, length


def test_a_plan_with_a_changed_byte_is_none() -> None:
    for at in range(SEALED):
        changed = bytearray(WHOLE)
        changed[at] ^= 0xFF
        if at == OUTCOME_AT:
            with pytest.raises(RemoteProtocolError):
                newest_record(bytes(changed))
        else:
            assert newest_record(bytes(changed)) is None, at


@each_row("path", [b"../f", b"/f", b"/tmp", b"/tmp/../f", b"//tmp/f", b"d//f", b"d/.", b"\0"])
def test_a_plan_that_leads_out_of_the_tree_is_refused(path: bytes) -> None:
    with pytest.raises((FsError, RemoteProtocolError)):
        newest_record(pack_record(1, BOOT, RedoPlan(1, END, (SetDirectory(path, 0o40755, 1),))))


@pytest.mark.parametrize("staged", [b"../f", b"", b".."])
def test_a_staged_name_that_is_no_name_is_refused(staged: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        newest_record(pack_record(1, BOOT, RedoPlan(1, END, (PlaceEntry(b"f", staged, None),))))


@pytest.mark.parametrize(("staged", "number"), [(b"1f.7", 0), (b"1f.7.2", 2), (b"1f.7.x", 0), (b"1f.7.2.3", 0)])
def test_a_staged_name_says_its_area(staged: bytes, number: int) -> None:
    assert area_of(staged) == number


@pytest.mark.parametrize("areas", [(), (b"build/.termite-staging-1f",)])
def test_a_plan_without_one_of_its_areas_is_refused(areas: tuple[bytes, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        newest_record(pack_record(1, BOOT, RedoPlan(1, END, (PlaceEntry(b"f", b"1f.7.2", None),), (), areas)))


def test_an_area_that_leads_out_of_the_tree_is_refused() -> None:
    with pytest.raises(FsError):
        newest_record(pack_record(1, BOOT, RedoPlan(1, END, (), (), (b"../x",))))


def test_a_plan_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo_plan, "VERSION", redo_plan.VERSION + 1)
    later = pack_record(1, BOOT, PLAN)
    monkeypatch.undo()
    with pytest.raises(RemoteProtocolError, match=f"version {redo_plan.VERSION + 1}"):
        newest_record(later)


def test_the_header_has_no_gaps() -> None:
    assert HEADER.size == 8 + 4 + 8 + 8 + 36 + 32 + 1
    assert struct.calcsize(HEADER.format) < ALIGNMENT


BODY = WHOLE[HEADER.size : SEALED]


def sealed(body: bytes) -> bytes:
    """Return a record with this body whose SHA-256 is right."""
    head = HEADER.pack(redo_plan.MAGIC, redo_plan.VERSION, 1, len(body), BOOT, b"", Outcome.OPEN.value)
    return head[: -redo_plan.SHA_BYTES - 1] + redo_plan._sha(head, body) + head[-1:] + body + bytes(DONE.size)


def test_a_sealed_body_is_a_plan() -> None:
    assert sealed(BODY) == WHOLE


@given(mutations(BODY))
def test_a_damaged_plan_with_a_right_sum_is_a_plan_or_refused(body: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError, FsError):
        record = newest_record(sealed(body))
        assert record is not None and isinstance(msgspec.to_builtins(record.plan), list | tuple)


@given(mutations(WHOLE + b"\0" * (-len(WHOLE) % ALIGNMENT) + WHOLE))
def test_a_damaged_plan_file_has_a_record_or_none(content: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        record = newest_record(content)
        assert record is None or record.plan == PLAN


@pytest.mark.parametrize("path", [b"../f", b"/f", b"d/./f"])
def test_no_path_of_a_step_leads_out_of_the_tree(path: bytes) -> None:
    for step in (PlaceEntry(b"f", b"x.1", None, path), Trash(b"f", b"x.1", STOOD, (path,))):
        with pytest.raises((FsError, RemoteProtocolError)):
            newest_record(pack_record(1, BOOT, RedoPlan(1, END, (step,))))
