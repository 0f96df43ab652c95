"""The flags for the log of a daemon, and the set-up of that log."""

import argparse
import logging
import os
from pathlib import Path

from termite.cli.amounts import parse_count, parse_size_or_none
from termite.cli.logs.log_lines import FORMATS, JsonFormatter, LogFormatter
from termite.cli.logs.rotated_file import DEFAULT_KEPT, LogLimits, RotatedFile
from termite.cli.parser import Parser
from termite.engine.decide.logic.switches import LOG_FORMAT
from termite.engine.errors import UserError
from termite.engine.host.log_tail import LogTail
from termite.engine.host.ownership import require_own


def add_log_flags(parser: Parser) -> None:
    """Add the flags of all daemons for their log."""
    add = parser.add_argument
    add("--logfile", type=Path, metavar="FILE", help="append the log to this file (default: stderr)")
    add("--log-level", choices=("debug", "info", "warning"), default="info", help="how much to log")
    add(
        "--log-format",
        choices=FORMATS,
        default=os.environ.get(LOG_FORMAT) or "text",
        help="lines for people, or an object of JSON for each record",
    )
    rotation = "size from which -logfile is rotated, in bytes or as 500K, 8M; 0: never"
    add("--log-size", type=parse_size_or_none, default="8M", metavar="SIZE", help=rotation)
    add(
        "--log-keep",
        type=parse_count,
        default=DEFAULT_KEPT,
        metavar="N",
        help="older files that are kept when it is rotated",
    )


def start_log(flags: argparse.Namespace) -> LogTail:
    """Set up logging as the flags of `add_log_flags` say, and return the tail of the log."""
    return set_up_logging(flags.log_level, flags.logfile, flags.log_format, LogLimits(flags.log_size, flags.log_keep))


def set_up_logging(
    level: str, logfile: Path | None = None, form: str = "text", limits: LogLimits | None = None
) -> LogTail:
    """Send log records of `level` and above to `logfile`, or to stderr if it is None.

    `level` is a name of `logging`, in any case. `form` is one of FORMATS. Return the tail of the
    log. Raise UserError if the file cannot be opened, or if another user could exchange it.
    """
    if logfile:
        require_own(logfile, "see -logfile")
    try:
        handler = RotatedFile(logfile, limits or LogLimits()) if logfile else logging.StreamHandler()
    except OSError as error:
        raise UserError(f"{logfile}: cannot write the log: {error.strerror}", hint="see -logfile") from error
    tail = LogTail()
    root = logging.getLogger()
    for each in (handler, tail):
        each.setFormatter(JsonFormatter() if form == "json" else LogFormatter())
        root.addHandler(each)
    root.setLevel(level.upper())
    return tail
