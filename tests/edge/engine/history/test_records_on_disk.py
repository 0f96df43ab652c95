"""The files of a tree's history: written by a master, read by others, damaged by a crash."""

import errno
import fcntl
import os
import re
import struct
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from termite.engine.history import past_builds, record_writer
from termite.engine.history.logic.job_record import NOT_KNOWN, BuildCounts, Where
from termite.engine.history.logic.kept_parts import BUILDS_KEPT
from termite.engine.history.logic.record_file import (
    INDEX_HEAD,
    RECORDS_HEAD,
    Damage,
    RecordFrame,
    Wound,
    id_key,
    index_name,
    parse_frames,
    part_name,
)
from termite.engine.history.master_mark import has_ended, own_mark
from termite.engine.history.past_builds import PastBuilds
from termite.engine.history.record_writer import PackedRecords, RecordWriter
from termite.engine.history.writing_lock import is_written
from tests.synthetic_builds import SyntheticBuild, synthetic_build, synthetic_history, write_history


def records_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.records"))


def test_a_build_of_a_thousand_jobs_is_read_as_it_was_written(tmp_path: Path) -> None:
    synthetic = synthetic_build(1000)
    write_history(tmp_path / "a" / "tree", [synthetic])
    past = PastBuilds(tmp_path / "a" / "tree")
    assert past.builds() == [synthetic.build]
    assert past.jobs(1) == synthetic.jobs
    job = synthetic.jobs[777]
    assert past.job(job.id) == job
    assert past.job(1001) is None
    assert [found.id for found in past.made(b"build/file500.o")] == [500]
    assert past.made(b"build/file") == []
    assert past.ran(job.text) == [other for other in reversed(synthetic.jobs) if other.text == job.text]
    assert [found.id for found in past.containing("file500.c ")] == [500]
    assert past.damages == []


def test_the_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_history(tmp_path / "tree", [synthetic_build(1)])
    finally:
        os.umask(old)
    assert (tmp_path / "tree").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tree").iterdir()} == {0o600}


def test_a_tree_without_records_has_no_builds(tmp_path: Path) -> None:
    past = PastBuilds(tmp_path / "nothing")
    assert (past.builds(), past.jobs(1), past.job(1), past.made(b"x")) == ([], [], None, [])


def test_only_the_last_builds_stay_and_ids_go_on(tmp_path: Path) -> None:
    history = synthetic_history(BUILDS_KEPT + 5, 3)
    write_history(tmp_path, history)
    past = PastBuilds(tmp_path)
    assert [build.id for build in past.builds()] == list(range(BUILDS_KEPT + 5, 5, -1))
    assert past.job(history[0].jobs[0].id) is None
    assert past.job(history[-1].jobs[0].id) == history[-1].jobs[0]
    writer = RecordWriter(tmp_path)
    assert (writer.last_build, writer.last_job) == (BUILDS_KEPT + 5, 3 * (BUILDS_KEPT + 5))


def test_the_newest_job_that_made_a_file_comes_first(tmp_path: Path) -> None:
    first = synthetic_build(20, 1)
    second = SyntheticBuild(
        msgspec.structs.replace(first.build, id=2),
        [msgspec.structs.replace(job, id=job.id + 20, build=2) for job in first.jobs],
    )
    write_history(tmp_path, [first, second])
    assert [job.build for job in PastBuilds(tmp_path).made(b"build/file20.o")] == [2, 1]


def test_a_large_build_has_several_parts_of_which_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_writer, "PART_BYTES", 2000)
    synthetic = synthetic_build(40)
    writer = RecordWriter(tmp_path)
    writer.start(1)
    for job in synthetic.jobs:
        packed = PackedRecords(1)
        packed.add(job)
        writer.write(packed)
    writer.close()
    assert len(records_in(tmp_path)) > 3
    assert PastBuilds(tmp_path).jobs(1) == synthetic.jobs
    assert PastBuilds(tmp_path).job(synthetic.jobs[0].id) == synthetic.jobs[0]


