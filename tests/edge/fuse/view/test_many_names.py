"""A trace of more names, and of more kinds of access, than a short number counts."""

from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.fuse.view.trace_names import TraceNames
from tests.unit.fuse.view.test_trace_names import decoded, noted, sent


def test_many_names_and_many_kinds_need_wider_numbers() -> None:
    names, learnt = TraceNames(), LearntNames()
    uses = [(b"/%x" % i, i % 400, i % 700 | i % 400) for i in range(70_000)]
    trace = sent(names.pack(noted(uses), 1, 0))
    learnt.learn(trace)
    assert not trace.is_short
    assert decoded(learnt, trace) == uses
