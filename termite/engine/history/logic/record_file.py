"""The format of the files that keep the records of a tree.

A build has one or more *parts*, each a file `BUILD-PART.records` with an index beside it,
`BUILD-PART.index`. Both begin with a line that names their format. Then come in the records
*frames*, and in the index *entries*:

    frame: u32 length, u32 CRC-32 of the content, content: one letter (J: JobRecord,
           B: BuildRecord), then its msgpack
    entry: u32 CRC-32 of a key, u32 length of the whole frame, u64 its offset in the file

All numbers are little endian. The keys of a job are its id, its text, and the path and the last
part of each file that it wrote. Nobody sees which files a job writes that runs here: its keys are
the last parts of all words of its command that may name a file. Each frame of a build has one key.
Records are written before their entries, so that an index only lacks the last ones. A reader scans
the frames behind the last entry.

A file that was cut at any place is no error: the last frame is *torn*, and is skipped.
"""

import enum
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import msgspec

from termite.engine.history.logic.job_record import SCHEMA, BuildRecord, JobRecord, Where

RECORDS_HEAD = b"termite-records %d\n" % SCHEMA
INDEX_HEAD = b"termite-record-index 3\n"  # one with other keys counts as empty
JOB, BUILD = b"J", b"B"
MAX_FRAME_BYTES = 1024 * 1024  # a record is bounded to a fiftieth of that
_PART_NAME = re.compile(r"(\d{8,})-(\d{3,})\.records", re.ASCII)

_BETWEEN_WORDS = re.compile(r"[\s'\"`;=,()<>|&]+")

_FRAME = struct.Struct("<II")
_ENTRY = struct.Struct("<IIQ")
_KEY = struct.Struct("<I")

_encoder = msgspec.msgpack.Encoder()
_job_decoder = msgspec.msgpack.Decoder(JobRecord)
_build_decoder = msgspec.msgpack.Decoder(BuildRecord)


class Wound(enum.Enum):
    """The kind of damage of a file."""

    TORN = "torn"  # its end is missing, as after a crash
    BROKEN = "broken"  # something within it is wrong
    UNREADABLE = "unreadable"  # the system refuses to read it
    FOREIGN = "foreign"  # it is no file of this format and version


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage of a file of records at an offset, in bytes."""

    wound: Wound
    offset: int


@dataclass(frozen=True, slots=True)
class RecordFrame:
    """A whole frame: its letter, its msgpack, its offset in the file and its length."""

    kind: bytes
    content: bytes
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset of the next frame."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """The place of a frame that may have a key. Another key may have the same checksum."""

    offset: int
    length: int


def part_name(build: int, part: int) -> str:
    """Return the name of a part's file of records."""
    return f"{build:08d}-{part:03d}.records"


def part_numbers(name: str) -> tuple[int, int] | None:
    """Return the numbers of the build and of the part, or None if no file of records has this name.

    A part is older than those with higher numbers, whatever the order of the names.
    """
    found = _PART_NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def index_name(records_name: str) -> str:
    """Return the name of the index beside a file of records."""
    return records_name.removesuffix(".records") + ".index"


def pack_job(record: JobRecord) -> tuple[bytes, list[int]]:
    """Return the frame of a job's record, and the checksums of its keys."""
    keys = [id_key(record.id), text_key(record.text)]
    if files := record.files:
        names = [path.rpartition(b"/")[2] for path in files]
        keys += map(file_key, dict.fromkeys((*files, *names)))
    if record.where is Where.HERE:
        keys += map(name_key, names_in_command(record.text))
    return pack_frame(JOB, _encoder.encode(record)), keys


def pack_build(record: BuildRecord) -> tuple[bytes, list[int]]:
    """Return the frame of a build's record, and the checksum of its key."""
    return pack_frame(BUILD, _encoder.encode(record)), [BUILD_KEY]


def pack_frame(kind: bytes, content: bytes) -> bytes:
    """Return the bytes of a frame."""
    whole = kind + content
    return _FRAME.pack(len(whole), crc32(whole)) + whole


def id_key(job: int) -> int:
    """Return the checksum of the key that is a job's id."""
    return crc32(b"i%d" % job)


def text_key(text: str) -> int:
    """Return the checksum of the key that is a command's recorded text."""
    return crc32(b"t" + text.encode())


def file_key(path: bytes) -> int:
    """Return the checksum of the key that is a file below the tree, or its path's last part."""
    return crc32(b"f" + path)


def name_key(name: str) -> int:
    """Return the checksum of the key that is a name in the command of a job that ran here."""
    return crc32(b"n" + name.encode("utf-8", "backslashreplace"))


def names_in_command(text: str) -> set[str]:
    """Return the last parts of the words of a command that may name files. Options name none."""
    words = (word.removeprefix("-o") for word in words_of_command(text))
    return {word.rpartition("/")[2] for word in words if word and not word.startswith("-")}


def words_of_command(text: str) -> list[str]:
    """Return the words of a command, split at the signs of a shell, too. Some are ""."""
    return _BETWEEN_WORDS.split(text)