def test_a_crash_at_any_offset_loses_only_the_last_record(tmp_path: Path) -> None:
    synthetic = synthetic_build(6)
    write_history(tmp_path, [synthetic])
    (records,) = records_in(tmp_path)
    index = records.with_suffix(".index")
    whole, entries = records.read_bytes(), index.read_bytes()
    seen = set()
    for size in range(len(whole), 0, -29):
        records.write_bytes(whole[:size])
        # A crash of the machine may keep entries whose records are lost, or lose more entries.
        for kept in (entries, entries[: size * len(entries) // len(whole)], b""):
            index.write_bytes(kept)
            past = PastBuilds(tmp_path)
            jobs = past.jobs(1)
            seen.add(len(jobs))
            assert jobs == synthetic.jobs[: len(jobs)]
            assert len(past.damages) <= 1
            for job in synthetic.jobs:
                assert past.job(job.id) == (job if job in jobs else None)
            if jobs:
                assert [build.id for build in past.builds()] == [1]
    assert seen == set(range(7))
    assert RecordWriter(tmp_path).last_build == 1


def test_a_job_is_found_by_number_path_and_name_without_reading_the_records_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_history(tmp_path, synthetic_history(3, 200))
    whole_bytes = sum(path.stat().st_size for path in records_in(tmp_path))
    parsed: list[int] = []

    def parse(content: bytes, base: int = 0, words: bytes = b"") -> tuple[list[RecordFrame], Damage | None]:
        parsed.append(len(content))
        return parse_frames(content, base, words)

    monkeypatch.setattr(past_builds, "parse_frames", parse)
    past = PastBuilds(tmp_path)
    assert past.files_of_name(b"file470.o") == [b"build/file470.o"]
    assert past.files_of_name(b"file47") == past.files_of_name(b"") == []
    assert [job.id for job in past.made(b"build/file470.o")] == [470] == [past.job(470).id]  # type: ignore[union-attr]
    assert list(past.naming("file470.c")) == [] == list(past.naming("-c")), "it ran on a worker"
    (here, *_) = [job for job in past.jobs(2) if job.where is Where.HERE and ".c" in job.text]
    parsed.clear()
    name = re.findall(r"(file\d+\.c)", here.text)[0]
    assert here in list(past.naming(name))
    assert 0 < sum(parsed) < whole_bytes / 50
    for index in tmp_path.glob("*.index"):  # of a version that had other keys
        index.write_bytes(index.read_bytes().replace(INDEX_HEAD, b"termite-record-index 1\n"))
    assert past.files_of_name(b"file470.o") == [b"build/file470.o"]
    assert here in list(past.naming(name))


@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize(("length", "offset"), [(2**32 - 1, 23), (100, 2**64 - 1), (100, 2**40), (0, 0), (4, 23)])
def test_an_entry_that_cannot_be_right_counts_as_no_index(
    tmp_path: Path, is_last: bool, length: int, offset: int
) -> None:
    write_history(tmp_path, [synthetic := synthetic_build(6)])
    (records,) = records_in(tmp_path)
    index = records.with_suffix(".index")
    job = synthetic.jobs[2]
    wrong = struct.pack("<IIQ", id_key(job.id), length, offset)
    right = index.read_bytes()
    index.write_bytes(right + wrong if is_last else right[: -len(wrong)] + wrong + right[-len(wrong) :])
    past = PastBuilds(tmp_path)
    assert past.builds() == [synthetic.build]
    assert past.job(job.id) == job
    assert past.ran(job.text)[-1] == next(other for other in synthetic.jobs if other.text == job.text)
    assert past.damages == []


def test_a_torn_record_is_said(tmp_path: Path) -> None:
    write_history(tmp_path, [synthetic_build(6)])
    (records,) = records_in(tmp_path)
    records.write_bytes(records.read_bytes()[:-3])
    past = PastBuilds(tmp_path)
    past.jobs(1)
    assert [(found.path, found.damage.wound) for found in past.damages] == [(records, Wound.TORN)]


@pytest.mark.logs("records-damaged")
def test_a_file_that_is_not_ours_is_set_aside_by_the_next_master(tmp_path: Path) -> None:
    write_history(tmp_path, synthetic_history(2, 5))
    first, _ = records_in(tmp_path)
    first.write_bytes(b"something else")
    past = PastBuilds(tmp_path)
    assert past.jobs(1) == [] and past.damages[0].damage.wound is Wound.FOREIGN
    RecordWriter(tmp_path).close()
    assert not first.exists()
    assert first.with_name(first.name + ".damaged").read_bytes() == b"something else"
    assert [build.id for build in PastBuilds(tmp_path).builds()] == [2]


@pytest.mark.parametrize("is_torn", [False, True])
def test_a_build_whose_master_was_killed_ends_with_its_last_record(tmp_path: Path, is_torn: bool) -> None:
    write_history(tmp_path, [synthetic_build(3, number=1)])
    synthetic = synthetic_build(40, number=2)
    writer = RecordWriter(tmp_path)
    writer.start(2)
    packed = PackedRecords(2)
    begun = {"ended_s": 0.0, "exit_code": NOT_KNOWN, "jobs": 0, "last_job": 0, "counts": BuildCounts()}
    packed.add(msgspec.structs.replace(synthetic.build, **begun))
    for job in synthetic.jobs:
        packed.add(job)
    writer.write(packed)
    assert PastBuilds(tmp_path).builds()[0].ended_s == 0.0, "its master runs"
    writer.close()  # as its end does
    if is_torn:
        with records_in(tmp_path)[-1].open("ab") as records:
            records.write(_frame(synthetic, 0)[:-1])
    last_s = synthetic.jobs[-1].home_s
    whole = {"ended_s": last_s, "exit_code": NOT_KNOWN, "is_cut_off": True}
    ended = msgspec.structs.replace(synthetic.build, **whole)
    past = PastBuilds(tmp_path)
    assert past.builds()[0] == ended
    assert [one.damage.wound for one in past.damages] == [Wound.TORN] * is_torn
    next_writer = RecordWriter(tmp_path)
    assert (next_writer.last_build, next_writer.last_job, next_writer.past[0]) == (2, 40, ended)
    assert PastBuilds(tmp_path).builds() == [ended, synthetic_build(3, number=1).build], "while it writes"
    assert PastBuilds(tmp_path).jobs(2) == synthetic.jobs
    next_writer.close()
    files = sorted(tmp_path.iterdir())
    RecordWriter(tmp_path).close()
    assert sorted(tmp_path.iterdir()) == files, "once is enough"


@pytest.mark.logs("records-not-written")
def test_a_full_disk_leaves_a_cut_off_build_to_the_next_master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic = synthetic_build(3)
    writer = RecordWriter(tmp_path)
    writer.start(1)
    packed = PackedRecords(1)
    packed.add(msgspec.structs.replace(synthetic.build, ended_s=0.0))
    writer.write(packed)
    writer.close()
    with monkeypatch.context() as patched:
        _fill_disk(patched, "head")
        writer = RecordWriter(tmp_path)
        assert writer.past[0].is_cut_off
        writer.close()
    RecordWriter(tmp_path).close()
    assert PastBuilds(tmp_path).builds()[0].ended_s == synthetic.build.started_s, "it has no job"


def test_what_is_no_file_of_records_is_left_alone(tmp_path: Path) -> None:
    write_history(tmp_path, synthetic_history(2, 3))
    (tmp_path / part_name(3, 0)).symlink_to("/etc/passwd")
    (tmp_path / part_name(4, 0)).mkdir()
    os.mkfifo(tmp_path / part_name(5, 0))
    (index := tmp_path / index_name(part_name(1, 0))).unlink()
    os.mkfifo(index)
    assert [build.id for build in PastBuilds(tmp_path).builds()] == [2, 1]
    writer = RecordWriter(tmp_path)
    assert writer.last_build == 2 and not writer.start(3) and writer.start(7)
    writer.close()
    assert (tmp_path / part_name(3, 0)).is_symlink() and (tmp_path / part_name(4, 0)).is_dir()


def test_a_part_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(tmp_path, synthetic_history(2, 3))
    real = os.open

    def refuse(path: Path, flags: int) -> int:
        if path.name == part_name(2, 0):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    past = PastBuilds(tmp_path)
    assert [build.id for build in past.builds()] == [1]
    assert [damaged.damage.wound for damaged in past.damages] == [Wound.UNREADABLE]
    assert past.job(2) is not None and past.job(5) is None


def test_readers_that_ask_for_the_lock_hold_no_master_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RecordWriter(tmp_path).close()
    reader = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(reader))
    writer = RecordWriter(tmp_path)
    assert is_written(tmp_path)
    writer.close()
    assert not is_written(tmp_path) and not is_written(tmp_path / "nothing")


def test_a_full_disk_leaves_whole_records_and_later_ones_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic = synthetic_build(3)
    writer = RecordWriter(tmp_path)
    writer.start(1)
    real, room = os.write, [100]

    def write_some(fd: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, content[: room[0]])
        room[0] -= written
        return written

    def write(index: int) -> None:
        packed = PackedRecords(1)
        packed.add(synthetic.jobs[index])
        writer.write(packed)

    write(0)
    for left in (100, len(_frame(synthetic, 1)) + 5):  # the records do not fit, then the index does not
        room[0] = left
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write_some)
            with pytest.raises(OSError, match="No space"):
                write(1)
        assert PastBuilds(tmp_path).jobs(1) == synthetic.jobs[:1]
    write(2)
    past = PastBuilds(tmp_path)
    assert past.jobs(1) == [synthetic.jobs[0], synthetic.jobs[2]]
    assert past.job(synthetic.jobs[2].id) == synthetic.jobs[2]
    assert past.damages == []
    writer.close()


