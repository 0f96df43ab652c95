"""Long commands are read in linear time, before their results are stored or found."""

import contextlib
import time

from termite.engine.recall.known.shell_lists import parse_list
from termite.engine.recall.known.shell_words import NotSimple
from termite.engine.recall.look_up.evidence import shape_id
from tests.unit.engine.recall.test_evidence import GCC


def test_a_long_list_is_read_in_linear_time() -> None:
    assert len(parse_list("a 'b' && " * 10_000 + "c")) == 10_001
    assert len(parse_list("a || " * 10_000 + "c")) == 10_001
    loops = f"for x in {'1 ' * 200}; do " * 3 + "a" + "; done" * 3
    for text in (
        "'" * 50_001,
        "\\\n" * 50_000 + "|",
        "a\\ " * 30_000 + "$",
        ";" * 100_000,
        "<" * 100_000,
        loops,
        "{ " * 60_000,
    ):
        with contextlib.suppress(NotSimple):
            parse_list(text)


def test_a_long_word_costs_no_more_than_its_length() -> None:
    long = b"a" * 2_000_000
    begun = time.process_time()
    assert shape_id((b"gcc", long), GCC) != shape_id((b"gcc", long + b"a"), GCC)
    assert shape_id((b"gcc", long + b".c"), GCC) == shape_id((b"gcc", b"b.c"), GCC)
    assert time.process_time() - begun < 5, "a search that is quadratic takes hours"
