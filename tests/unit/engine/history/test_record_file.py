"""Frames and entries of record files: round trips, and files that were cut or changed anywhere."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.history.logic.job_record import BuildRecord, JobRecord
from termite.engine.history.logic.record_file import (
    BUILD_KEY,
    INDEX_HEAD,
    RECORDS_HEAD,
    IndexEntry,
    Wound,
    file_key,
    find_entries,
    id_key,
    indexed_end,
    pack_build,
    pack_entries,
    pack_frame,
    pack_job,
    parse_frames,
    parse_record,
    part_name,
    text_key,
)
from tests.synthetic_builds import EVERY_KIND, synthetic_build
from tests.unit.mutations import mutations

BUILD, JOBS = synthetic_build(EVERY_KIND)
RECORDS: list[JobRecord | BuildRecord] = [BUILD, *JOBS, BUILD]
PACKED = [pack_job(record) if isinstance(record, JobRecord) else pack_build(record) for record in RECORDS]
CONTENT = RECORDS_HEAD + b"".join(frame for frame, _ in PACKED)
ENDS = [len(RECORDS_HEAD)]
for packed_frame, _ in PACKED:
    ENDS.append(ENDS[-1] + len(packed_frame))
INDEX = INDEX_HEAD + b"".join(
    pack_entries(keys, start, len(frame)) for (frame, keys), start in zip(PACKED, ENDS, strict=False)
)


def read_all(content: bytes) -> list[JobRecord | BuildRecord | None]:
    return [parse_record(frame) for frame in parse_frames(content)[0]]


def test_what_was_packed_is_parsed() -> None:
    frames, damage = parse_frames(CONTENT)
    assert damage is None
    assert [parse_record(frame) for frame in frames] == RECORDS
    assert [frame.end for frame in frames] == ENDS[1:]


def test_a_file_cut_at_any_offset_loses_only_its_last_record_and_says_so() -> None:
    short = CONTENT[: ENDS[4]]
    for size in range(len(short) + 1):
        frames, damage = parse_frames(short[:size])
        whole = sum(end <= size for end in ENDS[1:])
        assert [parse_record(frame) for frame in frames] == RECORDS[:whole]
        is_at_an_end = size in ENDS or size == 0
        assert (damage is None) == is_at_an_end, size
        if damage:
            assert damage.wound is Wound.TORN
            assert damage.offset == max([0, *(end for end in ENDS if end <= size)])


def test_a_search_finds_the_frames_that_contain_the_words_wherever_a_file_ends() -> None:
    for words in (b"gcc", b"file2.o", b"alert(1)", b"expected", b"\x00", b"not there"):
        for size in range(len(CONTENT), 0, -97):
            frames, _ = parse_frames(CONTENT[:size])
            wanted = [frame for frame in frames if words in frame.content]
            found, damage = parse_frames(CONTENT[:size], 0, words)
            assert [frame for frame in found if words in frame.content] == wanted
            assert damage is None or size not in ENDS


def test_a_file_that_ends_with_zeros_is_torn() -> None:
    frames, damage = parse_frames(CONTENT + bytes(5000))
    assert len(frames) == len(RECORDS)
    assert damage and damage.wound is Wound.TORN and damage.offset == len(CONTENT)


def test_a_broken_frame_is_left_out_and_those_behind_it_are_read() -> None:
    at = ENDS[2] + 20
    content = CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :]
    frames, damage = parse_frames(content)
    assert [parse_record(frame) for frame in frames] == RECORDS[:2] + RECORDS[3:]
    assert damage and damage.wound is Wound.BROKEN and damage.offset == ENDS[2]


def test_a_wrong_length_ends_the_reading() -> None:
    content = CONTENT[: ENDS[2]] + b"\xff\xff\xff\xff" + CONTENT[ENDS[2] + 4 :]
    frames, damage = parse_frames(content)
    assert len(frames) == 2
    assert damage and damage.wound is Wound.BROKEN


def test_a_file_of_another_version_is_not_read() -> None:
    frames, damage = parse_frames(b"termite-records 999\n" + CONTENT[len(RECORDS_HEAD) :])
    assert frames == []
    assert damage and damage.wound is Wound.FOREIGN


@given(mutations(CONTENT))
def test_damage_never_makes_a_record_that_was_not_written(content: bytes) -> None:
    assert all(record in RECORDS for record in read_all(content))


def test_a_part_can_be_read_from_an_offset_on() -> None:
    frames, damage = parse_frames(CONTENT[ENDS[3] :], ENDS[3])
    assert damage is None
    assert [parse_record(frame) for frame in frames] == RECORDS[3:]
    assert frames[0].offset == ENDS[3]


def test_the_index_finds_a_job_by_its_id_its_text_and_its_files() -> None:
    job = next(job for job in JOBS if job.files)
    place = RECORDS.index(job)
    expected = IndexEntry(ENDS[place], ENDS[place + 1] - ENDS[place])
    for key in (id_key(job.id), text_key(job.text), file_key(job.files[0])):
        assert expected in list(find_entries(INDEX, key))
    assert [entry.offset for entry in find_entries(INDEX, BUILD_KEY)] == [ENDS[-2], ENDS[0]]
    assert list(find_entries(INDEX, id_key(10**6))) == []


@given(st.integers(0, len(INDEX)))
def test_a_cut_index_covers_what_it_still_has(size: int) -> None:
    end = indexed_end(INDEX[:size])
    assert end == 0 or end in ENDS
    for key in (BUILD_KEY, id_key(JOBS[0].id)):
        assert all(entry.offset + entry.length <= end for entry in find_entries(INDEX[:size], key))
    assert indexed_end(INDEX) == len(CONTENT)
    assert indexed_end(b"x" + INDEX) == 0


def test_a_record_of_a_later_version_with_more_fields_is_read() -> None:
    job = JOBS[0]
    content = msgspec.msgpack.encode([*msgspec.msgpack.decode(msgspec.msgpack.encode(job)), "new", 1])
    frames, _ = parse_frames(RECORDS_HEAD + pack_frame(b"J", content))
    assert parse_record(frames[0]) == job


def test_a_record_of_an_earlier_version_with_fewer_fields_is_read() -> None:
    job = JobRecord(id=7, build=1, text="cc", cwd="/")
    content = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(job))[:6])
    frames, _ = parse_frames(RECORDS_HEAD + pack_frame(b"J", content))
    assert parse_record(frames[0]) == job


def test_a_frame_of_an_unknown_kind_is_skipped() -> None:
    frames, damage = parse_frames(RECORDS_HEAD + pack_frame(b"Z", b"x") + PACKED[0][0])
    assert damage is None
    assert [parse_record(frame) for frame in frames] == [None, BUILD]


def test_parts_sort_by_their_names() -> None:
    assert part_name(9, 1) < part_name(10, 0) < part_name(10, 1) < part_name(100, 0)
