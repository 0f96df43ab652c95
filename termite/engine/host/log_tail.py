"""The last records of a daemon's log, kept in memory.

`termite-ctl logs` shows them, wherever the log goes, and the report of a crash has them.
"""

import json
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

MOST_RECORDS = 1000
LONGEST_RECORD = 4000  # characters: so that the tail takes 4 MB at most
ANSWER_CHARACTERS = 1024 * 1024  # of an answer to termite-ctl


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
        self,
        number: int,
        most: int,
        is_shown: Callable[[TailRecord], bool] = lambda record: True,
        most_characters: int = ANSWER_CHARACTERS,
    ) -> list[TailRecord]:
        """Return at most the last `most` records with a higher number that `is_shown` accepts.

        As texts of JSON they have at most `most_characters` together.
        """
        found: list[TailRecord] = []
        for record in reversed(self._records):
            if record.number <= number or len(found) >= most:
                break
            if is_shown(record):
                most_characters -= len(json.dumps(record.text)) + 2
                if most_characters < 0:
                    break
                found.append(record)
        return found[::-1]

    @property
    def number(self) -> int:
        """The number of the last record, 0 if there is none."""
        return self._number
