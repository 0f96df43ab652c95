"""Test the frames and fields of launchers with each cut and with random bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_all, pack_fields, parse_fields
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

SENT = launcher_frames.frame(
    launcher_frames.INVOKE, pack_fields([("arg", b"x\n\xff"), ("arg", b""), ("env", b"A=b=c")])
)
STREAM = SENT + launcher_frames.frame(launcher_frames.CANCEL) + SENT


def test_frames_come_out_whole_wherever_the_bytes_are_cut() -> None:
    whole = launcher_frames.FrameBuffer().feed(STREAM)
    assert [kind for kind, _ in whole] == [b"I", b"K", b"I"]
    for cut in range(len(STREAM) + 1):
        frames = launcher_frames.FrameBuffer()
        assert frames.feed(STREAM[:cut]) + frames.feed(STREAM[cut:]) == whole
    frames = launcher_frames.FrameBuffer()
    assert [found for at in range(len(STREAM)) for found in frames.feed(STREAM[at : at + 1])] == whole


def test_fields_keep_their_order_and_every_byte() -> None:
    ((_, payload),) = launcher_frames.FrameBuffer().feed(SENT)
    assert list(parse_fields(payload)) == [("arg", b"x\n\xff"), ("arg", b""), ("env", b"A=b=c")]


@pytest.mark.parametrize("payload", [b"a=b", b"ab\0", b"\0", b"a=b\0c"])
def test_what_is_no_field_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(parse_fields(payload))


def test_a_frame_too_large_is_refused_before_it_has_come() -> None:
    with pytest.raises(RemoteProtocolError):
        launcher_frames.FrameBuffer(limit_bytes=10).feed(launcher_frames.frame(b"I", b"x" * 11)[:5])


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_taken_for_frames_but_breaks_nothing(garbage: bytes) -> None:
    try:
        for _, payload in launcher_frames.FrameBuffer().feed(garbage):
            list(parse_fields(payload))
    except RemoteProtocolError:
        pass


@given(st.lists(st.tuples(st.text("ab=\0_", max_size=4), st.binary(max_size=6)), max_size=4))
def test_what_is_packed_comes_out_as_it_was_or_is_not_packed(pairs: list[tuple[str, bytes]]) -> None:
    is_clean = all("=" not in key and "\0" not in key and b"\0" not in content for key, content in pairs)
    try:
        packed = pack_fields(pairs)
    except ValueError:
        assert not is_clean
    else:
        assert is_clean
        assert list(parse_fields(packed)) == pairs


@given(st.text("ab=\0_", min_size=1, max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_a_whole_list_is_packed_as_one_by_one(key: str, contents: list[bytes]) -> None:
    try:
        one_by_one = pack_fields((key, content) for content in contents)
    except ValueError:
        with pytest.raises(ValueError):
            pack_all(key, contents)
    else:
        assert pack_all(key, contents) == one_by_one


@pytest.mark.parametrize("content", [b"x\0stdin=/etc/shadow", b"\0", b"x\0"])
def test_a_value_cannot_become_a_field_of_its_own(content: bytes) -> None:
    with pytest.raises(ValueError):
        pack_fields([("cwd", content)])
    with pytest.raises(ValueError):
        pack_all("env", [b"A=1", content])


@given(mutations(STREAM))
def test_damaged_frames_give_fields_that_can_be_packed_again(damaged: bytes) -> None:
    try:
        for _, payload in launcher_frames.FrameBuffer(limit_bytes=1000).feed(damaged):
            pairs = list(parse_fields(payload))
            if all("\ufffd" not in key for key, _ in pairs):
                assert pack_fields(pairs) == payload
    except RemoteProtocolError:
        pass


@given(mutations(json.dumps({"command": "status", "words": ["a", 1, None], "n": {"x": 1.5}}).encode()))
def test_a_damaged_object_is_an_object_or_refused(damaged: bytes) -> None:
    try:
        assert isinstance(launcher_frames.parse_object(damaged), dict)
    except RemoteProtocolError as error:
        assert str(error)


@each_row("payload", [b"", b"[]", b"1", b"\xff", b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        launcher_frames.parse_object(payload)