@pytest.mark.parametrize("fails_at", ["records", "index", "head", "head of the index"])
def test_a_part_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    write_history(tmp_path, synthetic_history(BUILDS_KEPT, 2))
    before = sorted(path.name for path in tmp_path.iterdir())
    writer = RecordWriter(tmp_path)
    build = BUILDS_KEPT + 1
    for _ in range(BUILDS_KEPT + 1):
        with monkeypatch.context() as patched:
            _fill_disk(patched, fails_at)
            with pytest.raises(OSError, match="No space"):
                writer.start(build)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert writer.start(build), "the number is still free"
    writer.close()
    assert [build.id for build in PastBuilds(tmp_path).builds()] == list(range(BUILDS_KEPT, 1, -1))


def test_a_build_goes_on_in_its_next_part_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic = synthetic_build(12)
    writer = RecordWriter(tmp_path)
    writer.start(1)
    _write_each(writer, synthetic, 0, 6)
    monkeypatch.setattr(record_writer, "PART_BYTES", 1)
    with monkeypatch.context() as patched:
        _fill_disk(patched, "head")
        with pytest.raises(OSError, match="No space"):
            _write_each(writer, synthetic, 6, 7)
    _write_each(writer, synthetic, 7, 12)
    writer.close()
    assert PastBuilds(tmp_path).jobs(1) == [*synthetic.jobs[:6], *synthetic.jobs[7:]]


