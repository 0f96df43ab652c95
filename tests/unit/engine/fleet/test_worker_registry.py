"""Tests of the list of live workers, and of the shares of a worker's slots."""

from termite.engine.fleet.logic.worker_registry import MOST_ADDRESSES, Registry
from termite.engine.wire.protocol.fleet_messages import MOST_GONE, GoneWorker, Register
from termite.engine.wire.protocol.messages import PROTOCOL

A, B = "10.0.0.1:1235", "10.0.0.2:1235"


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
    assert known.deregister("w", now=1)
    assert not known.deregister("w", now=2)
    assert known.workers() == ()
    assert known.version == 1002


def test_two_workers_of_one_name_are_rivals_from_the_second_turn() -> None:
    known = registry()
    for now, address in enumerate((A, B, A)):
        assert known.rival_of("w") == ""
        known.register(beat(), address, now)
    assert known.rival_of("w") == B
    known.register(beat(), B, now=5)
    assert (known.workers()[0].address, known.rival_of("w")) == (B, A)
    known.register(beat(), A, now=10)
    assert known.rival_of("w") == B


def test_a_worker_that_was_restarted_is_no_rival_of_itself() -> None:
    known = registry()
    known.register(beat(), A, now=0)
    for now in (1, 6, 11, 16):
        known.register(beat(), B, now)
        assert known.rival_of("w") == ""


def test_a_rival_that_has_ended_is_forgotten() -> None:
    known = registry()
    for now, address in enumerate((A, B, A)):
        known.register(beat(), address, now)
    for now in (5, 10, 15, 20):
        known.register(beat(), A, now)
    assert known.rival_of("w") == ""
    assert known.rival_of("another") == ""


def test_a_name_has_a_limit_of_addresses() -> None:
    known = registry()
    for port in range(1000):
        known.register(beat(), f"10.0.0.1:{port}", now=1)
    assert len(known._entries["w"].addresses) <= MOST_ADDRESSES + 1
    known.register(beat(), "10.0.0.1:998", now=2)
    assert known.rival_of("w") == "10.0.0.1:999"


def test_a_drained_worker_is_a_new_version_at_once_and_its_next_heartbeat_is_none() -> None:
    known = registry()
    known.register(beat(), A, now=0)
    assert known.drain("w", is_drained=True)
    assert not known.drain("w", is_drained=True)
    assert not known.drain("nobody", is_drained=True)
    assert known.workers()[0].draining and known.version == 1002
    assert not known.register(beat(draining=True), A, now=5)
    assert known.drain("w", is_drained=False)
    assert not known.workers()[0].draining


def test_a_lost_and_a_stopped_worker_are_shown_for_an_hour() -> None:
    known = registry()
    for name in ("lost", "stopped", "here"):
        known.register(beat(name), A, now=0)
    known.register(beat("here"), A, now=14)
    known.deregister("stopped", now=14)
    assert known.forget(16) == ["lost"]
    assert [(one.worker.name, one.silent_s, one.is_lost, one.is_stopped) for one in known.farm(20)] == [
        ("here", 6, False, False), ("lost", 20, True, False), ("stopped", 6, False, True),
    ]  # fmt: skip
    assert known.gone(20) == (GoneWorker("stopped", 6, is_lost=False), GoneWorker("lost", 20, is_lost=True))
    assert [worker.name for worker in known.workers()] == ["here"]
    known.register(beat("here"), A, now=3700)
    known.forget(3700)
    assert [one.worker.name for one in known.farm(3700)] == ["here"]
    assert known.gone(3700) == ()


def test_workers_that_come_back_are_gone_no_more_and_the_names_of_others_are_not_without_end() -> None:
    known = registry()
    for number in range(MOST_GONE + 5):
        known.register(beat(f"w{number}"), A, now=number)
        known.deregister(f"w{number}", now=number)
    assert len(known.gone(200)) == len(known.farm(200)) == MOST_GONE
    assert known.gone(200)[0].name == "w5"
    known.register(beat("w7"), A, now=200)
    assert [one.is_gone for one in known.farm(200) if one.worker.name == "w7"] == [False]
    assert "w7" not in {one.name for one in known.gone(200)}


def test_a_lost_worker_that_comes_back_is_there_once() -> None:
    known = registry()
    known.register(beat(), A, now=0)
    known.forget(20)
    known.register(beat(), A, now=21)
    assert [(one.worker.name, one.is_lost) for one in known.farm(22)] == [("w", False)]


def test_only_so_many_lost_workers_are_remembered() -> None:
    known = registry()
    for number in range(300):
        known.register(beat(f"w{number:03}"), A, now=0)
    known.forget(20)
    assert len(known.farm(20)) == 100
