"""Answers of a worker about its log go to those who have asked."""

import socket

import trio
from trio.testing import wait_all_tasks_blocked

from termite.engine.host.log_tail import LogTail
from termite.engine.wire.line_socket import LineSocket
from termite.engine.wire.protocol.control_lines import MirrorNotice, WorkerOrder
from termite.engine.wire.protocol.messages import GetLog, LogRecords
from termite.engine.worker.shown_log import log_order
from termite.fuse.log_questions import LogQuestions
from termite.fuse.worker_line import WorkerLine


async def test_a_late_answer_is_not_taken_for_that_to_the_next_question() -> None:
    ours, theirs = socket.socketpair()
    worker = LineSocket(theirs)
    line = WorkerLine(ours.detach())
    questions = LogQuestions(line)
    answers: list[LogRecords] = []

    async def ask() -> None:
        answers.append(await questions.read(GetLog(after=0, most=9)))

    async def order_of(number: int) -> WorkerOrder:
        asked = await worker.receive(MirrorNotice)
        assert asked is not None
        order = log_order(LogTail(), 1, asked)
        return WorkerOrder(log_number=number, log=order.log, log_question=order.log_question)

    with trio.fail_after(10):
        async with trio.open_nursery() as first:
            first.start_soon(ask)
            late = await order_of(1)
            first.cancel_scope.cancel()
        async with trio.open_nursery() as second:
            second.start_soon(ask)
            answer = await order_of(2)
            questions.take(late)
            await wait_all_tasks_blocked()
            assert answers == []
            questions.take(answer)
    assert [found.number for found in answers] == [2]
    theirs.close()
