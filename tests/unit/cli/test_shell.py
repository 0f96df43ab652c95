"""The words of `termite-ctl shell`."""

import pytest

from termite.cli.shell import parse
from termite.engine.errors import UserError


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ([], (0, False, [])),
        (["12"], (12, False, [])),
        (["--keep", "12"], (12, True, [])),
        (["12", "-keep", "--", "gcc", "--keep"], (12, True, ["gcc", "--keep"])),
        (["--", "sh", "--", "7"], (0, False, ["sh", "--", "7"])),
    ],
)
def test_what_may_be_said(words: list[str], meaning: tuple[int, bool, list[str]]) -> None:
    assert parse(words) == meaning


@pytest.mark.parametrize(
    "words", [["x"], ["-1"], ["1", "2"], ["--"], ["--kept"], ["\u0663"], ["gcc", "--", "x"], ["keep"], ["1.0"]]
)
def test_anything_else_is_a_wrong_call(words: list[str]) -> None:
    with pytest.raises(UserError, match="usage: termite-ctl shell"):
        parse(words)
