"""Test which inputs of a failed job are a reason to run it again."""

from termite.engine.model import Change, Changeset
from termite.engine.recall.logic.changed_inputs import ChangedInput, InputChanges
from termite.engine.recall.logic.uses import Dependency, PathSet, Use
from tests.unit.engine.recall.recall_trees import READ, access, directory, file, found, link, tree_of
from tests.unit.tables import each_row

PATH_SET = PathSet(
    (
        Dependency(b"w", Use.ENTER),
        Dependency(b"w/a.c", Use.READ),
        Dependency(b"w/asked", Use.STAT),
        Dependency(b"w/cur", Use.LINK),
        Dependency(b"w/inc", Use.ENTER),
        Dependency(b"w/inc/none.h", Use.ABSENT),
        Dependency(b"w/list", Use.ENTER | Use.LIST, own=(b"own.o",)),
        Dependency(b"w/out", Use.ENTER | Use.FILL),
        Dependency(b"w/out/a.o", Use.FRESH, 0o100644),
        Dependency(b"w/tool", Use.READ | Use.EXEC),
    )
)


def late(*changes: Change, renamed: bytes = b"") -> tuple[ChangedInput, ...]:
    """Return the changed inputs; each change is a changeset, from 1."""
    changesets = [Changeset(number, (change,)) for number, change in enumerate(changes, 1)]
    return InputChanges(changesets, lambda path: path == renamed).find(PATH_SET)


@each_row(
    ("change", "renamed"),
    [
        (Change(b"w/a.c", file("x")), b""),
        (Change(b"w/a.c", None), b"w"),
        (Change(b"w/asked", file("x")), b"w"),
        (Change(b"w/asked", None), b"w"),
        (Change(b"w/cur", link(b"inc")), b""),
        (Change(b"w/inc", None), b"w"),
        (Change(b"w/inc", directory()), b"w"),
        (Change(b"w/inc/none.h", file()), b"w/inc"),
        (Change(b"w/out", directory()), b"w"),
        (Change(b"w/tool", file("#!")), b""),
    ],
)
def test_a_content_or_a_presence_that_was_used_and_is_another_now_counts(change: Change, renamed: bytes) -> None:
    assert late(change, renamed=renamed) == (ChangedInput(change.path, change.attr is not None, 1),)


@each_row(
    ("change", "renamed"),
    [
        (Change(b"w/a.c", file("x"), content=False), b""),
        (Change(b"w/tool", file("#!", 0o755), content=False), b""),
        (Change(b"w/list", directory(), content=False), b""),
        (Change(b"w/asked", file("x")), b"w/list"),
        (Change(b"w/list/rewritten", file("x")), b""),
        (Change(b"w/list/own.o", file("x")), b"w/list"),
        (Change(b"w/out/a.o", file("x")), b"w/out"),
        (Change(b"w/other", file()), b"w"),
    ],
)
def test_times_and_what_was_not_used_do_not_count(change: Change, renamed: bytes) -> None:
    assert late(change, renamed=renamed) == ()


def test_a_new_name_in_a_directory_that_was_listed_counts() -> None:
    change = Change(b"w/list/new", file())
    assert late(change, renamed=b"w/list") == (ChangedInput(b"w/list/new", True, 1),)


def test_what_came_and_went_is_as_it_was() -> None:
    came, went = Change(b"w/inc/none.h", file()), Change(b"w/inc/none.h", None)
    assert late(came, went, renamed=b"w/inc") == ()
    assert late(went, came, renamed=b"w/inc") == (ChangedInput(b"w/inc/none.h", True, 2),)
    temporary = Change(b"w/list/tmp", file()), Change(b"w/list/tmp", None)
    assert late(*temporary, renamed=b"w/list") == ()


def test_what_the_job_named_comes_before_what_it_listed_and_no_path_comes_twice() -> None:
    listed, named = Change(b"w/list/a", file()), Change(b"w/tool", file("x"))
    changesets = [Changeset(4, (listed, named)), Changeset(5, (Change(b"w/list/a", file("y")),))]
    both = PathSet((*PATH_SET.dependencies[:-1], Dependency(b"w/list/a", Use.READ), PATH_SET.dependencies[-1]))
    paths = InputChanges(changesets, lambda path: path == b"w/list").find(both)
    assert paths == (ChangedInput(b"w/list/a", True, 5), ChangedInput(b"w/tool", True, 4))
    paths = InputChanges(changesets, lambda path: path == b"w/list").find(PATH_SET)
    assert [changed.path for changed in paths] == [b"w/tool", b"w/list/a"]


def test_a_file_that_the_job_has_missed_is_found_though_it_is_there_now() -> None:
    """Dependencies are made from the tree after the job, in which the file is."""
    tree = tree_of({b"w/gen": directory(), b"w/gen/a.h": file("a")})
    path_set = found(tree, [access(b"/w/gen/a.h", READ)]).path_set
    made = [Changeset(7, (Change(b"w/gen", directory()), Change(b"w/gen/a.h", file("a"))))]
    changed = InputChanges(made, lambda path: True).find(path_set)
    assert changed == (ChangedInput(b"w/gen/a.h", True, 7),), "the directory goes without saying"
