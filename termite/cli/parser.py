"""The argument parser of all termite programs that need argparse."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from termite.cli.flags import VERSION, with_two_dashes
from termite.engine.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser that takes long flags with one dash or two.

    It raises UserError for a wrong argument.
    """

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog,
            description=textwrap.fill(description, 79),
            epilog=f"Example:\n  {example}\n\nFlags may be written with one dash or two.",
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"{prog} {VERSION}")

    def parse_flags(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse `argv`, which does not have the program's name."""
        return self.parse_args(with_two_dashes(argv))

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"see {self.prog} --help")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Return the help text of `action`, with its default if it has one."""
        return super()._get_help_string(action) if action.default not in (None, "", False, []) else action.help
