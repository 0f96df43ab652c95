"""The words of `termite-ctl shell`."""

import pytest

from termite.cli.subcommands.builds.shell import what_is_wanted
from termite.cli.subcommands.registry import subcommand_parser
from termite.engine.errors import UserError
from tests.unit.tables import each_row


def wanted_by(words: list[str]) -> tuple[int, bool, list[str]]:
    return what_is_wanted(subcommand_parser("shell").parse_flags(words))


@each_row(
    ("words", "meaning"),
    [
        ([], (0, False, [])),
        (["12"], (12, False, [])),
        (["--keep", "12"], (12, True, [])),
        (["12", "-keep", "--", "gcc", "--keep"], (12, True, ["gcc", "--keep"])),
        (["-keep", "--", "gcc", "-keep"], (0, True, ["gcc", "-keep"])),
        (["--", "sh", "--", "7"], (0, False, ["sh", "--", "7"])),
        (["12", "--", "sh", "--help"], (12, False, ["sh", "--help"])),
    ],
)
def test_what_may_be_said(words: list[str], meaning: tuple[int, bool, list[str]]) -> None:
    assert wanted_by(words) == meaning


@each_row(
    "words",
    [
        ["x"],
        ["-1"],
        ["1", "-1"],
        ["1", "2"],
        ["--"],
        ["1", "--kept"],
        ["\u0663"],
        ["gcc", "--", "x"],
        ["keep"],
        ["1.0"],
        ["0"],
        ["1" + "0" * 18],
    ],
)
def test_anything_else_is_a_wrong_call(words: list[str]) -> None:
    with pytest.raises(UserError, match="usage: termite-ctl shell"):
        wanted_by(words)


@pytest.mark.parametrize("word", ["--kept", "-kept"])
def test_a_wrong_flag_is_named(word: str) -> None:
    with pytest.raises(UserError, match="no flag -kept"):
        wanted_by([word, "--", "true"])
