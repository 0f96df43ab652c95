"""A worker shows a master the end of its log, without records about mirrors of other masters."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from termite.engine.host.log_tail import LONGEST_RECORD, MOST_RECORDS, LogTail
from termite.engine.wire.protocol.control_lines import LINE_BYTES, MirrorNotice, encode_line
from termite.engine.worker.shown_log import log_order


def tail_of(*messages: str) -> LogTail:
    tail = LogTail()
    for message in messages:
        tail.handle(logging.LogRecord("termite", logging.INFO, "", 0, "%s", (message,), None))
    return tail


def test_only_records_of_this_mirror_and_of_the_worker_itself_are_shown() -> None:
    tail = tail_of(
        "lease-granted pid=7 master=a",
        "lease-granted pid=77 master=b",
        "mirror-said pid=77 line=INFO x pid=7",
        "mirror-stands-still pid=77",
        "mirror-stands-still pid=7",
        "coordinator-found coordinator=c",
        "peer-refused reason=some pid=77 text",
    )
    order = log_order(tail, 7, MirrorNotice(log_after=0, log_most=100))
    assert order.log == (
        "lease-granted pid=7 master=a",
        "mirror-stands-still pid=7",
        "coordinator-found coordinator=c",
        "peer-refused reason=some pid=77 text",
    )
    assert order.log_number == 7


def test_the_last_records_after_a_number_are_shown() -> None:
    tail = tail_of(*"abcdef")
    assert [record.text for record in tail.records_after(2, 2)] == ["e", "f"]
    assert [record.text for record in tail.records_after(4, 100)] == ["e", "f"]
    assert tail.records_after(6, 100) == [] == tail.records_after(0, 0)
    assert LogTail().records_after(0, 5) == [] and LogTail().number == 0


def test_the_tail_has_a_limit() -> None:
    tail = tail_of(*("x" * (LONGEST_RECORD + 1) for _ in range(MOST_RECORDS + 5)))
    records = tail.records_after(0, 2 * MOST_RECORDS, most_characters=10**9)
    assert len(records) == MOST_RECORDS
    assert records[-1].number == MOST_RECORDS + 5
    assert {len(record.text) for record in records} == {LONGEST_RECORD}


@given(st.lists(st.text(), max_size=30), st.integers(1, 40))
def test_an_answer_fits_into_a_line(texts: list[str], factor: int) -> None:
    order = log_order(tail_of(*(text * factor * 200 for text in texts)), 7, MirrorNotice(log_after=0, log_most=1000))
    assert len(encode_line(order)) < LINE_BYTES
