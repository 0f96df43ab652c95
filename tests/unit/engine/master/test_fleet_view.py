"""The live stream says of workers and of the queue what the master knows of them."""

from types import SimpleNamespace
from typing import cast

import msgspec

from termite.cli.display.top_screen import worker_word
from termite.engine.errors import Reason
from termite.engine.fleet.pool import Pool
from termite.engine.fleet.trouble import Trouble
from termite.engine.history.logic.live_events import QueueWaits, WorkerChanged, WorkerLeft
from termite.engine.master.recording.fleet_view import FleetView, changes_of, view_fleet
from termite.engine.model import MachineFacts
from termite.engine.wire.protocol.fleet_messages import ListedWorker


def worker(name: str, load: float = 0.5) -> ListedWorker:
    return ListedWorker(name, f"{name}:1235", 8, 0, load, 2**30, False, MachineFacts(cores=4))


def lease(name: str, running: int, jobs: int) -> SimpleNamespace:
    return SimpleNamespace(worker=name, release="0.1.0", slots=4, running=running, jobs=jobs, offset_ns=3_000_000)


def pool(**facts: object) -> Pool:
    fleet = SimpleNamespace(workers=(worker("a"), worker("b")), foreign={"c": "worker c gets no commands"}, drained=())
    whole = {
        "fleet": fleet,
        "leases": (lease("a", 1, 10), lease("a", 2, 5)),
        "refusals": {"b": Reason.CLOCKS_DIFFER},
        "waiting": 0,
        "trouble": None,
    }
    return cast(Pool, SimpleNamespace(**{**whole, **facts}))


def test_workers_are_shown_with_their_leases_refusals_and_silence() -> None:
    view = view_fleet(pool(), {"a": 99.0}, is_checking=False)
    assert list(view.workers) == ["a", "b", "c"]
    a, b, c = view.workers.values()
    assert (a.slots, a.running, a.jobs, a.cores, a.load, a.free_memory_bytes) == (8, 3, 15, 4, 0.5, 2**30)
    assert (a.clock_offset_ms, a.silent_since_s, a.reason) == (3, 99.0, "")
    assert (b.reason, b.detail, b.slots) == (Reason.CLOCKS_DIFFER.value, Reason.CLOCKS_DIFFER.words, 0)
    assert (c.reason, c.detail, c.load) == (Reason.OTHER_ARCHITECTURE.value, "worker c gets no commands", -1.0)


def test_the_queue_says_what_it_waits_for() -> None:
    trouble = Trouble(Reason.NO_ANSWER, "no answer")
    assert view_fleet(pool(), {}, is_checking=True).waits_for == "the check of files outside the tree"
    assert view_fleet(pool(waiting=3), {}, is_checking=False).waits_for == ""
    assert view_fleet(pool(waiting=3, leases=()), {}, is_checking=False).waits_for == "a worker"
    no_answer = view_fleet(pool(waiting=3, leases=(), trouble=trouble), {}, is_checking=False)
    assert no_answer.waits_for == "a worker: no answer"


def test_only_changes_are_sent() -> None:
    old = view_fleet(pool(), {}, is_checking=False)
    assert changes_of(old, view_fleet(pool(), {}, is_checking=False), 5.0) == []
    new = view_fleet(pool(leases=(), refusals={}), {}, is_checking=True)
    events = changes_of(FleetView({**old.workers, "gone": old.workers["a"]}, ""), new, 5.0)
    assert [type(event) for event in events] == [WorkerChanged, WorkerChanged, WorkerLeft, QueueWaits]
    assert events[0] == WorkerChanged(new.workers["a"]) and events[2] == WorkerLeft("gone", 5.0)


def test_a_drained_worker_is_shown_as_one_with_its_figures() -> None:
    drained = msgspec.structs.replace(worker("a"), draining=True)
    fleet = SimpleNamespace(workers=(worker("b"),), foreign={}, drained=(drained,))
    view = view_fleet(pool(fleet=fleet, refusals={}), {}, is_checking=False)
    assert [(one.name, one.is_drained, one.cores) for one in view.workers.values()] == [("a", True, 4), ("b", False, 4)]
    assert worker_word(view.workers["a"], 0.0) == "drained; 3 jobs still run"
    idle = view_fleet(pool(fleet=fleet, refusals={}, leases=()), {}, is_checking=False)
    assert worker_word(idle.workers["a"], 0.0) == "drained"
