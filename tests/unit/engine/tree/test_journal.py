"""Test the numbered changesets, conflicts between jobs, and the times of results."""

import stat

import pytest

from termite.engine.model import Attr, Change, Digest
from termite.engine.paths import is_within
from termite.engine.tree.logic.journal import FEW, Journal
from termite.engine.tree.logic.times import TICK_NS, Timing


def written(path: bytes, content: bytes = b"x", is_content: bool = True) -> Change:
    digest = Digest(content.ljust(32, b"\0"), len(content))
    return Change(path, Attr(stat.S_IFREG | 0o644, len(content), 1, digest), content=is_content)


def gone(path: bytes) -> Change:
    return Change(path, None)


def result(journal: Journal, *changes: Change) -> None:
    journal.note_results(journal.append(changes), changes)


def test_numbers_begin_with_one_and_nothing_changed_is_no_number() -> None:
    journal = Journal()
    assert journal.number == 0
    assert journal.append([]) == 0
    assert journal.append([gone(b"a")]) == 1
    assert journal.append([gone(b"b")]) == 2


def test_the_newest_result_at_a_path_has_the_number_of_its_changeset() -> None:
    journal = Journal()
    result(journal, written(b"a"), written(b"b"))
    journal.append([written(b"c")])
    result(journal, written(b"b", b"y"))
    assert [journal.result_number(path) for path in (b"a", b"b", b"c")] == [1, 3, 0]
    journal.forget_before(2)
    assert [journal.result_number(path) for path in (b"a", b"b")] == [0, 3]


def test_a_cursor_gets_everything_after_it() -> None:
    journal = Journal()
    for name in (b"a", b"b", b"c"):
        journal.append([gone(name)])
    assert [c.number for c in journal.since(0)] == [1, 2, 3]
    assert [c.changes[0].path for c in journal.since(2)] == [b"c"]
    assert journal.since(3) == ()


def test_what_everybody_has_can_be_forgotten() -> None:
    journal = Journal()
    for name in (b"a", b"b", b"c"):
        journal.append([gone(name)])
    journal.forget_before(3)
    assert [c.number for c in journal.since(2)] == [3]
    with pytest.raises(AssertionError):
        journal.since(1)


def test_two_jobs_that_wrote_a_path_differently_at_the_same_time_are_a_conflict() -> None:
    journal = Journal()
    journal.append([gone(b"earlier")])
    result(journal, written(b"out", b"one"))
    assert journal.conflicts(1, [written(b"out", b"two"), written(b"mine")]) == (b"out",)
    assert journal.conflicts(1, [written(b"out", b"one")]) == ()
    assert journal.conflicts(1, [gone(b"out")]) == (b"out",)
    assert journal.conflicts(1, [written(b"out", b"two", is_content=False)]) == ()


def test_a_job_that_began_after_the_other_was_home_is_none() -> None:
    journal = Journal()
    result(journal, written(b"out", b"one"))
    assert journal.conflicts(1, [written(b"out", b"two")]) == ()


def test_the_user_is_no_job() -> None:
    journal = Journal()
    journal.append([written(b"out", b"edited")])
    assert journal.conflicts(0, [written(b"out", b"built")]) == ()


def test_what_came_since_is_told_from_what_went_again() -> None:
    journal = Journal()
    journal.append([written(b"before")])
    journal.append([written(b"here"), written(b"touched", is_content=False), written(b"brief")])
    journal.append([gone(b"brief")])
    assert journal.made_since(1) == {b"here"}


def timing(**more: int) -> Timing:
    return Timing(
        **{"dispatched_ns": 1000, "started_ns": 10**9, "ended_ns": 2 * 10**9, "offset_ns": 0, "number": 0} | more
    )


def test_a_file_made_in_the_job_gets_our_clock() -> None:
    assert timing(offset_ns=-500).master_ns(10**9 + 7000, now_ns=10**10) == 10**9 + 6500


def test_a_result_is_never_older_than_the_dispatch_nor_newer_than_now() -> None:
    skewed = timing(dispatched_ns=5 * 10**9, offset_ns=0)
    assert skewed.master_ns(15 * 10**8, now_ns=6 * 10**9) == 5 * 10**9
    assert timing(offset_ns=10**12).master_ns(15 * 10**8, now_ns=6 * 10**9) == 6 * 10**9


def test_a_time_that_the_command_set_stays() -> None:
    for mtime_ns in (1, 10**9 - TICK_NS - 1, 2 * 10**9 + 1, 10**18):
        assert timing(offset_ns=12345).master_ns(mtime_ns, now_ns=10**10) == mtime_ns


def test_a_file_made_in_the_first_tick_counts_as_made_in_the_job() -> None:
    assert timing().is_made_in_job(10**9 - TICK_NS)


def test_the_order_of_a_jobs_files_stays() -> None:
    order = [10**9 + i * 10**7 for i in range(50)]
    home = [timing(dispatched_ns=12 * 10**8, offset_ns=1000).master_ns(t, now_ns=14 * 10**8) for t in order]
    assert home == sorted(home)


def test_a_path_is_changed_by_its_content_its_removal_and_its_directories() -> None:
    journal = Journal()
    paths = (b"d/f", b"d/touched", b"d/e/g", b"dd")
    journal.append([written(b"d/f")])
    journal.append([written(b"d/touched", is_content=False)])
    assert journal.changed_since(0, paths) == {b"d/f"}
    assert journal.changed_since(1, paths) == frozenset()
    journal.append([gone(b"d")])
    assert journal.changed_since(2, paths) == {b"d/f", b"d/touched", b"d/e/g"}
    assert journal.changed_since(3, paths) == frozenset()


def test_a_path_may_be_as_deep_as_the_kernel_allows() -> None:
    journal = Journal()
    deep = b"/".join([b"d"] * 8000)
    journal.append([written(b"f")])
    assert journal.changed_since(0, (deep, deep + b"/f")) == frozenset()
    journal.append([gone(b"d/d")])
    assert journal.changed_since(0, (deep, b"d/e", deep + b"/f")) == {deep, deep + b"/f"}


def test_changesets_with_a_fifo_are_counted() -> None:
    journal = Journal()
    journal.append([written(b"f"), gone(b"g")])
    assert journal.fifos == 0
    journal.append([Change(b"f", Attr(stat.S_IFIFO | 0o644, 0, 0), content=True), written(b"g")])
    assert journal.fifos == 1


def test_what_is_forgotten_has_not_changed() -> None:
    journal = Journal()
    journal.append([written(b"f"), written(b"g")])
    journal.append([written(b"g", b"y")])
    journal.forget_before(2)
    assert journal.changed_since(0, (b"f", b"g")) == {b"g"}
    journal.forget_before(3)
    assert journal.changed_since(0, (b"f", b"g")) == frozenset()


def test_few_and_many_changes_are_found_alike() -> None:
    paths = [b"a", b"a/b", b"a/bc", b"a/b/c", b"ab", b"d/e/f", b"g"]
    for written in ([b"a/b"], [b"a/b", b"d"], [b"d/e"], [b""], [b"x"]):
        few, many = Journal(), Journal()
        others = [Change(b"other/%d" % number, None) for number in range(FEW)]
        for journal, more in ((few, []), (many, others)):
            journal.append([Change(b"g", None)])
            journal.append([*(Change(path, None) for path in written), *more])
        found = few.changed_since(1, paths)
        assert found == many.changed_since(1, paths)
        assert found == {path for path in paths if any(is_within(path, top) for top in written)}
