"""Arguments as every termite program takes them: `-flag` and `--flag`, one error line, exit code 100.

Only what starts in a few milliseconds may be imported here.
"""

import argparse
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NoReturn

from termite.engine.errors import UserError

EXIT_FAILED = 100  # termite failed, not a command of the user
EXIT_NOWHERE = 103  # no worker, and TERMITE_LOCAL=never
VERSION = "0.1.0"
_SINGLE_DASH = re.compile(r"-[a-z][a-z0-9-]+(=.*)?", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Takes long flags with one dash too; an error is a UserError."""

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
        """The flags in `argv` (without the program's name)."""
        return self.parse_args(with_two_dashes(argv))

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"see {self.prog} --help")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Say a default only where there is one."""
        return super()._get_help_string(action) if action.default not in (None, "", False, []) else action.help


def with_two_dashes(argv: Sequence[str]) -> list[str]:
    """`-jobs 4` as `--jobs 4`; what stands after `--` is left alone, and so is a single letter (`-h`)."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return [f"-{word}" if _SINGLE_DASH.fullmatch(word) else word for word in words[:end]] + words[end:]


def report(program: str, error: UserError) -> None:
    """The one line of a UserError, and its hint below."""
    print(f"{program}: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"{program}: {error.hint}", file=sys.stderr)


def run_command(program: str, main: Callable[[], int]) -> int:
    """`main`'s exit code, or 100 after the line of a UserError. Dies of Ctrl-C."""
    try:
        return main()
    except UserError as error:
        report(program, error)
    except KeyboardInterrupt:
        # Not exit 130: a shell that runs us in a loop ends it only if we died of the signal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    return EXIT_FAILED
