"""Conventions of all termite programs: `-flag` or `--flag`, one line for an error, exit code 100.

A build waits for the imports of this module, so it imports little. argparse is in parser.py.
"""

import re
import signal
import sys
from collections.abc import Callable, Sequence

import termite
from termite.engine.errors import ExitCode, UserError
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

VERSION = termite.__version__
_SINGLE_DASH = re.compile(r"-[a-z][a-z0-9-]+(=.*)?", re.DOTALL)


def with_two_dashes(argv: Sequence[str]) -> list[str]:
    """Return `argv` with `-jobs` written as `--jobs`.

    Single letters (`-h`) and words after `--` stay as they are.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return [f"-{word}" if _SINGLE_DASH.fullmatch(word) else word for word in words[:end]] + words[end:]


def report(program: str, error: UserError) -> None:
    """Print the message of a UserError on stderr, and its hint on a line below."""
    for line in filter(None, (error.message, error.hint)):
        print(f"{program}: {printable(line, LONGEST_LINE)}", file=sys.stderr)


def run_command(program: str, main: Callable[[], int]) -> int:
    """Run `main` and return its exit code, or 100 after printing a UserError.

    On Ctrl-C, die of SIGINT.
    """
    try:
        return main()
    except UserError as error:
        report(program, error)
    except KeyboardInterrupt:
        # Not exit 130: a shell that runs us in a loop ends it only if we died of the signal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    return ExitCode.FAILED
