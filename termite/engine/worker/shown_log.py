"""The part of a worker's log that the master of one lease may see.

Records about the mirror processes of other masters name these masters, and files of theirs.
"""

import re

from termite.engine.host.log_tail import LogTail, TailRecord
from termite.engine.wire.protocol.control_lines import MirrorNotice, WorkerOrder

ANSWER_CHARACTERS = 32 * 1024  # of JSON: a line has at most 64 KiB
_OF_A_MIRROR = re.compile(r"\S+ pid=(\d+)(?: |$)")


def log_order(tail: LogTail, pid: int, asked: MirrorNotice) -> WorkerOrder:
    """Return the answer to the mirror `pid`, which has asked for records of the log."""

    def is_shown(record: TailRecord) -> bool:
        found = _OF_A_MIRROR.match(record.message)
        return found is None or int(found[1]) == pid

    records = tail.records_after(asked.log_after or 0, asked.log_most, is_shown, ANSWER_CHARACTERS)
    texts = tuple(record.text for record in records)
    return WorkerOrder(log_number=tail.number, log=texts, log_question=asked.log_question)


def is_about_a_mirror(record: TailRecord) -> bool:
    """Return True if a record is about a mirror process, and so about its master."""
    return _OF_A_MIRROR.match(record.message) is not None
