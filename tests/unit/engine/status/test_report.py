"""Tests of a master's counters, and of the summary of a build."""

from collections import Counter

from termite.cli.build_commands.summary_lines import EVENTS, path_lines
from termite.engine.errors import Reason
from termite.engine.status.report import (
    NAMED_PATHS,
    REMEMBERED_PATHS,
    Counters,
    PathEvent,
    build_summary,
    frequent_places,
)


def test_what_happened_to_a_path_many_times_is_one_line_of_the_summary() -> None:
    counters = Counters()
    for _ in range(100):
        counters.count_paths(PathEvent.DROPPED, ["a", "b"])
    counters.count_paths(PathEvent.WRITTEN_TWICE, ["a"])
    assert path_lines(build_summary(counters)) == [
        "100 jobs wrote this outside the tree, where it was dropped: a",
        "100 jobs wrote this outside the tree, where it was dropped: b",
        "1 job wrote this at the same time as another one: a",
    ]
    assert EVENTS.keys() == set(PathEvent)


def test_a_bounded_number_of_paths_is_remembered() -> None:
    counters = Counters()
    counters.count_paths(PathEvent.DROPPED, (f"p{n}" for n in range(2 * REMEMBERED_PATHS)))
    named = build_summary(counters)["named"]
    assert isinstance(named, list)
    assert (len(named), len(counters.named)) == (NAMED_PATHS, REMEMBERED_PATHS)


def test_a_summary_counts_the_commands_of_each_place() -> None:
    counters = Counters()
    for place in ("/srv/x", "/srv/y", "/srv/y"):
        counters.count_place(counters.outside, place)
    counters.count_place(counters.private, "/root/a")
    summary = build_summary(counters)
    assert (summary["outside"], summary["private"]) == ({"/srv/y": 2, "/srv/x": 1}, {"/root/a": 1})
    for number in range(2 * REMEMBERED_PATHS):
        counters.count_place(counters.outside, f"/srv/{number}")
    assert len(counters.outside) == REMEMBERED_PATHS


def test_the_summary_names_twenty_missing_dependencies_and_counts_the_others() -> None:
    counters = Counters(retries=Counter({Reason.INPUT_CHANGED: 30}))
    for number in range(NAMED_PATHS + 5):
        counters.count_missing_edge(f"{number}.o failed, then passed")
    counters.count_missing_edge("0.o failed, then passed")
    summary = build_summary(counters)
    lines = summary["missing_edges"]
    assert isinstance(lines, list)
    assert lines[:2] == ["0.o failed, then passed (2 times)", "1.o failed, then passed"]
    assert len(lines) == NAMED_PATHS + 1
    assert lines[-1] == "missing dependencies beyond these: 5, see termite-ctl jobs -retried"
    assert (summary["reruns"], summary["retried"]) == (30, 30)
    for number in range(2 * REMEMBERED_PATHS):
        counters.count_missing_edge(str(number))
    assert len(counters.missing_edges) == REMEMBERED_PATHS


def test_places_of_more_than_five_in_a_hundred_commands_are_frequent() -> None:
    assert frequent_places({"/a": 5, "/b": 6, "/c": 1}, 100) == ["/b"]
    assert frequent_places({"/a": 1}, 3) == ["/a"]
    assert frequent_places({}, 0) == []
