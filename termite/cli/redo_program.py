"""Run termite-redo, which the launcher starts when its master has gone without an exit.

It finishes the plan of that launcher's job, and prints the fields of the exit to stdout. It prints
`absent=1` if there is no plan, so that the launcher may run the command itself.
"""

import os
import re
import sys
from pathlib import Path

from termite.cli.flags import VERSION
from termite.engine.errors import ExitCode, TermiteError
from termite.engine.paths import allow_deep_paths
from termite.engine.tree.publishing.redo import finish_job
from termite.engine.wire.protocol.fields import pack_numbers
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

_USAGE = "usage: termite-redo DIRECTORY TOKEN (the launcher starts it)"
_HELP = f"""{_USAGE}

Finish writing the results of a command whose master has ended, and print how the command ended.
DIRECTORY is the top of the tree, TOKEN is the launcher's name for the command."""

PATIENCE_S = 30.0  # after this time the user hears that the master does not answer


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    words = sys.argv[1:]
    if words in (["--help"], ["-help"], ["-h"]):
        print(_HELP)
        return 0
    if words in (["--version"], ["-version"]):
        print(f"termite-redo {VERSION}")
        return 0
    if len(words) != 2 or not re.fullmatch("[0-9a-f]{16}", words[1]):
        print(_USAGE, file=sys.stderr)
        return ExitCode.FAILED
    allow_deep_paths()
    try:
        end = finish_job(Path(words[0]), bytes.fromhex(words[1]), _say, PATIENCE_S)
    except (OSError, TermiteError) as error:
        _say(f"the plan of the command cannot be read: {error}")
        return ExitCode.LOST
    if end is None:
        answer = pack_numbers(absent=1)
    elif end.signal:
        answer = end.stdin + pack_numbers(signal=end.signal)
    else:
        answer = end.stdin + pack_numbers(code=end.code)
    os.write(1, answer)
    return 0


def _say(line: str) -> None:
    print(f"termite: {printable(line, LONGEST_LINE)}", file=sys.stderr, flush=True)
