"""The log of a daemon: lines `time LEVEL event key=value` on stderr, or appended to a file."""

import logging
from pathlib import Path

from termite.engine.errors import UserError
from termite.engine.host.ownership import require_own

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s"
_TIME = "%Y-%m-%d %H:%M:%S"


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
    handler.setFormatter(logging.Formatter(_FORMAT, _TIME))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
