"""The log of a daemon: lines `time LEVEL event key=value` on stderr, or appended to a file."""

import logging
from pathlib import Path
from typing import Any

from termite.engine.errors import UserError
from termite.engine.host.ownership import require_own
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

_INDENT = "    "  # no line of a traceback looks like a line of the log
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s"
_TIME = "%Y-%m-%d %H:%M:%S"


class LogFormatter(logging.Formatter):
    """A formatter whose lines nobody can forge, although names and texts of others are in them."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without control characters."""
        return printable(super().formatMessage(record), LONGEST_LINE)

    def formatException(self, ei: Any) -> str:
        """Return a traceback, whose last line has texts of others, as indented lines."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(_INDENT + printable(line, LONGEST_LINE) for line in lines)


def set_up_logging(level: str, logfile: Path | None = None) -> None:
    """Send log records of `level` and above to `logfile`, or to stderr if it is None.

    `level` is a name of `logging`, in any case.
    Raise UserError if the file cannot be opened, or if another user could exchange it.
    """
    if logfile:
        require_own(logfile, "see -logfile")
    try:
        handler: logging.Handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler()
    except OSError as error:
        raise UserError(f"{logfile}: cannot write the log: {error.strerror}", hint="see -logfile") from error
    handler.setFormatter(LogFormatter(_FORMAT, _TIME))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
