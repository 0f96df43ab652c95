"""The report of a crash: a file that says where a program of termite has failed by our own fault.

The reports are in `crashes/` below the user's state directory, one file each, mode 0600. Only the
newest ones are kept. A report has no values of environment variables, because it may be shown to
others: each of some length that occurs in a text is replaced by the variable's name. A credential
is `***`.
"""

import logging
import os
import platform
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from termite.cli.flags import VERSION, report
from termite.cli.places import STATE, own_directory
from termite.engine.decide.logic.command_mask import mask_text
from termite.engine.errors import ExitCode, UserError
from termite.engine.host.log_tail import LogTail
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

MOST_REPORTS = 20
MOST_RECORDS = 200
MOST_LINES = 2000  # of the traceback; a group of exceptions has one for each
SHORTEST_VALUE = 6  # shorter values, such as `1` and `C`, say nothing and occur everywhere


def report_crash(program: str, error: BaseException) -> int:
    """Write the report of `error` and print a line that says where it is. Return the exit code.

    If the report cannot be written, print the traceback instead.
    """
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    what = without_values("".join(traceback.format_exception_only(first)).strip(), os.environ)
    try:
        path = write_report(program, error)
    except (OSError, UserError) as reason:
        traceback.print_exception(error)
        report(program, UserError(f"this is an error inside termite; its report cannot be written: {reason}"))
    else:
        report(program, UserError(f"an error inside termite: {printable(what)}; the report is {path}"))
    return ExitCode.FAILED


def write_report(program: str, error: BaseException) -> Path:
    """Write a report, remove the oldest ones, and return its path. Raise OSError or UserError."""
    directory = own_directory(STATE) / "crashes"
    directory.mkdir(mode=0o700, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = directory / f"{stamp}-{program}-{os.getpid()}"
    text = report_text(program, error, os.environ)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    for older in sorted(directory.iterdir())[:-MOST_REPORTS]:
        with suppress(OSError):  # another crash has removed it
            older.unlink()
    return path


def report_text(program: str, error: BaseException, env: Mapping[str, str]) -> str:
    """Return the text of a report: versions, the last records of the log, and the traceback."""
    lines = [
        f"{program} {VERSION}, Python {platform.python_version()}, Linux {os.uname().release} {os.uname().machine}",
        f"process {os.getpid()} of user {os.geteuid()}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        "",
        "Last records of the log:",
        *_last_records(),
        "",
        *"".join(traceback.format_exception(error)).splitlines()[-MOST_LINES:],
    ]
    return "\n".join(printable(line, LONGEST_LINE) for line in without_values("\n".join(lines), env).split("\n")) + "\n"


def without_values(text: str, env: Mapping[str, str]) -> str:
    """Return the text without credentials, and with `$NAME` for each value of a variable."""
    values = {value: name for name, value in env.items() if len(value) >= SHORTEST_VALUE}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, f"${values[value]}")
    return mask_text(text, ())


def _last_records() -> list[str]:
    tails = [handler for handler in logging.getLogger().handlers if isinstance(handler, LogTail)]
    records = [record for tail in tails for record in tail.records_after(0, MOST_RECORDS)]
    return [line for record in records for line in record.text.split("\n")] or ["(none)"]
