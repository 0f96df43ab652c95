"""The table of the subcommands of termite-ctl. A module is imported only if its command is used."""

import argparse
import importlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from termite.cli.parser import Parser
from termite.engine.nearest_name import wrong_name

PROGRAM = "termite-ctl"

# The folder of each subcommand's module, which has the name of the subcommand.
FOLDERS = {
    "status": "masters",
    "why": "builds",
    "last": "builds",
    "jobs": "builds",
    "log": "builds",
    "shell": "builds",
    "top": "builds",
    "web": "builds",
    "trace": "builds",
    "ls": "masters",
    "logs": "masters",
    "start": "masters",
    "shutdown": "masters",
    "paths": "masters",
    "refresh": "masters",
    "cache": "machines",
    "add": "machines",
    "upgrade": "machines",
    "remove": "machines",
    "drain": "machines",
    "undrain": "machines",
    "secret": "machines",
    "signkey": "machines",
    "doctor": "machines",
}


def _no_flags(parser: Parser) -> None:
    """Add no flags, because the subcommand has none."""


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A subcommand of termite-ctl.

    `summary` is one line for the list of all. It begins with a verb and has no full stop.
    `run` gets what the parser has read, and returns the exit code. It raises UserError if it fails.
    `add_flags` adds flags and arguments to the parser of this subcommand.
    `more` is text for the help of this subcommand, after the summary.
    `example` is a whole command line; "" if its name alone is one.
    With `takes_command`, the words from the first one on that is no flag belong to a command of the
    user, and no dash is added to them. The parser's last argument then is one of REMAINDER.
    A subcommand that `bears_wrong_variables` runs although a variable of termite is misspelt.
    """

    summary: str
    run: Callable[[Namespace], int]
    add_flags: Callable[[Parser], None] = _no_flags
    more: str = ""
    example: str = ""
    takes_command: bool = False
    bears_wrong_variables: bool = False


def find_subcommand(name: str) -> Subcommand:
    """Return a subcommand. Raise UserError, with the nearest name, if there is none."""
    if name not in FOLDERS:
        raise wrong_name("command", name, [*FOLDERS, "help"], f"{PROGRAM} help")
    found: Subcommand = importlib.import_module(f"termite.cli.subcommands.{FOLDERS[name]}.{name}").SUBCOMMAND
    return found


def subcommand_parser(name: str) -> Parser:
    """Return the parser of a subcommand's words. Raise UserError if there is no such subcommand."""
    subcommand = find_subcommand(name)
    program = f"{PROGRAM} {name}"
    description = f"{subcommand.summary[:1].upper()}{subcommand.summary[1:]}. {subcommand.more}"
    parser = Parser(program, description, subcommand.example or program, subcommand.takes_command)
    subcommand.add_flags(parser)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """Return a parser with those of all subcommands, for man pages and the completion of shells.

    termite-ctl itself uses the parser of one subcommand only, and so imports one module only.
    """
    description = "Inspect and control the masters, the builds and the machines of termite."
    parser = Parser(PROGRAM, description, f"{PROGRAM} why gcc -c x.c")
    commands = parser.add_subparsers(  # type: ignore[call-overload]  # argparse takes any function, too
        metavar="COMMAND", parser_class=lambda prog: subcommand_parser(prog.rpartition(" ")[2])
    )
    for name in FOLDERS:
        commands.add_parser(name, help=find_subcommand(name).summary)
    return parser


def command_list() -> str:
    """Return the lines of the help that list all subcommands."""
    width = max(map(len, FOLDERS)) + 2
    return "\n".join(f"  {name:<{width}}{find_subcommand(name).summary}" for name in FOLDERS)
