"""Every command has a man page with all its flags, and every shell gets its completions."""

import argparse
import tomllib
from pathlib import Path

import pytest

from command_pages import HELP_WORDS, SHELLS, completion, daemon_parsers, man_page, parser_pages, text_page
from termite.cli.flags import VERSION
from termite.cli.parser import Parser
from termite.cli.subcommands.registry import FOLDERS, PROGRAM, subcommand_parser, whole_parser
from tests.unit.tables import each_row

TOP = Path(__file__).parents[3]
PAGES = parser_pages()
PARSERS: dict[str, argparse.ArgumentParser] = {
    **daemon_parsers(),
    **{f"{PROGRAM}-{name}": subcommand_parser(name) for name in FOLDERS},
}


def shown_flags(parser: argparse.ArgumentParser) -> list[str]:
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    return [name for action in actions for name in action.option_strings]


def test_every_command_has_a_page() -> None:
    scripts = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"]
    programs = {*scripts} - {"termite-front-end"} | {f"termite-{name}" for name in ("make", "ninja", "cmake", "build")}
    assert {name for name in {*PAGES, *HELP_WORDS} if name.partition("-ctl-")[1] == ""} == programs | {"termite"}


@each_row("name", PARSERS)
def test_every_flag_with_its_help_stands_in_the_page(name: str) -> None:
    page = PAGES[name].replace("\\-", "-")
    options = page.partition(".SH OPTIONS\n")[2]
    for action in PARSERS[name]._actions:
        if action.help == argparse.SUPPRESS:
            continue
        part = options if action.option_strings else page
        for flag in action.option_strings or [str(action.metavar or "|".join(action.choices or []))]:
            assert flag.replace("|", ",").split(",")[0] in part, flag
        words = (action.help or "").replace("%%", "%").split("%(")[0].split()
        assert " ".join(words) in part, words
    assert f"termite {VERSION}" in page


def test_the_page_of_termite_ctl_names_every_subcommand() -> None:
    page = PAGES[PROGRAM].replace("\\-", "-")
    assert all(f".B {PROGRAM} {name}\n" in page for name in FOLDERS)


def test_no_text_becomes_a_request_of_roff() -> None:
    parser = Parser("termite-x", ".TH forged", "a\\b")
    parser.add_argument("--odd", help="'x")
    for page in (man_page("termite-x", parser), text_page("termite-x", ".TH\n'x\n")):
        body = page.split("\n", 1)[1]
        assert "\n.TH" not in body and "\n'x" not in body
    assert "a\\eb" in man_page("termite-x", parser)


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_have_every_flag_and_subcommand(shell: str) -> None:
    script = completion(whole_parser(), shell)
    assert all(name in script for name in FOLDERS)
    for name, parser in daemon_parsers().items():
        script = completion(parser, shell)
        # csh and zsh write a flag without its dashes, or with a backslash, in some places.
        missing = [flag for flag in shown_flags(parser) if flag.lstrip("-") not in script]
        assert missing == [], name
