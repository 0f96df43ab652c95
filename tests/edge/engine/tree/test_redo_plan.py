"""The format of the plan: whole, cut at every offset, and with each byte changed."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.tree.logic import redo_plan
from termite.engine.tree.logic.redo_plan import (
    ALIGNMENT,
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
    newest_record,
    pack_record,
)
from termite.engine.tree.publishing.plan_file import FoundPlan, IsTold, PlanFile, lock, read_whole

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


def test_a_plan_comes_back_as_it_was() -> None:
    record = newest_record(WHOLE)
    assert record is not None
    assert (record.plan, record.outcome, record.boot_id, record.number) == (PLAN, Outcome.OPEN, BOOT, 1)
    assert record.end_of(END.token) == END
    assert record.end_of(EARLIER.token) == EARLIER
    assert record.end_of(b"\3" * 8) is None


def test_what_comes_after_it_means_nothing() -> None:
    assert newest_record(WHOLE + b"rubbish") == newest_record(WHOLE)
    assert newest_record(b"") is None


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_plan_that_was_cut_is_none(length: int) -> None:
    assert newest_record(WHOLE[:length]) is None
    assert newest_record(WHOLE[:length] + b"\xff" * (len(WHOLE) - length)) is None


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_a_plan_with_a_changed_byte_is_none(at: int) -> None:
    changed = bytearray(WHOLE)
    changed[at] ^= 0xFF
    if at == OUTCOME_AT:
        with pytest.raises(RemoteProtocolError):
            newest_record(bytes(changed))
    else:
        assert newest_record(bytes(changed)) is None


@pytest.mark.parametrize("path", [b"../f", b"/f", b"d//f", b"d/.", b"\0"])
def test_a_plan_that_leads_out_of_the_tree_is_refused(path: bytes) -> None:
    with pytest.raises(FsError):
        newest_record(pack_record(1, BOOT, RedoPlan(1, END, (SetDirectory(path, 0o40755, 1),))))


@pytest.mark.parametrize("staged", [b"../f", b"", b".."])
def test_a_staged_name_that_is_no_name_is_refused(staged: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        newest_record(pack_record(1, BOOT, RedoPlan(1, END, (PlaceEntry(b"f", staged, None),))))


def test_a_plan_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo_plan, "VERSION", 2)
    later = pack_record(1, BOOT, PLAN)
    monkeypatch.undo()
    with pytest.raises(RemoteProtocolError, match="version 2"):
        newest_record(later)


def test_the_header_has_no_gaps() -> None:
    assert HEADER.size == 8 + 4 + 8 + 8 + 36 + 32 + 1
    assert struct.calcsize(HEADER.format) < ALIGNMENT


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def content_of(plan: PlanFile, staging: int) -> bytes:
    fd = os.open(plan.name, os.O_RDONLY, dir_fd=staging)
    try:
        return read_whole(fd)
    finally:
        os.close(fd)


def end(number: int) -> JobEnd:
    return JobEnd(number.to_bytes(8, "big"), 0, 0, 0, b"")


def test_a_torn_plan_leaves_the_ends_of_earlier_jobs(staging: int) -> None:
    plan = PlanFile(staging)
    told: set[int] = set()

    def is_told(number: int) -> IsTold:
        return lambda: number in told

    for number in range(1, 8):
        before = content_of(plan, staging)
        steps = tuple(SetDirectory(b"d" * 100, 0o40755, n) for n in range(number % 3 * 20))
        plan.begin(end(number), is_told(number), steps)
        after = content_of(plan, staging)
        length = max(len(before), len(after))
        differing = [at for at in range(length) if before[at : at + 1] != after[at : at + 1]]
        torn = differing[len(differing) // 2]
        record = newest_record(after[:torn] + before[torn:])
        if number > 1:
            assert record is not None and record.end_of(end(number - 1).token) == end(number - 1)
            assert record.end_of(end(number).token) is None
        plan.end(Outcome.DONE, end(number))
        record = newest_record(content_of(plan, staging))
        assert record is not None and record.outcome is Outcome.DONE
        assert all(record.end_of(end(n).token) for n in range(1, number + 1) if n not in told)
        if number == 4:
            told |= {1, 2, 3, 4}
    assert len(content_of(plan, staging)) < 20_000
    assert not plan.close(), "launchers may ask for it"


def test_the_file_does_not_grow_with_the_jobs(staging: int) -> None:
    plan = PlanFile(staging)
    for number in range(1000):
        plan.begin(end(number), lambda: True, STEPS)
        plan.end(Outcome.DONE, end(number))
    assert len(content_of(plan, staging)) < 4 * ALIGNMENT
    assert plan.close()
    assert os.listdir(staging) == []


def test_the_file_is_locked_until_it_is_closed(staging: int) -> None:
    plan = PlanFile(staging)
    plan.begin(END, lambda: False, STEPS)
    fd = os.open(plan.name, os.O_RDWR, dir_fd=staging)
    assert not lock(fd, wait=False)
    plan.close()
    assert lock(fd, wait=False)
    found = FoundPlan(plan.name, fd)
    assert found.is_of_this_boot and found.label == plan.label
    os.close(fd)
