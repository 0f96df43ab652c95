"""Test the mark of a verified blob, which is its modification time."""

import random

from termite.engine.model import Digest
from termite.engine.store.verified_mark import SIGNATURE_BITS, WINDOW_NS, is_marked, marked_mtime_ns

NOW_NS = 1_800_000_000_123_456_789
DIGEST = Digest(bytes(range(32)), 7)
OTHER = Digest(bytes(range(1, 33)), 7)


def test_a_mark_holds_for_its_digest_and_boot_only() -> None:
    mtime_ns = marked_mtime_ns(DIGEST, 5, NOW_NS)
    assert is_marked(DIGEST, 5, mtime_ns, NOW_NS)
    assert not is_marked(OTHER, 5, mtime_ns, NOW_NS)
    assert not is_marked(DIGEST, 6, mtime_ns, NOW_NS)


def test_a_mark_is_the_time_within_a_few_milliseconds() -> None:
    for seed in range(1000):
        now_ns = random.Random(seed).randrange(2**61)
        assert abs(marked_mtime_ns(DIGEST, seed, now_ns) - now_ns) < 1 << SIGNATURE_BITS < WINDOW_NS


def test_a_write_erases_the_mark() -> None:
    """A write sets both times to that of the kernel's last tick."""
    rng = random.Random(1)
    hits = sum(is_marked(DIGEST, 5, time_ns, time_ns) for time_ns in (rng.randrange(2**61) for _ in range(20_000)))
    assert hits <= 1, "a matter of chance: one of four million"


def test_a_mark_whose_ctime_moved_on_does_not_hold() -> None:
    mtime_ns = marked_mtime_ns(DIGEST, 5, NOW_NS)
    assert not is_marked(DIGEST, 5, mtime_ns, mtime_ns + WINDOW_NS)
    assert not is_marked(DIGEST, 5, mtime_ns, mtime_ns - WINDOW_NS)


def test_times_of_a_whole_second_are_no_mark() -> None:
    """A coarse file system cuts the mark off."""
    mtime_ns = marked_mtime_ns(DIGEST, 5, NOW_NS) // 10**9 * 10**9
    assert not is_marked(DIGEST, 5, mtime_ns, mtime_ns)
