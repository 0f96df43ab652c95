"""The last records of a daemon's log, kept in memory.

`termite-ctl logs` shows them, wherever the log goes, and the report of a crash has them.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

MOST_RECORDS = 1000
LONGEST_RECORD = 4000  # characters: so that the tail takes 4 MB at most


class TailRecord(NamedTuple):
    """A record of the log: its number since the start of the daemon, its message and its text.

    The text is what the log has, with time and level, and may have several lines.
    """

    number: int
    message: str
    text: str


class LogTail(logging.Handler):
    """A handler that remembers the last records. Records are numbered from 1."""

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[TailRecord] = deque(maxlen=MOST_RECORDS)
        self._number = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a record."""
        self._number += 1
        text = self.format(record)[:LONGEST_RECORD]
        self._records.append(TailRecord(self._number, record.getMessage()[:LONGEST_RECORD], text))

    def records_after(
        self, number: int, most: int, is_shown: Callable[[TailRecord], bool] = lambda record: True
    ) -> list[TailRecord]:
        """Return at most the last `most` records with a higher number that `is_shown` accepts."""
        found = [record for record in self._records if record.number > number and is_shown(record)]
        return found[-most:] if most > 0 else []

    @property
    def number(self) -> int:
        """The number of the last record, 0 if there is none."""
        return self._number