def test_parts_beyond_the_thousandth_are_read_in_their_order_and_evicted(tmp_path: Path) -> None:
    synthetic = synthetic_build(3)
    write_history(tmp_path, [synthetic_build(1)])
    records = records_in(tmp_path)[0]
    for number, job in zip((998, 999, 1000), synthetic.jobs, strict=True):
        packed = PackedRecords(1)
        packed.add(job)
        (tmp_path / part_name(1, number)).write_bytes(RECORDS_HEAD + packed.frames[0])
    records.unlink()
    assert PastBuilds(tmp_path).jobs(1) == synthetic.jobs
    write_history(tmp_path, synthetic_history(BUILDS_KEPT + 1, 1)[1:])
    assert not list(tmp_path.glob("00000001-*.records"))


def test_parts_without_a_record_drive_no_build_out(tmp_path: Path) -> None:
    write_history(tmp_path, synthetic_history(3, 2))
    for build in range(4, BUILDS_KEPT + 20):
        (tmp_path / part_name(build, 0)).write_bytes(RECORDS_HEAD if build % 2 else b"")
    writer = RecordWriter(tmp_path)
    assert writer.start(writer.last_build + 1)
    writer.close()
    assert [build.id for build in PastBuilds(tmp_path).builds()] == [3, 2, 1]


