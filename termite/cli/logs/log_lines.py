"""A record of a log as text or as JSON, such that nobody can forge a line.

The text is `time LEVEL event key=value ...`. In JSON each record is an object on one line: `time`
(UTC, ISO 8601), `level`, `event`, and the keys of the event. Numbers stay numbers. Further lines,
such as a traceback, are indented in a text; in JSON they are the list `lines`. A record of another
library, which knows no events, has `text` instead of `event`. A credential in a traceback, whose
error may quote a command, is `***`.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from termite.engine.decide.logic.command_mask import mask_text
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

INDENT = "    "  # no line of a traceback looks like a line of the log
FORMATS = ("text", "json")
_TEXT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s"
_TIME = "%Y-%m-%d %H:%M:%S"
_EVENT = re.compile(r"[a-z]+(?:-[a-z]+)+(?= |$)")
_KEY = re.compile(r"([a-z_]+)=(%s:%d|%[srd]|\S*)")


class LogFormatter(logging.Formatter):
    """A formatter of lines of text."""

    def __init__(self, text: str = _TEXT) -> None:
        super().__init__(text, _TIME)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and its further lines indented below it."""
        return "\n".join([super().format(record), *(INDENT + line for line in _further_lines(record))])

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without control characters."""
        return printable(super().formatMessage(record), LONGEST_LINE)

    def formatException(self, ei: Any) -> str:
        """Return a traceback, whose last line has texts of others, as indented lines."""
        lines = mask_text(super().formatException(ei), ()).split("\n")
        return "\n".join(INDENT + printable(line, LONGEST_LINE) for line in lines)


class JsonFormatter(logging.Formatter):
    """A formatter of records as JSON, which never fails. An odd record is one `text`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of a record, on one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        whole: dict[str, object] = {"time": time, "level": record.levelname.lower(), **_fields_of(record)}
        lines = list(_further_lines(record))
        if record.exc_info:
            traceback = mask_text(self.formatException(record.exc_info), ())
            lines += [printable(line, LONGEST_LINE) for line in traceback.split("\n")]
        if lines:
            whole["lines"] = lines
        return json.dumps(whole)


def message_json(program: str, level: str, text: str) -> str:
    """Return a line of a front end or another program of the user, in the same form."""
    record = logging.LogRecord(program, logging.getLevelName(level.upper()), "", 0, "%s", (text,), None)
    return JsonFormatter().format(record).replace("{", f'{{"program": {json.dumps(program)}, ', 1)


def _further_lines(record: logging.LogRecord) -> list[str]:
    """Return the lines that were given as `extra={"further_lines": ...}`."""
    return [printable(line, LONGEST_LINE) for line in getattr(record, "further_lines", ())]


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the event and its keys, or the text if the record is not of this form."""
    form = record.msg if isinstance(record.msg, str) else ""
    event = _EVENT.match(form)
    values = list(record.args) if isinstance(record.args, tuple) else []
    fields: dict[str, object] = {"event": event[0]} if event else {}
    for key, piece in _KEY.findall(form[event.end() :] if event else ""):
        used, values = values[: piece.count("%")], values[piece.count("%") :]
        number = used[0] if piece == "%d" and used else None
        text = printable(piece % tuple(used), LONGEST_LINE)
        fields[key] = int(number) if isinstance(number, int | float) else text
    if not event or values:
        return {"text": printable(record.getMessage(), LONGEST_LINE)}
    return fields
