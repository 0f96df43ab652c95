"""Test that rules are searched in linear time, however long a command is."""

import pytest

from termite.engine.decide.logic.rules import BUILT_IN, command_regexp, first_match
from termite.engine.model import Rule


@pytest.mark.parametrize(
    "text",
    [
        "gcc " + "-Ixxx/yyyy " * 120000,
        "\n " * 500000,
        ";" * 1000000,
        "env A=1 " * 200000,
        "a/" * 500000,
        "do " * 400000,
        ";'/" * 400000,
        "\\ /" * 400000,
        ';"/make' * 200000,
    ],
    ids=["flags", "lines", "operators", "assignments", "directories", "keywords", "quoted", "escaped", "half quoted"],
)
def test_a_search_takes_linear_time(text: str) -> None:
    """Search a megabyte in a tenth of a second; quadratic time would exceed the timeout."""
    rules = (*BUILT_IN, Rule(command_regexp("g?make"), local=True))
    assert not first_match(text, rules).local
