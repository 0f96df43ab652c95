"""Tests of the list of live workers, and of the shares of a worker's slots."""

from hypothesis import given
from hypothesis import strategies as st

from termite.engine.fleet.logic.registry import Registry
from termite.engine.wire.protocol.messages import PROTOCOL, Register
from termite.engine.worker.slot_shares import share_slots

A = "10.0.0.1:1235"


def beat(name: str = "w", slots: int = 4, load: float = 0.0, draining: bool = False) -> Register:
    return Register(PROTOCOL, name, ":1235", slots, 0, load, 1, draining)


def registry() -> Registry:
    return Registry(1000, forget_after_s=15)


def test_a_worker_is_known_from_its_first_heartbeat() -> None:
    known = registry()
    assert known.register(beat(), A, now=0)
    (worker,) = known.workers()
    assert (worker.name, worker.address, worker.slots) == ("w", A, 4)
    assert known.version == 1001


def test_a_heartbeat_updates_the_load_without_a_new_version() -> None:
    known = registry()
    known.register(beat(), A, now=0)
    assert not known.register(beat(load=3.5), A, now=5)
    assert known.workers()[0].load == 3.5
    assert known.version == 1001


def test_another_address_or_size_or_draining_is_a_new_version() -> None:
    known = registry()
    known.register(beat(), A, now=0)
    assert known.register(beat(), "10.0.0.2:1235", now=1)
    assert known.register(beat(slots=8), "10.0.0.2:1235", now=2)
    assert known.register(beat(slots=8, draining=True), "10.0.0.2:1235", now=3)
    assert known.version == 1004


def test_a_worker_is_forgotten_after_three_silent_intervals() -> None:
    known = registry()
    known.register(beat("early"), A, now=0)
    known.register(beat("late"), A, now=5)
    assert known.forget(now=15) == []
    assert known.version == 1002
    assert known.forget(now=15.1) == ["early"]
    assert known.version == 1003
    assert [worker.name for worker in known.workers()] == ["late"]


def test_a_worker_that_says_goodbye_is_gone_at_once() -> None:
    known = registry()
    known.register(beat(), A, now=0)
    assert known.deregister("w")
    assert not known.deregister("w")
    assert known.workers() == ()
    assert known.version == 1002


def test_a_single_lease_gets_what_it_wants_if_it_is_there() -> None:
    assert share_slots(8, {1: 3}) == {1: 3}
    assert share_slots(8, {1: 100}) == {1: 8}
    assert share_slots(8, {}) == {}


def test_two_hungry_leases_share_fairly_and_a_modest_one_gets_its_wish() -> None:
    assert share_slots(8, {1: 100, 2: 100}) == {1: 4, 2: 4}
    assert share_slots(9, {1: 100, 2: 100}) == {1: 5, 2: 4}
    assert share_slots(8, {1: 100, 2: 1, 3: 100}) == {1: 4, 2: 1, 3: 3}


def test_with_fewer_slots_than_leases_the_oldest_have_one() -> None:
    assert share_slots(2, {5: 4, 3: 4, 9: 4}) == {5: 1, 3: 1, 9: 0}


@given(st.integers(0, 50), st.dictionaries(st.integers(0, 20), st.integers(0, 60), max_size=10))
def test_a_share_is_fair_and_wastes_nothing(slots: int, wanted: dict[int, int]) -> None:
    granted = share_slots(slots, wanted)
    assert sum(granted.values()) == min(slots, sum(wanted.values()))
    for lease, count in granted.items():
        assert 0 <= count <= wanted[lease]
        if count < wanted[lease]:  # it wants more, so no other lease has two more
            assert all(other <= count + 1 for other in granted.values())
