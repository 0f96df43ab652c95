"""The argument parser of all termite programs that need argparse."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from termite.cli.flags import VERSION, with_two_dashes
from termite.engine.errors import UserError
from termite.engine.nearest_name import nearest_name, wrong_name

_NUMBERS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that takes long flags with one dash or two.

    It raises UserError for a wrong argument, and names the flag or the value that was meant.
    If `takes_command`, the words from the first one on that is no flag are the command of another
    program, and stay as they are.
    """

    def __init__(self, prog: str, description: str, example: str, takes_command: bool = False) -> None:
        super().__init__(
            prog,
            description=textwrap.fill(description, 79),
            epilog=f"Example:\n  {example}\n\nFlags may be written with one dash or two.",
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        self._takes_command = takes_command
        self._help = f"see {prog} --help"
        # `termite-ctl status -version` is the version of termite-ctl, too.
        self.add_argument("--version", action="version", version=f"{prog.partition(' ')[0]} {VERSION}")

    def parse_flags(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse `argv`, which does not have the program's name."""
        end = len(argv)
        if self._takes_command:
            end = next((at for at, word in enumerate(argv) if not word.startswith("-") or word == "--"), end)
        flags, rest = self.parse_known_args([*with_two_dashes(argv[:end]), *argv[end:]])
        if rest:
            self._refuse(rest[0])
        return flags

    def _get_value(self, action: argparse.Action, word: str) -> object:
        """Return what a word of the command line means. Raise UserError if it is no such value."""
        try:
            return super()._get_value(action, word)
        except argparse.ArgumentError as error:
            wanted = getattr(action.type, "__name__", "")
            wanted = _NUMBERS.get(wanted, wanted)
            raise UserError(f"{_shown(action)} wants {wanted}, not {word!r}", hint=self._help) from error

    def _match_argument(self, action: argparse.Action, pattern: str) -> int:
        """Return how many words an action takes. Raise UserError if a flag's value is missing."""
        try:
            return int(super()._match_argument(action, pattern))
        except argparse.ArgumentError as error:
            if not action.option_strings:
                raise
            value = "|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
            raise UserError(
                f"{_shown(action)} has no value: write {_shown(action)} {value}", hint=self._help
            ) from error

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=self._help)

    def _refuse(self, word: str) -> NoReturn:
        """Raise UserError for a word that has no meaning here."""
        if not word.startswith("-"):
            raise UserError(f"{self.prog} takes no further argument: {word}", hint=self._help)
        flag = f"-{word.partition('=')[0].lstrip('-')}"
        shown = [name for action in self._actions if action.help != argparse.SUPPRESS for name in action.option_strings]
        raise wrong_name("flag", flag, [name.removeprefix("-") for name in shown], f"{self.prog} --help")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Raise UserError if a value is none of the possible ones. It names the nearest one."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = nearest_name(str(value), choices)
        name = f"{_shown(action)} " if action.option_strings else ""
        raise UserError(f"there is no {name}{value}: write {name}{near or ' or '.join(choices)}")


def _shown(action: argparse.Action) -> str:
    """Return a flag as the documents write it, or the name of an argument without a flag."""
    return f"-{action.option_strings[-1].lstrip('-')}" if action.option_strings else str(action.metavar or action.dest)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """Return how the arguments of `action` are written."""
        shown = super()._format_args(action, default_metavar)
        return f"{action.metavar}..." if action.nargs == argparse.REMAINDER else shown

    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Return the help text of `action`, with its default if it has one."""
        return super()._get_help_string(action) if action.default not in (None, "", False, []) else action.help
