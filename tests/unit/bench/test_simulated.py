"""bench/: the results of simulated workers, and the order of a benchmark's sides."""

import functools
import hashlib
from collections.abc import Callable

import pytest

from bench.cpu import Accounts
from bench.record import Recorded, read_recorded, written
from bench.rounds import Settings, alternate
from bench.simulated import Contents, results
from termite.engine.wire.protocol.messages import INLINE_BYTES


@pytest.mark.parametrize(
    ("argv", "outputs"),
    [
        (["/bin/sh", "-c", "cc -MD -MF x.d -c x.c -o x.o"], ["x.d", "x.o"]),
        (["cc", "-O2", "-c", "src/x.cpp"], ["x.o"]),
        (["ar", "rcs", "libx.a", "x.o"], ["libx.a"]),
        (["/bin/sh", "-c", "echo done"], []),
    ],
)
def test_the_words_of_a_command_say_what_it_writes(argv: list[str], outputs: list[str]) -> None:
    assert list(written(argv)) == outputs


@pytest.mark.parametrize("name", ["lua", "llvm"])
def test_what_was_recorded_is_a_build(name: str) -> None:
    recorded = read_recorded(name)
    assert len(recorded) > 30
    assert sum(job.cpu_s for job in recorded) > 1
    assert sum(map(sum, (job.outputs for job in recorded))) > 2**20


def test_results_have_their_digests_and_small_ones_travel_inline() -> None:
    contents = Contents()
    changes, inline = results(contents, Recorded(0.1, (100, INLINE_BYTES + 1)), b"home/me/x.o", 7)
    assert [change.path for change in changes] == [b"home/me", b"home/me/x.o", b"home/me/x.o.1"]
    for change in changes[1:]:
        assert change.attr is not None and change.attr.digest is not None
        content = contents.find(change.attr.digest)
        assert len(content) == change.attr.size
        assert hashlib.sha256(content).digest() == change.attr.digest.sha256
    assert list(map(len, inline.values())) == [100]


def settings(rounds: int, limit_s: float = 60.0) -> Settings:
    return Settings(Accounts(None), lambda line: None, rounds=rounds, limit_s=limit_s)


def test_sides_alternate_and_their_order_turns_round() -> None:
    ran: list[str] = []

    def side(name: str) -> Callable[[], int]:
        def run() -> int:
            ran.append(name)
            return len(ran)

        return run

    assert alternate(settings(rounds=3), {"a": side("a"), "b": side("b")}) == {"a": [1, 4, 6], "b": [2, 3, 5]}
    assert ran == ["a", "b", "b", "a", "b", "a"]


def test_no_side_always_comes_after_the_same_one() -> None:
    ran: list[str] = []
    alternate(settings(rounds=6), {name: functools.partial(ran.append, name) for name in "abc"})
    assert "".join(ran) == "abccbabcaacbcabbac"


def test_a_part_ends_after_its_time_and_says_how_many_rounds_it_did() -> None:
    bounded = settings(rounds=3, limit_s=-1.0)
    assert alternate(bounded, {"a": lambda: 1}) == {"a": [1]}
    assert "after 1 rounds" in bounded.notes[0]
