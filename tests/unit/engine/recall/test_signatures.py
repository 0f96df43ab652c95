"""Signed records prove who wrote them, and nothing else is opened."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from termite.engine.recall.shared_store.signatures import (
    Distrust,
    Distrusted,
    RecordKind,
    RecordName,
    WriterKey,
    open_signed,
    parse_public_key,
)

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
