"""Slots are shared fairly: by masters first, then by the leases of each."""

from hypothesis import given
from hypothesis import strategies as st

from termite.engine.worker.slot_shares import share_among_masters, share_slots


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


def test_many_leases_bring_a_master_no_more() -> None:
    wanted = dict.fromkeys(range(10), ("greedy", 100)) | {10: ("honest", 100)}
    shares = share_among_masters(4, wanted)
    assert shares[10] == 2
    assert sum(shares.values()) == 4


@given(st.integers(0, 50), st.dictionaries(st.integers(), st.tuples(st.sampled_from("abc"), st.integers(0, 60))))
def test_no_slot_is_lost_or_given_twice(slots: int, wanted: dict[int, tuple[str, int]]) -> None:
    shares = share_among_masters(slots, wanted)
    assert shares.keys() == wanted.keys()
    assert all(0 <= shares[lease] <= count for lease, (_, count) in wanted.items())
    assert sum(shares.values()) == min(slots, sum(count for _, count in wanted.values()))
