"""termite-ctl finds the subcommand that was named, explains each, and names the nearest one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.cli import ctl, subcommands
from termite.cli.flags import VERSION
from termite.cli.subcommands.registry import FOLDERS, find_subcommand, subcommand_parser
from termite.engine.errors import UserError
from tests.unit.tables import each_row


@pytest.fixture(autouse=True)
def _no_sweep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave alone what a killed daemon of this user has left."""
    monkeypatch.setattr(ctl, "start_sweep", lambda: None)
    yield


def said_by(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    try:
        assert ctl.run_words(argv) == 0
    except SystemExit as ended:  # argparse ends so after --help and --version
        assert not ended.code
    return capsys.readouterr().out


def test_every_module_of_a_subcommand_is_in_the_table() -> None:
    top = Path(subcommands.__file__).parent
    modules = {path.stem: path.parent.name for path in top.glob("*/*.py") if path.stem != "__init__"}
    assert modules == FOLDERS


@pytest.mark.parametrize("words", [("help",), ("--help",), ("-help",), ("-h",)])
def test_the_help_lists_every_subcommand_with_its_summary(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said_by(capsys, *words).splitlines()
    for name in FOLDERS:
        assert any(re.fullmatch(rf"  {name} +{re.escape(find_subcommand(name).summary)}", line) for line in lines)
    assert all(len(line) <= 100 for line in lines)


@each_row("name", FOLDERS)
def test_each_subcommand_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = said_by(capsys, "help", name)
    assert first.startswith(f"usage: termite-ctl {name} ")
    assert f"termite-ctl {name}" in first.partition("Example:")[2]
    summary = find_subcommand(name).summary
    assert summary[0].islower() and not summary.endswith(".")
    assert said_by(capsys, name, "--help") == said_by(capsys, name, "-help") == said_by(capsys, name, "-h") == first
    assert said_by(capsys, name, "-version") == f"termite-ctl {VERSION}\n"


@each_row(
    ("argv", "line"),
    [
        (("statsu",), "there is no command statsu: write status"),
        (("help", "shutdwon"), "there is no command shutdwon: write shutdown"),
        (("frobnicate",), "there is no command frobnicate"),
        (("status", "-jsn"), "there is no flag -jsn: write -json"),
        (("status", "--frob"), "there is no flag -frob"),
        (("shutdown", "now"), "termite-ctl shutdown takes no further argument: now"),
        (("--versoin",), "there is no flag -versoin: write -version"),
        ((), "no command given"),
    ],
)
def test_a_wrong_word_is_one_line_that_says_what_to_write(argv: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError) as refused:
        ctl.run_words(argv)
    assert refused.value.message == line
    assert ("write" in line) != ("see termite-ctl" in refused.value.hint)


def test_the_flags_of_an_explained_command_belong_to_it() -> None:
    parser = subcommand_parser("why")
    words = ["gcc", "-march=native", "-version", "--", "-help"]
    assert parser.parse_flags(words).command == words
    assert parser.parse_flags(["--", "-odd"]).command[-1] == "-odd"
