"""Test the plan of a job's changes, and the comparison of entries in the AttrTree."""

import stat

import pytest

from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.model import Attr, Change, Digest
from termite.engine.tree.logic.attrs import (
    FEW_NAMES,
    RENEWED_LIMIT,
    AttrTree,
    LinkIds,
    Seen,
    Stamp,
    Touch,
    compare_entry,
)
from termite.engine.tree.logic.plan import make_plan
from tests.unit.tables import each_row

DIGEST = Digest(b"d" * 32, 1)
FILE = Attr(stat.S_IFREG | 0o644, 1, 1, DIGEST)
DIRECTORY = Attr(stat.S_IFDIR | 0o755, 0, 1)
LINK = Attr(stat.S_IFLNK | 0o777, 1, 1, None, b"x")


def anywhere(path: bytes) -> bool:
    return path.startswith(b"w/")


@each_row("path", [b"w/../x", b"w/./x", b"w//x", b"/w/x", b"w/x/", b"w/x\0y", b"..", b"w" + b"/a" * 2048])
def test_a_path_that_leads_elsewhere_is_the_workers_fault(path: bytes) -> None:
    for change in (Change(path, FILE), Change(path, None), Change(b"w/x", FILE, link_to=path)):
        with pytest.raises(RemoteProtocolError):
            make_plan([change], lambda _: True)


def test_a_path_that_must_not_be_written_fails_the_job() -> None:
    with pytest.raises(FsError):
        make_plan([Change(b"elsewhere", FILE)], anywhere)
    with pytest.raises(FsError):
        make_plan([Change(b"w/x", FILE, link_to=b"elsewhere")], anywhere)


@pytest.mark.parametrize("kind", [stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR, 0])
def test_devices_are_not_made(kind: int) -> None:
    with pytest.raises(RemoteProtocolError):
        make_plan([Change(b"w/x", Attr(kind | 0o644, 0, 1))], anywhere)


@each_row("kind", [FILE, LINK, Attr(stat.S_IFIFO | 0o644, 0, 1)])
@each_row("below", [b"w/x/y", b"w/x/y/z"])
def test_nothing_is_below_what_is_no_directory(kind: Attr, below: bytes) -> None:
    for other in (FILE, DIRECTORY, LINK):
        with pytest.raises(RemoteProtocolError):
            make_plan([Change(b"w/x", None), Change(b"w/x", kind), Change(below, other)], anywhere)
    make_plan([Change(b"w/x", kind), Change(below, None)], anywhere)
    make_plan([Change(b"w/x", kind), Change(b"w/x", None), Change(below, FILE)], anywhere)


@pytest.mark.parametrize("link_to", [None, b"w/y"])
def test_a_symlink_has_a_target_that_a_disk_can_have(link_to: bytes | None) -> None:
    with pytest.raises(RemoteProtocolError):
        make_plan([Change(b"w/x", Attr(stat.S_IFLNK | 0o777, 1, 1, None, b"a\0b"), link_to)], anywhere)


def test_a_new_content_needs_a_digest() -> None:
    with pytest.raises(RemoteProtocolError):
        make_plan([Change(b"w/x", Attr(stat.S_IFREG | 0o644, 1, 1))], anywhere)


def test_what_comes_again_is_removed_first_and_the_rest_at_the_end_deepest_first() -> None:
    changes = [Change(b"w/d", None), Change(b"w/d", FILE), Change(b"w/a", None), Change(b"w/a/b/c", None)]
    plan = make_plan(changes, anywhere)
    assert plan.replaced == (b"w/d",)
    assert plan.removed == (b"w/a/b/c", b"w/a")


def test_what_was_made_and_removed_again_is_only_removed() -> None:
    plan = make_plan([Change(b"w/a", FILE), Change(b"w/a", None)], anywhere)
    assert (plan.files, plan.removed) == ((), (b"w/a",))


def test_parents_come_first_whatever_the_order() -> None:
    changes = [Change(b"w/a/b", DIRECTORY), Change(b"w/a", DIRECTORY)]
    assert [c.path for c in make_plan(changes, anywhere).directories] == [b"w/a", b"w/a/b"]


def test_a_directory_of_which_only_the_time_changed_is_made_only_where_something_goes_into_it() -> None:
    touched = Change(b"w/a", DIRECTORY, content=False)
    assert make_plan([touched], anywhere).attributes == (touched,)
    assert make_plan([touched, Change(b"w/a/f", FILE)], anywhere).directories == (touched,)


STAMP = Stamp(1, 2, 1, 1, 10)


def seen(attr: Attr = FILE, stamp: Stamp = STAMP, racy: bool = False) -> Seen:
    return Seen(attr, stamp, racy)


UNHASHED = Attr(stat.S_IFREG | 0o644, 1, 1)


def test_a_digest_that_became_known_is_no_change() -> None:
    assert compare_entry(b"x", seen(UNHASHED), seen(), Touch.UNKNOWN, LinkIds().renew) == (seen(), None)


