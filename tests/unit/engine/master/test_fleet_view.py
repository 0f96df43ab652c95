"""The live stream says of workers and of the queue what the master knows of them."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import msgspec

from termite.cli.display.worker_words import standing_of, worker_word
from termite.engine.errors import Reason
from termite.engine.fleet.logic.known_workers import Departure
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


def fleet_of(*workers: ListedWorker, **facts: object) -> SimpleNamespace:
    return SimpleNamespace(**{"workers": workers, "foreign": {}, "drained": (), "gone": {}, "broken": {}, **facts})


def pool(silent: Mapping[str, float] | None = None, **facts: object) -> Pool:
    fleet = fleet_of(worker("a"), worker("b"), foreign={"c": "i686"})
    whole = {
        "fleet": fleet,
        "leases": (lease("a", 1, 10), lease("a", 2, 5)),
        "refusals": {"b": Reason.CLOCKS_DIFFER},
        "waiting": 0,
        "trouble": None,
        "silences": SimpleNamespace(since_s=lambda: silent or {}),
    }
    return cast(Pool, SimpleNamespace(**{**whole, **facts}))


def test_workers_are_shown_with_their_leases_refusals_and_silence() -> None:
    view = view_fleet(pool(silent={"a": 9.0}), 90.0, is_checking=False)
    assert list(view.workers) == ["a", "b", "c"]
    a, b, c = view.workers.values()
    assert (a.slots, a.running, a.jobs, a.cores, a.load, a.free_memory_bytes) == (8, 3, 15, 4, 0.5, 2**30)
    assert (a.clock_offset_ms, a.silent_since_s, a.reason) == (3, 99.0, "")
    assert (b.reason, b.detail, b.slots) == (Reason.CLOCKS_DIFFER.value, "", 0)
    assert (c.reason, c.detail, c.load) == (Reason.OTHER_ARCHITECTURE.value, "i686", -1.0)


def test_the_queue_says_what_it_waits_for() -> None:
    trouble = Trouble(Reason.NO_ANSWER, "no answer")
    assert view_fleet(pool(), 0.0, is_checking=True).waits_for == "the check of files outside the tree"
    assert view_fleet(pool(waiting=3), 0.0, is_checking=False).waits_for == ""
    assert view_fleet(pool(waiting=3, leases=()), 0.0, is_checking=False).waits_for == "a worker"
    no_answer = view_fleet(pool(waiting=3, leases=(), trouble=trouble), 0.0, is_checking=False)
    assert no_answer.waits_for == "a worker: no answer"


def test_only_changes_are_sent() -> None:
    old = view_fleet(pool(), 0.0, is_checking=False)
    assert changes_of(old, view_fleet(pool(), 0.0, is_checking=False), 5.0) == []
    new = view_fleet(pool(leases=(), refusals={}), 0.0, is_checking=True)
    events = changes_of(FleetView({**old.workers, "gone": old.workers["a"]}, ""), new, 5.0)
    assert [type(event) for event in events] == [WorkerChanged, WorkerChanged, WorkerLeft, QueueWaits]
    assert events[0] == WorkerChanged(new.workers["a"]) and events[2] == WorkerLeft("gone", 5.0)


def test_a_drained_worker_is_shown_as_one_with_its_figures() -> None:
    drained = msgspec.structs.replace(worker("a"), draining=True)
    fleet = fleet_of(worker("b"), drained=(drained,))
    view = view_fleet(pool(fleet=fleet, refusals={}), 0.0, is_checking=False)
    assert [(one.name, one.is_drained, one.cores) for one in view.workers.values()] == [("a", True, 4), ("b", False, 4)]
    assert worker_word(view.workers["a"], 0.0) == "drained; 3 jobs still run"
    idle = view_fleet(pool(fleet=fleet, refusals={}, leases=()), 0.0, is_checking=False)
    assert worker_word(idle.workers["a"], 0.0) == "drained"


def test_workers_that_are_gone_or_were_cut_off_are_shown_with_the_time() -> None:
    gone = {"b": Departure(8.0, is_lost=False), "d": Departure(2.0, is_lost=True), "a": Departure(9.0, is_lost=True)}
    fleet = fleet_of(worker("e"), worker("a"), gone=gone, broken={"e": 7.0, "a": 1.0})
    view = view_fleet(pool(fleet=fleet, refusals={}), 100.0, is_checking=False)
    assert {name: (standing_of(one).value, worker_word(one, 110.0)) for name, one in view.workers.items()} == {
        "a": ("well", ""),  # its lease is open, whatever the coordinator hears
        "b": ("stopped", "stopped 2.00 s ago"),
        "d": ("lost", "lost: silent for 8.00 s"),
        "e": ("broken", "the connection broke 3.00 s ago; no slot is leased"),
    }
    assert list(view.workers) == ["a", "b", "d", "e"]


def test_two_looks_at_the_same_workers_see_the_same() -> None:
    fleet = fleet_of(worker("e"), gone={"d": Departure(2.0, is_lost=True)}, broken={"e": 7.0})
    seen = [
        view_fleet(pool({"a": 1.5}, fleet=fleet), since_epoch_s, is_checking=False)
        for since_epoch_s in (1e9, 1e9 + 2e-5)  # two clocks are never read at the same moment
    ]
    assert changes_of(seen[0], seen[1], 5.0) == []
