"""Test whether an input of a job changed while the job ran."""

from termite.engine.model import Change, Changeset
from termite.engine.recall.logic.concurrent_changes import ConcurrentChanges
from termite.engine.recall.logic.uses import Dependency, PathSet, Use
from tests.unit.engine.recall.recall_trees import directory, file
from tests.unit.tables import each_row

PATH_SET = PathSet(
    (
        Dependency(b"w", Use.ENTER),
        Dependency(b"w/a.c", Use.READ),
        Dependency(b"w/inc", Use.ENTER | Use.STAT),
        Dependency(b"w/inc/a.h", Use.READ),
        Dependency(b"w/inc/none.h", Use.ABSENT),
        Dependency(b"w/list", Use.ENTER | Use.LIST, own=(b"own.o",)),
        Dependency(b"w/out", Use.ENTER | Use.FILL),
        Dependency(b"w/out/a.o", Use.FRESH, 0o100644),
    )
)


def meanwhile(*changes: Change, renamed: bytes = b"") -> ConcurrentChanges:
    return ConcurrentChanges([Changeset(1, changes[:1]), Changeset(2, changes[1:])], lambda path: path == renamed)


@each_row(
    "change",
    [
        Change(b"w/other", file()),
        Change(b"w/out/b.o", file()),
        Change(b"w/out", directory(), content=False),
        Change(b"w/inc", directory(), content=False),
        Change(b"w/list", directory(), content=False),
        Change(b"w/list/rewritten.o", file()),
        Change(b"w/list/other.o", file(), content=False),
        Change(b"w/inc/new.h", file()),
    ],
)
def test_other_files_and_times_of_directories_do_not_count(change: Change) -> None:
    assert meanwhile(change).changed_input(PATH_SET) is None


@each_row(
    ("change", "path"),
    [
        (Change(b"w/a.c", file("x")), b"w/a.c"),
        (Change(b"w/a.c", file("x"), content=False), b"w/a.c"),
        (Change(b"w/a.c", None), b"w/a.c"),
        (Change(b"w/inc/none.h", file("x")), b"w/inc/none.h"),
        (Change(b"w/out/a.o", file("x")), b"w/out/a.o"),
        (Change(b"w/inc", None), b"w/inc"),
        (Change(b"w/out", directory()), b"w/out"),
    ],
)
def test_an_input_that_changed_is_named(change: Change, path: bytes) -> None:
    assert meanwhile(change).changed_input(PATH_SET) == path


def test_a_listing_counts_if_its_names_changed() -> None:
    change = Change(b"w/list/new", file("x"))
    assert meanwhile(change, renamed=b"w/list").changed_input(PATH_SET) == b"w/list"
    assert meanwhile(change, renamed=b"w/out").changed_input(PATH_SET) is None


def test_an_input_counts_as_changed_though_it_is_as_before_in_the_end() -> None:
    changes = (Change(b"w/inc/none.h", file()), Change(b"w/inc/none.h", None))
    assert meanwhile(*changes).changed_input(PATH_SET) == b"w/inc/none.h"


def test_the_time_of_a_directory_is_unsure_if_it_changed() -> None:
    assert meanwhile(Change(b"w/inc", directory(), content=False)).has_later_directory(PATH_SET)
    assert meanwhile(Change(b"w/inc/new.h", file())).has_later_directory(PATH_SET)
    assert not meanwhile(Change(b"w/out/b.o", file())).has_later_directory(PATH_SET)
    assert not meanwhile().has_later_directory(PATH_SET)


@each_row(
    ("change", "path"),
    [
        (Change(b"w/a.c", file("x")), b"w/a.c"),
        (Change(b"w/a.c", file("x"), content=False), None),
        (Change(b"w/inc/none.h", file("x")), b"w/inc/none.h"),
        (Change(b"w/out", directory(), content=False), None),
        (Change(b"w/inc", None), b"w/inc"),
        (Change(b"w/other", file()), None),
    ],
)
def test_a_new_time_or_mode_alone_is_no_change_of_content(change: Change, path: bytes | None) -> None:
    assert meanwhile(change).changed_content(PATH_SET) == path


def test_a_listing_with_other_names_is_a_change_of_content() -> None:
    assert meanwhile(Change(b"w/list/new", file()), renamed=b"w/list").changed_content(PATH_SET) == b"w/list"
