"""Tests of where leases are opened, which one gets a job, and when a job stops waiting."""

from dataclasses import dataclass

from termite.engine.fleet.logic.known_workers import LEASE_SLOTS, NO_WORKER_GRACE_S, SILENCE_S, Departure, Fleet
from termite.engine.fleet.logic.lease_choice import choose_lease
from termite.engine.wire.protocol.fleet_messages import GoneWorker, ListedWorker


@dataclass
class OneLease:
    worker: str
    slots: int
    running: int
    is_open: bool = True


def worker(name: str, slots: int = 4, load: float = 0.0, draining: bool = False) -> ListedWorker:
    return ListedWorker(name, f"{name}:1235", slots, 0, load, 0, draining)


def wishes(fleet: Fleet, waiting: int, now: float = 0.0) -> list[tuple[str, int]]:
    return [(wish.worker.name, wish.slots) for wish in fleet.wishes(waiting, now)]


def test_the_job_goes_where_the_smallest_part_is_taken() -> None:
    assert choose_lease([OneLease("a", 4, 2), OneLease("b", 16, 4)]) == OneLease("b", 16, 4)
    assert choose_lease([OneLease("a", 2, 2), OneLease("b", 1, 1)]) is None
    assert choose_lease([OneLease("a", 2, 0, is_open=False)]) is None


def test_a_worker_that_failed_this_job_is_avoided_while_there_is_another_one() -> None:
    assert choose_lease([OneLease("a", 4, 0), OneLease("b", 4, 3)], {"a"}) == OneLease("b", 4, 3)
    assert choose_lease([OneLease("a", 4, 0), OneLease("b", 4, 4)], {"a"}) is None
    assert choose_lease([OneLease("a", 4, 0)], {"a"}) == OneLease("a", 4, 0)


def test_as_many_leases_are_opened_as_jobs_wait_the_idlest_workers_first() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a", load=3.0), worker("b"), worker("c", load=1.0), worker("d", draining=True)], 0.0)
    assert wishes(fleet, 2) == [("b", 4), ("c", 4)]
    assert wishes(fleet, 2) == []
    assert wishes(fleet, 9) == [("a", 4)]


def test_who_has_gone_is_remembered_until_it_comes_back() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a")], 50.0, [GoneWorker("b", 20.0, is_lost=True), GoneWorker("a", 1.0, is_lost=False)])
    assert fleet.gone == {"b": Departure(30.0, is_lost=True)}
    fleet.replace([worker("a"), worker("b")], 60.0)
    assert fleet.gone == {}


def test_a_broken_lease_is_remembered_until_the_next_one() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a"), worker("b")], 0.0)
    assert wishes(fleet, 2) == [("a", 4), ("b", 4)]
    for name in ("a", "b"):
        fleet.opened(name, 4)
        fleet.closed(name, 4, 1.0)
        fleet.broke(name, 1.0)
    assert wishes(fleet, 2, now=1.1) == [] and fleet.broken == {"a": 1.0, "b": 1.0}
    assert wishes(fleet, 1, now=9.0) == [("a", 4)]
    fleet.opened("a", 4)
    assert fleet.broken == {"b": 1.0}
    fleet.replace([worker("a")], 10.0)
    assert fleet.broken == {}


def test_many_slots_of_one_worker_are_several_leases() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("big", slots=LEASE_SLOTS + 4)], 0.0)
    assert wishes(fleet, 50) == [("big", LEASE_SLOTS)]
    fleet.opened("big", LEASE_SLOTS)
    assert wishes(fleet, 50) == [("big", 4)]
    fleet.opened("big", 4)
    assert wishes(fleet, 50) == []


def test_the_total_is_never_exceeded() -> None:
    fleet = Fleet(6, 0.0)
    fleet.replace([worker("a"), worker("b"), worker("c")], 0.0)
    assert wishes(fleet, 50) == [("a", 4), ("b", 2)]


def test_a_worker_that_gave_less_than_asked_is_not_asked_for_more() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a")], 0.0)
    fleet.wishes(1, 0.0)
    fleet.opened("a", 2)
    assert wishes(fleet, 9) == []
    fleet.closed("a", 2, 0.0)
    assert wishes(fleet, 9) == [("a", 4)]


def test_a_failing_worker_is_left_alone_for_longer_and_longer_until_a_job_comes_back() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a")], 0.0)
    pauses, now = [], 0.0
    for _ in range(3):
        assert wishes(fleet, 1, now) == [("a", 4)]
        fleet.refused("a", now)
        retry = fleet.next_retry(now)
        assert retry is not None
        pauses.append(retry - now)
        assert wishes(fleet, 1, retry - 0.01) == []
        now = retry
    assert pauses == [0.5, 1.0, 2.0]
    fleet.succeeded("a")
    fleet.failed("a", now)
    assert fleet.next_retry(now) == now + 0.5


def test_the_jobs_that_die_with_one_mirror_are_one_failure() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a")], 0.0)
    for _ in range(16):
        fleet.failed("a", 10.0)
    assert fleet.next_retry(10.0) == 10.5
    fleet.failed("a", 10.5)
    assert fleet.next_retry(10.5) == 11.5
    fleet.failed("a", 11.0, 60.0)
    assert fleet.next_retry(11.0) == 71.0


def test_a_worker_that_was_started_again_is_asked_at_once() -> None:
    fleet = Fleet(0, 0.0)
    fleet.replace([worker("a")], 0.0)
    fleet.failed("a", 0.0)
    assert wishes(fleet, 1, 0.4) == []
    fleet.replace([], 0.4)
    fleet.replace([worker("a")], 0.4)
    assert wishes(fleet, 1, 0.4) == [("a", 4)]


def test_a_job_waits_for_a_moment_without_a_worker_and_as_long_as_there_is_a_lease() -> None:
    fleet = Fleet(0, 0.0)
    assert fleet.is_worker_expected(NO_WORKER_GRACE_S - 0.1)
    assert not fleet.is_worker_expected(NO_WORKER_GRACE_S)
    fleet.replace([worker("a")], 10.0)
    assert fleet.is_worker_expected(100.0)
    fleet.wishes(1, 100.0)
    fleet.opened("a", 4)
    fleet.replace([], 200.0)
    assert fleet.is_worker_expected(300.0)
    fleet.closed("a", 4, 1000.0)
    assert fleet.is_worker_expected(1000.0)
    assert not fleet.is_worker_expected(1000.0 + NO_WORKER_GRACE_S)


def test_a_lease_of_a_drained_worker_is_no_hope_for_a_waiting_job() -> None:
    fleet = Fleet(0, now=0.0)
    fleet.replace([worker("a")], now=0.0)
    (wish,) = fleet.wishes(1, now=0.0)
    fleet.opened("a", wish.slots)
    assert fleet.is_worker_expected(10.0)
    fleet.replace([worker("a", draining=True)], now=10.0)
    assert [one.name for one in fleet.drained] == ["a"] and not fleet.workers
    assert fleet.is_worker_expected(12.0) and not fleet.is_worker_expected(14.0)
    assert fleet.patience_ends(waiting_since=10.0, now=14.0) == 10.0 + SILENCE_S
    fleet.replace([worker("a")], now=20.0)
    assert fleet.is_worker_expected(30.0) and not fleet.drained
