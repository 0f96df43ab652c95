"""Test the order of the files in a parallel run."""

from collections import Counter
from pathlib import Path

from tests.conftest import LONG_FILES, turn

ROOT = Path(__file__).parents[3]


def test_the_long_files_exist_and_are_named_once() -> None:
    assert [name for name in LONG_FILES if not (ROOT / name).is_file()] == []
    assert len(set(LONG_FILES)) == len(LONG_FILES)


def test_long_files_come_first_and_then_those_of_most_tests() -> None:
    counts = Counter({"few": 2, "many": 9, LONG_FILES[1]: 1, LONG_FILES[0]: 1})
    assert sorted(counts, key=lambda file: turn(file, counts)) == [*LONG_FILES[:2], "many", "few"]
