"""The events of a live stream, the queue of one reader, and the state that a reader has."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError
from termite.engine.history.logic.event_queue import EventQueue
from termite.engine.history.logic.job_record import Stage, Where
from termite.engine.history.logic.live_events import (
    Event,
    JobEnded,
    JobHome,
    JobQueued,
    JobRetried,
    JobSent,
    Missed,
    QueueWaits,
    Snapshot,
    WorkerChanged,
    WorkerLeft,
    WorkerState,
    pack_event,
    parse_event,
)
from termite.engine.history.logic.live_state import LiveState
from tests.synthetic_builds import events_of, synthetic_build
from tests.unit.mutations import mutations

SYNTHETIC = synthetic_build(100)
EVENTS = events_of(SYNTHETIC)
OTHERS: list[Event] = [
    Missed(5),
    QueueWaits("a worker"),
    WorkerChanged(WorkerState(name="alpha", reason="clocks-differ")),
    WorkerLeft("alpha", 1.5, "connection-lost", "gone"),
]


def test_each_event_is_read_as_it_was_packed() -> None:
    for event in [*EVENTS, *OTHERS]:
        assert parse_event(pack_event(event)) == event


@given(mutations(pack_event(EVENTS[0])))
def test_a_damaged_event_is_an_error_of_the_protocol(payload: bytes) -> None:
    try:
        parse_event(payload)
    except RemoteProtocolError:
        return


def test_an_unknown_event_is_an_error_of_the_protocol() -> None:
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        parse_event(msgspec.msgpack.encode(["Unheard", 1]))


def test_all_events_together_leave_no_job_and_no_build() -> None:
    state = LiveState()
    for event in EVENTS:
        state.apply(event)
    assert (state.jobs, state.builds, state.home_counts) == ({}, {}, {1: 100})
    assert sorted(state.workers) == ["alpha", "beta", "gamma"]


def test_a_job_passes_through_its_stages() -> None:
    state, stages = LiveState(), []
    job = next(job for job in SYNTHETIC.jobs if job.attempts)
    for event in EVENTS:
        state.apply(event)
        if job.id in state.jobs:
            stages.append(state.jobs[job.id].stage)
    assert list(dict.fromkeys(stages)) == [Stage.QUEUED, Stage.SENT, Stage.ENDED]


def test_a_retried_job_is_queued_again() -> None:
    state = LiveState()
    job = next(job for job in SYNTHETIC.jobs if job.attempts)
    unfinished = msgspec.structs.replace(job, attempts=(), started_s=0.0, ended_s=0.0, home_s=0.0)
    state.apply(JobSent(unfinished))
    state.apply(JobRetried(job.id, job.attempts[0]))
    assert (state.jobs[job.id].stage, state.jobs[job.id].where) == (Stage.QUEUED, Where.UNDECIDED)
    assert state.jobs[job.id].attempts == job.attempts
    state.apply(JobRetried(10**9, job.attempts[0]))
    state.apply(JobEnded(10**9, 1.0, 2.0, 0))
    assert list(state.jobs) == [job.id]


def test_a_snapshot_replaces_what_was_known() -> None:
    state = LiveState()
    for event in EVENTS[:50]:
        state.apply(event)
    assert state.jobs
    snapshot = EVENTS[0]
    assert isinstance(snapshot, Snapshot)
    state.apply(Missed(3))
    state.apply(snapshot)
    assert (state.jobs, state.builds, state.missed) == ({}, {}, 3)


def test_a_snapshot_has_counted_the_jobs_that_came_home_before() -> None:
    state = LiveState()
    for event in EVENTS[:-1]:
        state.apply(event)
    first = EVENTS[0]
    assert isinstance(first, Snapshot) and state.home_counts == {1: 100}
    state.apply(msgspec.structs.replace(first, builds=(msgspec.structs.replace(SYNTHETIC.build, jobs=100),)))
    assert state.builds[1].jobs + state.home_counts.get(1, 0) == 100
    assert state.all_home == 100, "a counter never falls"


def test_a_queue_gives_what_was_added_in_order() -> None:
    queue = EventQueue(100)
    assert queue.is_empty
    queue.add(b"one")
    queue.add(b"two")
    assert not queue.is_empty
    assert queue.take() == (b"onetwo", 0)
    assert queue.is_empty and queue.take() == (b"", 0)


@given(st.lists(st.integers(0, 30)))
def test_a_queue_is_bounded_and_counts_every_event_that_it_drops(sizes: list[int]) -> None:
    queue = EventQueue(100)
    for size in sizes:
        queue.add(bytes(size))
    frames, missed = queue.take()
    assert len(frames) <= 100
    if missed:
        assert (frames, missed) == (b"", len(sizes))
    else:
        assert len(frames) == sum(sizes)


def test_a_queue_works_again_after_its_reader_was_told() -> None:
    queue = EventQueue(10)
    queue.add(bytes(11))
    queue.add(b"x")
    assert queue.take() == (b"", 2)
    queue.add(b"y")
    assert queue.take() == (b"y", 0)


def test_the_events_of_a_build_come_in_the_order_of_a_job() -> None:
    order = [JobQueued, JobSent, JobEnded, JobHome]
    kinds: dict[int, list[type[Event]]] = {job.id: [] for job in SYNTHETIC.jobs}
    for event in EVENTS:
        if isinstance(event, JobQueued | JobSent | JobHome):
            kinds[event.job.id].append(type(event))
        elif isinstance(event, JobEnded):
            kinds[event.id].append(JobEnded)
    for mine in kinds.values():
        assert mine == [kind for kind in order if kind in mine]
        assert mine[0] is JobQueued and mine[-1] is JobHome


def test_a_job_whose_command_has_just_ended_neither_runs_nor_waits() -> None:
    _, jobs = synthetic_build(20)
    done = next(job for job in jobs if job.where is Where.WORKER)
    sent = msgspec.structs.replace(done, started_s=0.0, ended_s=0.0, home_s=0.0)
    state = LiveState()
    state.apply(JobSent(sent))
    assert [job.id for job in state.running(done.ended_s - 0.1)] == [done.id]
    state.apply(JobEnded(done.id, done.started_s, done.ended_s, 0, 0))
    assert state.running(done.ended_s + 0.4) == [], "the event that it is home may be half a second late"
    assert [job.id for job in state.running(done.ended_s + 2)] == [done.id], "its results have been coming for long"
    answered = next(job for job in jobs if job.where is Where.ANSWERED)
    state.apply(Snapshot(at_s=1.0, master=state.master, jobs=(done, answered)))
    assert state.running(done.home_s + 9) == [] and state.waiting == []