BUILD_KEY = crc32(b"b")


def pack_entries(keys: list[int], offset: int, length: int) -> bytes:
    """Return the entries of one frame."""
    return b"".join([_ENTRY.pack(key, length, offset) for key in keys])


def parse_frames(content: bytes, base: int = 0, words: bytes = b"") -> tuple[list[RecordFrame], Damage | None]:
    """Return the whole frames of a file that contain `words`, and the first damage, or None.

    `content` begins at the offset `base` of the file; with 0 it begins with RECORDS_HEAD. A frame
    with a wrong checksum is left out, and the frames behind it are returned. Frames without the
    words are not checked.
    """
    found = content.find(words)
    if not content or found < 0:
        return [], None
    if base == 0 and not content.startswith(RECORDS_HEAD):
        is_torn = RECORDS_HEAD.startswith(content)
        return [], Damage(Wound.TORN if is_torn else Wound.FOREIGN, 0)
    frames: list[RecordFrame] = []
    damage: Damage | None = None
    at = 0 if base else len(RECORDS_HEAD)
    while at < len(content):
        if found < at:
            found = content.find(words, at)
            if found < 0:
                break
        if words and (length := _length_before(content, at, found)):
            at += length
            continue
        length, is_whole = _measure_frame(content, at)
        if is_whole:
            frames.append(RecordFrame(content[at + 8 : at + 9], content[at + 9 : at + length], base + at, length))
        elif damage is None:
            is_last = at + length >= len(content)
            damage = Damage(Wound.TORN if length and is_last else Wound.BROKEN, base + at)
        if not length:
            break
        at += length
    return frames, damage


def _length_before(content: bytes, at: int, end: int) -> int:
    """Return the length of the frame at an offset, or 0 if it does not end before `end`."""
    if end - at < _FRAME.size:
        return 0
    (length,) = _KEY.unpack_from(content, at)
    return _FRAME.size + length if 0 < length <= min(MAX_FRAME_BYTES, end - at - _FRAME.size) else 0


def _measure_frame(content: bytes, at: int) -> tuple[int, bool]:
    """Return the length of the frame at an offset, and whether it is whole.

    The length is 0 if it cannot be right, so that nothing behind it can be read. Zeros up to the
    end count as one torn frame: a machine that lost its power may leave them.
    """
    left = len(content) - at
    if left < _FRAME.size:
        return left, False
    length, checksum = _FRAME.unpack_from(content, at)
    if not 0 < length <= MAX_FRAME_BYTES:
        return (0 if any(content[at:]) else left), False
    whole = content[at + _FRAME.size : at + _FRAME.size + length]
    return _FRAME.size + length, len(whole) == length and crc32(whole) == checksum


def parse_record(frame: RecordFrame) -> JobRecord | BuildRecord | None:
    """Return the record of a frame, or None if this version cannot read it."""
    try:
        if frame.kind == JOB:
            return _job_decoder.decode(frame.content)
        return _build_decoder.decode(frame.content) if frame.kind == BUILD else None
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: a text that is no UTF-8
        return None


def find_entries(index: bytes, key: int) -> Iterator[IndexEntry]:
    """Yield the entries with the checksum of a key, the newest first."""
    wanted, head = _KEY.pack(key), len(INDEX_HEAD)
    at = index.rfind(wanted, head)
    while at >= 0:
        if (at - head) % _ENTRY.size == 0 and at + _ENTRY.size <= len(index):
            _, length, offset = _ENTRY.unpack_from(index, at)
            yield IndexEntry(offset, length)
        at = index.rfind(wanted, head, at + _KEY.size - 1)


def read_index(index: bytes, key: int, size_bytes: int) -> tuple[list[IndexEntry], int]:
    """Return the entries with the checksum of a key, the newest first, and the end of the index.

    The end is that of `indexed_end`. If an entry cannot be right for records of `size_bytes`, the
    index counts as empty: the result is [] and 0.
    """
    last = _last_entry(index)
    if last is None:
        return [], 0
    entries = list(find_entries(index, key))
    head, lengths = len(RECORDS_HEAD), range(_FRAME.size + 1, _FRAME.size + MAX_FRAME_BYTES + 1)
    for entry in (last, *entries):
        if entry.length not in lengths or not head <= entry.offset <= size_bytes - entry.length:
            return [], 0
    return entries, indexed_end(index)


def indexed_end(index: bytes) -> int:
    """Return the offset behind the last frame that has an entry, in bytes. 0: there is none.

    The result is 0, too, if the index has another format.
    """
    last = _last_entry(index)
    return last.offset + last.length if last else 0


def _last_entry(index: bytes) -> IndexEntry | None:
    head = len(INDEX_HEAD)
    whole = (len(index) - head) // _ENTRY.size
    if not index.startswith(INDEX_HEAD) or whole < 1:
        return None
    _, length, offset = _ENTRY.unpack_from(index, head + (whole - 1) * _ENTRY.size)
    return IndexEntry(offset, length)