def test_a_changed_mode_leaves_the_content() -> None:
    later = seen(Attr(stat.S_IFREG | 0o755, 1, 1), Stamp(1, 2, 1, 1, 11))
    new, change = compare_entry(b"x", seen(), later, Touch.ATTRIBUTES, LinkIds().renew)
    assert change is not None
    assert not change.content
    assert new.attr.digest == DIGEST


def test_a_new_stamp_without_a_digest_is_a_new_content() -> None:
    later = seen(UNHASHED, Stamp(1, 2, 1, 1, 11))
    _, change = compare_entry(b"x", seen(), later, Touch.UNKNOWN, LinkIds().renew)
    assert change is not None
    assert change.content
    assert change.attr == UNHASHED


def test_the_same_content_under_a_new_stamp_is_no_change() -> None:
    _, change = compare_entry(b"x", seen(), seen(FILE, Stamp(1, 3, 1, 1, 11)), Touch.WRITTEN, LinkIds().renew)
    assert change is None


def test_a_file_written_twice_in_one_tick_is_a_change_although_nothing_shows_it() -> None:
    new, change = compare_entry(b"x", seen(racy=True), seen(), Touch.WRITTEN, LinkIds().renew)
    assert change is not None
    assert change.content
    assert new.attr.digest is None
    assert compare_entry(b"x", seen(racy=False), seen(), Touch.WRITTEN, LinkIds().renew)[1] is None
    assert compare_entry(b"x", seen(racy=True), seen(), Touch.UNKNOWN, LinkIds().renew)[1] is None


def test_a_directory_that_goes_takes_all_below_with_it() -> None:
    tree = AttrTree(Seen(DIRECTORY))
    tree.serve(b"", {b"a": Seen(DIRECTORY), b"ab": Seen(DIRECTORY)})
    tree.serve(b"a", {b"b": Seen(DIRECTORY)})
    tree.serve(b"a/b", {b"f": seen()})
    tree.serve(b"ab", {b"g": seen()})
    assert list(tree.served_within(b"a")) == [b"a", b"a/b"]
    tree.drop(b"a")
    assert tree.seen(b"a/b/f") is None
    assert tree.seen(b"ab/g") == seen()
    assert tree.counts() == (2, 2)


def test_all_names_of_a_file_that_was_written_again_get_the_same_new_number() -> None:
    ids, stamp = LinkIds(), Stamp(1, 2, 3, 4, 5)
    first = ids.number(stamp)
    second = ids.renew(stamp, first)
    assert second not in {0, first}
    assert ids.renew(stamp, first) == ids.number(stamp) == second, "its other name"
    assert ids.take_renewed() == {(1, 2)}
    assert ids.take_renewed() == set()
    third = ids.renew(stamp, second)
    assert third not in {first, second}
    for ino in range(RENEWED_LIMIT):
        other = Stamp(1, 10 + ino, 3, 4, 5)
        ids.renew(other, ids.number(other))
    assert ids.number(stamp) not in {first, second, third}, "no old number is given again"


def test_the_names_of_a_file_are_known_from_its_first_look_on() -> None:
    def file(ino: int) -> Seen:
        return Seen(FILE, Stamp(1, ino, 1, 1, 1))

    tree = AttrTree(Seen(DIRECTORY))
    tree.serve(b"", {b"d": Seen(DIRECTORY), b"e": Seen(DIRECTORY), b"x": file(7)})
    tree.serve(b"d", {b"y": file(7), b"z": file(8)})
    assert tree.names_of([(1, 7)]) == {b"x", b"d/y"}
    tree.serve(b"e", {b"w": file(7)})
    tree.put(b"x", file(9))
    tree.put(b"d/v", file(7))
    assert tree.names_of([(1, 7), (1, 8)]) == {b"d/y", b"d/v", b"e/w", b"d/z"}
    tree.drop(b"d")
    tree.drop(b"e/w")
    assert tree.names_of([(1, 7), (1, 8), (1, 9)]) == {b"x"}
    assert tree.names_of([(2, 9)]) == set()  # a file of another file system


def test_files_that_have_no_name_any_more_do_not_fill_the_table_of_names() -> None:
    tree = AttrTree(Seen(DIRECTORY))
    tree.serve(b"", {b"d": Seen(DIRECTORY)})
    tree.serve(b"d", {b"stays": Seen(FILE, Stamp(1, 1, 1, 1, 1))})
    assert tree.names_of([(1, 1)]) == {b"d/stays"}
    for number in range(2, 4 * FEW_NAMES):
        tree.put(b"d/x", Seen(FILE, Stamp(1, number, 1, 1, 1)))
        assert tree.names_of([(1, number)]) == {b"d/x"}
    assert tree.linked_files <= FEW_NAMES + 1
    assert tree.names_of([(1, 1)]) == {b"d/stays"}


def test_a_symlink_that_was_retargeted_is_a_change() -> None:
    other = Attr(LINK.mode, 1, 1, None, b"y")
    assert compare_entry(b"l", Seen(LINK), Seen(LINK), Touch.UNKNOWN, LinkIds().renew)[1] is None
    assert compare_entry(b"l", Seen(LINK), Seen(other), Touch.UNKNOWN, LinkIds().renew)[1] == Change(b"l", other)
