"""Conventions of all termite programs: `-flag` or `--flag`, one line for an error, exit code 100.

A build waits for the imports of this module, so it imports little. argparse is in parser.py.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence

import termite
from termite.engine.decide.logic.switches import JSON, LOG_FORMAT
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
        print_line(program, line, "error")


def print_line(program: str, line: str, level: str = "info") -> None:
    """Print one line of a program on stderr, as text or, if the user wants that, as JSON."""
    if os.environ.get(LOG_FORMAT) == JSON:
        from termite.cli.logs.log_lines import message_json

        shown = message_json(program, level, line)
    else:
        shown = f"{program}: {printable(line, LONGEST_LINE)}"
    print(shown, file=sys.stderr, flush=True)


def run_command(program: str, main: Callable[[], int]) -> int:
    """Run `main` and return its exit code, or 100 after printing a UserError.

    On Ctrl-C, die of SIGINT. After an error of our own, leave the report of a crash.
    """
    try:
        return run_reporting(program, main)
    except UserError as error:
        report(program, error)
    except KeyboardInterrupt:
        # Not exit 130: a shell that runs us in a loop ends it only if we died of the signal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    return ExitCode.FAILED


def run_reporting(program: str, main: Callable[[], int]) -> int:
    """Run `main` and return its exit code. After an error of our own, leave a report, return 100.

    A UserError is raised again.
    """
    try:
        return main()
    except UserError:
        raise
    except Exception as error:  # around the whole program: its user gets one line, we get the report
        from termite.cli.logs.crash_reports import report_crash

        return report_crash(program, error)