def test_an_index_without_records_is_replaced(tmp_path: Path) -> None:
    (tmp_path / index_name(part_name(1, 0))).write_bytes(b"left over")
    write_history(tmp_path, [synthetic := synthetic_build(5)])
    job = synthetic.jobs[2]
    assert PastBuilds(tmp_path).job(job.id) == job


def test_one_master_of_a_tree_writes(tmp_path: Path) -> None:
    one = RecordWriter(tmp_path)
    with pytest.raises(BlockingIOError, match="another master"):
        RecordWriter(tmp_path)
    one.close()
    RecordWriter(tmp_path).close()


def test_a_number_is_taken_once_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    one, other = RecordWriter(tmp_path), RecordWriter(tmp_path)
    assert one.start(1)
    assert not other.start(1)
    assert other.last_build == 1
    assert other.start(2)
    one.close()
    other.close()


def test_a_build_of_a_killed_master_ends_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    mark = own_mark()
    assert mark is not None and mark.pid == os.getpid() and not has_ended(mark)
    with subprocess.Popen(["sleep", "60"]) as killed:
        start = int(Path(f"/proc/{killed.pid}/stat").read_text().rpartition(")")[2].split()[19])
        other = msgspec.structs.replace(mark, pid=killed.pid, start=start)
        assert not has_ended(other)
        killed.kill()
        while not has_ended(other):  # a process that nobody has waited for has ended, too
            time.sleep(0.01)
    marks = {
        1: (None, False),
        2: (mark, False),
        3: (other, True),
        4: (msgspec.structs.replace(mark, start=mark.start + 1), True),  # another process has the number now
        5: (msgspec.structs.replace(mark, boot="earlier"), True),
        6: (msgspec.structs.replace(mark, host="elsewhere", pid=killed.pid), False),
        7: (msgspec.structs.replace(mark, pids=mark.pids + 1, pid=killed.pid), False),
    }
    writer = RecordWriter(tmp_path)
    for number, (one, _) in marks.items():
        build, jobs = synthetic_build(3, number=number)
        assert writer.start(number)
        packed = PackedRecords(number)
        packed.add(msgspec.structs.replace(build, ended_s=0.0, jobs=0, counts=BuildCounts(), master=one))
        for job in jobs:
            packed.add(job)
        writer.write(packed)
    writer.close()
    shown = {build.id: build for build in PastBuilds(tmp_path).builds()}
    assert {number: build.is_cut_off for number, build in shown.items()} == {n: ends for n, (_, ends) in marks.items()}
    assert shown[3].jobs == 3 and shown[2].ended_s == 0.0
    RecordWriter(tmp_path).close()  # the next master writes these ends, and no others
    written = {build.id: build for build in PastBuilds(tmp_path).written_builds()}
    assert written == shown


def _write_each(writer: RecordWriter, synthetic: SyntheticBuild, begin: int, end: int) -> None:
    for job in synthetic.jobs[begin:end]:
        packed = PackedRecords(synthetic.build.id)
        packed.add(job)
        writer.write(packed)


def _fill_disk(patched: pytest.MonkeyPatch, fails_at: str) -> None:
    """Let one step fail of those that make a part."""
    open_file, write = os.open, os.write

    def opened(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if str(path).endswith(fails_at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_file(path, flags, mode, dir_fd=dir_fd)

    def written(fd: int, content: bytes) -> int:
        if content == {"head": RECORDS_HEAD, "head of the index": INDEX_HEAD}.get(fails_at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, content)

    patched.setattr(os, "open", opened)
    patched.setattr(os, "write", written)


def _frame(synthetic: SyntheticBuild, index: int) -> bytes:
    packed = PackedRecords(1)
    packed.add(synthetic.jobs[index])
    return packed.frames[0]
