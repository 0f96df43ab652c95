"""Test which parts of a tree's history are removed."""

from hypothesis import given
from hypothesis import strategies as st

from termite.engine.history.logic.kept_parts import BuildPart, choose_evicted


def test_only_the_last_builds_stay() -> None:
    parts = [BuildPart(build, part, 10) for build in range(1, 26) for part in range(2)]
    evicted = choose_evicted(parts)
    assert evicted == [part for part in parts if part.build <= 5]


def test_the_oldest_parts_go_if_there_are_too_many_bytes() -> None:
    parts = [BuildPart(1, 0, 40), BuildPart(2, 0, 40), BuildPart(2, 1, 40)]
    assert choose_evicted(parts, bytes_kept=100) == [BuildPart(1, 0, 40)]
    assert choose_evicted(parts, bytes_kept=40) == [BuildPart(1, 0, 40), BuildPart(2, 0, 40)]


def test_a_part_that_grows_always_stays() -> None:
    parts = [BuildPart(1, 0, 200), BuildPart(2, 0, 10)]
    assert choose_evicted(parts, growing=[(1, 0)], bytes_kept=100) == [BuildPart(2, 0, 10)]


def test_empty_parts_are_no_builds_and_go_with_those_around_them() -> None:
    empty = [BuildPart(build, 0, 20, is_empty=True) for build in (2, 4, 6, 8, 10)]
    parts = [*empty, *(BuildPart(build, 0, 40) for build in (3, 5, 7))]
    assert choose_evicted(parts, builds_kept=2) == [BuildPart(2, 0, 20, True), BuildPart(3, 0, 40), empty[1]]
    assert choose_evicted(parts, growing=[(10, 0)], builds_kept=4) == [empty[0]]


@given(
    st.lists(
        st.builds(BuildPart, st.integers(1, 40), st.integers(0, 3), st.integers(0, 50), st.just(False)),
        unique_by=lambda part: part[:2],
    )
)
def test_the_bounds_hold_and_nothing_goes_without_need(parts: list[BuildPart]) -> None:
    evicted = choose_evicted(parts, builds_kept=5, bytes_kept=200)
    kept = [part for part in parts if part not in evicted]
    assert len({part.build for part in kept}) <= 5
    assert sum(part.size_bytes for part in kept) <= 200
    if evicted and len({part.build for part in [*kept, evicted[-1]]}) <= 5:
        assert sum(part.size_bytes for part in [*kept, evicted[-1]]) > 200
    assert not evicted or not kept or max(evicted)[:2] < min(kept)[:2]
