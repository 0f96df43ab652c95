"""The digest of a content is a function of its bytes, however they come."""

import hashlib
import random

from termite.engine.sparse_content import BLOCK_BYTES, ContentHash, digest_of
from termite.engine.wire.protocol.messages import INLINE_BYTES
from tests.unit.tables import each_row

ZERO = bytes(BLOCK_BYTES)
CONTENTS = {
    "empty": b"",
    "small": b"abc",
    "small zeros": bytes(1000),
    "one zero block": ZERO,
    "a block that ends in zeros": b"x" + ZERO[1:],
    "a block that begins with zeros": ZERO[1:] + b"x",
    "zeros across a border": b"x" + ZERO + b"x",
    "a hole in the middle": b"a" * BLOCK_BYTES + ZERO * 3 + b"b" * 1000,
    "two holes": ZERO + b"c" * BLOCK_BYTES + ZERO * 2 + b"d",
    "zeros and a tail of zeros": ZERO * 2 + bytes(77),
    "data and a tail of zeros": b"e" * BLOCK_BYTES + bytes(77),
}


@each_row("name", CONTENTS)
@each_row("seed", range(5))
def test_it_does_not_matter_how_the_pieces_are_cut(name: str, seed: int) -> None:
    content, chance = CONTENTS[name], random.Random(seed)
    state = ContentHash()
    at = 0
    while at < len(content):
        length = chance.choice((1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES))
        part = content[at : at + length]
        if part == bytes(len(part)) and chance.random() < 0.5:
            state.skip(len(part))
        else:
            state.update(part)
        at += len(part)
        state.digest()  # may be asked at any time
    assert state.digest() == digest_of(content)
    assert state.digest().size == len(content)


def test_a_content_without_a_zero_block_has_its_sha256() -> None:
    for name, content in CONTENTS.items():
        has_zero_block = any(content[at : at + BLOCK_BYTES] == ZERO for at in range(0, len(content), BLOCK_BYTES))
        assert (digest_of(content).sha256 == hashlib.sha256(content).digest()) is not has_zero_block, name


def test_different_contents_have_different_digests() -> None:
    others = [ZERO * 2, ZERO * 3, ZERO + b"x", ZERO * 2 + b"x", b"x" + bytes(BLOCK_BYTES - 1) + ZERO]
    others += [b"y" * BLOCK_BYTES + ZERO, ZERO + b"y" * BLOCK_BYTES, b"y" * BLOCK_BYTES]
    contents = {*CONTENTS.values(), *others}
    assert len({digest_of(content).sha256 for content in contents}) == len(contents)


def test_the_format_is_the_documented_one() -> None:
    """The digest of 512 KiB of zeros, computed from the description in the module."""
    fields = (0).to_bytes(8, "little") + (2).to_bytes(8, "little") + hashlib.sha256().digest()
    expected = hashlib.blake2b(fields + len(ZERO * 2).to_bytes(8, "little"), digest_size=32, person=b"termite-sparse-1")
    assert digest_of(ZERO * 2).sha256 == expected.digest()


def test_a_hole_of_20_gib_costs_nothing() -> None:
    state = ContentHash()
    state.skip(20 * 1024**3)
    state.update(b"end")
    assert state.digest().size == 20 * 1024**3 + 3


def test_no_content_inside_a_message_has_a_zero_block() -> None:
    assert INLINE_BYTES < BLOCK_BYTES
