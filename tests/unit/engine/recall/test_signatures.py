"""Signed records prove who wrote them, and nothing else is opened."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given

from termite.engine.recall.shared_store.signatures import (
    Distrust,
    Distrusted,
    RecordKind,
    RecordName,
    WriterKey,
    open_signed,
    parse_public_key,
)
from tests.unit.mutations import mutations

KEY, OTHER = (WriterKey(Ed25519PrivateKey.generate()) for _ in range(2))
NAME = RecordName(RecordKind.RESULT, b"n" * 32)
TRUSTED = {KEY.public: "ci"}
SIGNED = KEY.sign(NAME, b"body")


def refusal(packed: bytes, name: RecordName = NAME) -> Distrust | None:
    try:
        open_signed(packed, name, TRUSTED)
    except Distrusted as error:
        return error.reason
    return None


def test_a_record_is_opened_with_the_name_of_its_writer() -> None:
    assert open_signed(SIGNED, NAME, TRUSTED) == (b"body", "ci")


def test_a_record_that_differs_in_one_byte_is_refused() -> None:
    for at in range(len(SIGNED)):
        assert refusal(SIGNED[:at] + bytes([SIGNED[at] ^ 1]) + SIGNED[at + 1 :]) is not None, at


@pytest.mark.attack
@given(mutations(SIGNED))
def test_a_damaged_record_is_refused_or_says_the_same(packed: bytes) -> None:
    reason = refusal(packed)
    assert isinstance(reason, Distrust) or open_signed(packed, NAME, TRUSTED) == (b"body", "ci")


@pytest.mark.attack
@pytest.mark.parametrize("more", [b"\x91" * 100_000 + b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xc4", b"\xc0"])
def test_more_behind_the_fields_of_a_record_is_no_error_that_nobody_expects(more: bytes) -> None:
    """A list that is longer than the fields is legal, and its end may be nested without end."""
    assert refusal(b"\x94" + SIGNED[1:] + more) in (Distrust.FORM, None)


def test_a_record_that_is_cut_is_refused() -> None:
    assert {end for end in range(len(SIGNED)) if refusal(SIGNED[:end]) is not Distrust.FORM} == set()


@pytest.mark.parametrize(
    "name",
    [
        RecordName(RecordKind.SHAPE, NAME.digest),
        RecordName(RecordKind.RESULT, b"m" * 32),
        RecordName(RecordKind.RESULT, NAME.digest + b"b"),
        RecordName(RecordKind.RESULT, b""),
    ],
)
def test_a_record_has_one_name(name: RecordName) -> None:
    assert refusal(SIGNED, name) is Distrust.SIGNATURE


def test_a_writer_whom_nobody_trusts_is_refused() -> None:
    assert refusal(OTHER.sign(NAME, b"body")) is Distrust.WRITER


@pytest.mark.parametrize("writer", [b"", b"x" * 31, bytes(32), b"\xff" * 32])
def test_what_is_no_key_is_refused_even_if_somebody_trusts_it(writer: bytes) -> None:
    packed = msgspec.msgpack.encode([writer, b"s" * 64, b"body"])
    with pytest.raises(Distrusted):
        open_signed(packed, NAME, {writer: "x"})


def test_a_public_key_is_read_as_it_is_printed() -> None:
    assert parse_public_key(KEY.public_text) == KEY.public
    for text in (
        "",
        "x",
        KEY.public_text[:-4],
        KEY.public_text + "AAAA",
        KEY.public_text.replace(KEY.public_text[3], "!"),
    ):
        with pytest.raises(ValueError):
            parse_public_key(text)
