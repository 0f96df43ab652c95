"""The lines between a worker and its mirrors, which one splitter and one schema check."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import Reason, RemoteProtocolError
from termite.engine.model import MachineFacts
from termite.engine.wire.protocol.control_lines import (
    LINE_BYTES,
    LineSplitter,
    MirrorNotice,
    StartValues,
    WorkerOrder,
    decode_line,
    encode_line,
)
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

START = StartValues(3, 4, "c", "k", "a", "w", "/cache\udcff", "/scratch", True, "/sandbox", MachineFacts())


def split(*pieces: bytes) -> list[bytes]:
    splitter = LineSplitter()
    lines = []
    for piece in pieces:
        splitter.feed(piece)
        while (line := splitter.next_line()) is not None:
            lines.append(line)
    return lines


def test_lines_are_the_same_however_the_bytes_are_cut() -> None:
    stream = b"one\n\ntwo\nthree"
    whole = split(stream)
    assert whole == [b"one", b"", b"two"]
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert split(stream[:cut], stream[cut:]) == whole


def test_a_line_of_the_limit_is_taken_and_a_longer_one_is_refused() -> None:
    assert split(b"x" * LINE_BYTES, b"\n") == [b"x" * LINE_BYTES]
    with pytest.raises(RemoteProtocolError):
        split(b"x" * LINE_BYTES, b"x\n")
    with pytest.raises(RemoteProtocolError):
        split(b"short\n" + b"x" * (LINE_BYTES + 1))


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (MirrorNotice(lease=4, master="m"), b'{"lease": 4, "master": "m"}\n'),
        (MirrorNotice(running=0, jobs=7), b'{"running": 0, "jobs": 7}\n'),
        (
            MirrorNotice(unfit=Reason.DISK_FULL, detail="d", hint="h"),
            b'{"unfit": "disk-full", "detail": "d", "hint": "h"}\n',
        ),
        (WorkerOrder(granted=0), b'{"granted": 0}\n'),
        (WorkerOrder(slots=2), b'{"slots": 2}\n'),
    ],
)
def test_a_line_has_only_the_keys_that_it_is_about(message: msgspec.Struct, line: bytes) -> None:
    assert encode_line(message) == line
    assert decode_line(line[:-1], type(message)) == message


def test_start_values_are_written_whole() -> None:
    values = msgspec.structs.replace(START, cache="/cache")
    assert set(msgspec.json.decode(encode_line(values))) == set(StartValues.__struct_fields__)
    assert decode_line(encode_line(values), StartValues) == values


def test_a_path_that_is_no_utf_8_is_no_error_of_the_process_that_writes_it() -> None:
    assert b"\\udcff" in encode_line(START)


@each_row(
    "line",
    [
        b"",
        b"nonsense",
        b"[1]",
        b'{"lease": "many"}',
        b'{"lease": -5}',
        b'{"jobs": -1}',
        b'{"master": "a\\nb"}',
        b"\xff",
    ],
)
def test_a_line_that_is_no_notice_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_line(line, MirrorNotice)


def test_a_line_nested_too_deep_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_line(b'{"other": ' + b"[" * 60_000, MirrorNotice)


@given(st.binary())
def test_no_line_does_anything_but_decode_or_be_refused(line: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode_line(line, MirrorNotice)


@given(mutations(encode_line(msgspec.structs.replace(START, cache="/cache"))))
def test_damaged_lines_are_decoded_or_refused(damaged: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        for line in split(damaged):
            assert isinstance(decode_line(line, StartValues), StartValues)
