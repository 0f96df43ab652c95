"""A file with several names that is changed through one of them is not what a local command leaves.

Each row has what stood in the tree, the job's upper layer, which files may have been copied up, and
the path that gives the change away, or None.
"""

import stat
from collections.abc import Mapping

from termite.engine.model import Attr
from termite.fuse.view.comparison import CopyUps, Homes, LinkKey, compare, harvest, link_key
from termite.fuse.view.link_comparers import Comparers
from termite.fuse.view.linked_files import find_changed_in_place, find_linked
from tests.unit.fuse.view.test_comparison import OLD, ROOT, B, Upper, compared, said, was_directory, was_file
from tests.unit.tables import each_row

LINKED = was_file(nlink=2, link_id=9)
TWO = {b"a": LINKED, b"b": LINKED}
NOTHING_COPIED: Mapping[LinkKey, CopyUps] = {}
COPIED: Mapping[LinkKey, CopyUps] = {9: CopyUps(1)}
TWICE: Mapping[LinkKey, CopyUps] = {9: CopyUps(2, True)}
CERTAIN: Mapping[LinkKey, CopyUps] = {9: CopyUps(1, True)}
ANOTHER: Mapping[LinkKey, CopyUps] = {8: CopyUps(1, True)}
OTHER_NAME: Mapping[LinkKey, CopyUps] = {ROOT + b"/a": CopyUps(1, True)}

TABLE: list[tuple[str, Mapping[bytes, Attr], Upper, Mapping[LinkKey, CopyUps], bytes]] = [
    ("written in place", TWO, Upper().file(b"b", B), COPIED, b"b"),
    ("touched", TWO, Upper().file(b"b"), COPIED, b"b"),
    ("another mode", TWO, Upper().file(b"b", mode=0o755, mtime_ns=OLD), COPIED, b"b"),
    ("moved away", TWO, Upper().file(b"c", mtime_ns=OLD).whiteout(b"b"), COPIED, b"b"),
    ("moved over another file", {**TWO, b"c": was_file(B)}, Upper().whiteout(b"b").file(b"c"), COPIED, b"b"),
    ("replaced by a directory", TWO, Upper().directory(b"b", opaque=True), COPIED, b"b"),
    ("equal, but perhaps made anew with the same time", TWO, Upper().file(b"b", mtime_ns=OLD), COPIED, b"b"),
    (
        "moved out of a directory that was removed",
        {b"d": was_directory(), b"d/b": LINKED, b"a": LINKED},
        Upper().file(b"c", mtime_ns=OLD).whiteout(b"d"),
        COPIED,
        b"d",
    ),
    (
        "linked, and written",
        TWO,
        Upper().file(b"b", B, inode=5, nlink=2).file(b"c", B, inode=5, nlink=2),
        COPIED,
        b"b",
    ),
    (
        "moved, and copied back with its time",
        TWO,
        Upper().file(b"b", mtime_ns=OLD).file(b"c", mtime_ns=OLD),
        CERTAIN,
        b"c",
    ),
    (
        "one more name for one of its names, and the other one moved away",
        TWO,
        Upper()
        .whiteout(b"a")
        .file(b"b", mtime_ns=OLD, inode=5, nlink=2)
        .file(b"c", mtime_ns=OLD, inode=5, nlink=2)
        .file(b"d", mtime_ns=OLD),
        TWICE,
        b"a",
    ),
    # -- the names are what they would be on the master's disk --------------------------------------------------------
    ("copied up for certain, and equal", TWO, Upper().file(b"b", mtime_ns=OLD), CERTAIN, b""),
    ("made anew", TWO, Upper().file(b"b", B), NOTHING_COPIED, b""),
    ("removed", TWO, Upper().whiteout(b"b"), NOTHING_COPIED, b""),
    ("another file was copied up", TWO, Upper().file(b"b", B), ANOTHER, b""),
    ("only its attributes were listed", TWO, Upper().file(b"c"), COPIED, b""),
    (
        "one more name",
        TWO,
        Upper().file(b"b", mtime_ns=OLD, inode=5, nlink=2).file(b"c", mtime_ns=OLD, inode=5, nlink=2),
        COPIED,
        b"",
    ),
    (
        "one more name, and less one name",
        TWO,
        Upper().whiteout(b"a").file(b"b", mtime_ns=OLD, inode=5, nlink=2).file(b"c", mtime_ns=OLD, inode=5, nlink=2),
        CERTAIN,
        b"",
    ),
    (
        "one more name for each of its names",
        TWO,
        Upper()
        .file(b"a", mtime_ns=OLD, inode=5, nlink=2)
        .file(b"b", mtime_ns=OLD, inode=6, nlink=2)
        .file(b"c", mtime_ns=OLD, inode=5, nlink=2)
        .file(b"d", mtime_ns=OLD, inode=6, nlink=2),
        TWICE,
        b"",
    ),
    (
        "its state is not certain, so that each name has a key of its own",
        {b"a": was_file(nlink=2), b"b": was_file(nlink=2)},
        Upper().file(b"b", B),
        OTHER_NAME,
        b"",
    ),
]


@each_row(("was", "upper", "copied", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_file_with_several_names_is(
    was: Mapping[bytes, Attr], upper: Upper, copied: Mapping[LinkKey, CopyUps], expected: bytes
) -> None:
    lower = {ROOT + b"/" + name: attr for name, attr in was.items()}
    compared = compare(upper.entries, lower.get, Homes(ROOT), copied)
    found = find_changed_in_place(compared, upper.digests, copied)
    assert found == (ROOT + b"/" + expected if expected else b"")


def test_a_name_that_was_made_anew_leaves_the_file_of_the_others_even_if_it_is_equal() -> None:
    upper = Upper().file(b"b", mtime_ns=OLD)
    compared = compare(upper.entries, {ROOT + b"/b": LINKED}.get, Homes(ROOT))
    assert said(harvest(compared, upper.digests)) == ["new file b"]


def test_one_more_name_of_a_linked_file_is_a_link() -> None:
    upper = Upper().file(b"b", mtime_ns=OLD, inode=5, nlink=2).file(b"c", mtime_ns=OLD, inode=5, nlink=2)
    compared = compare(upper.entries, {ROOT + b"/b": LINKED}.get, Homes(ROOT), COPIED)
    assert said(harvest(compared, upper.digests)) == ["link c -> b"]


def test_only_regular_files_with_several_names_have_a_key() -> None:
    assert link_key(b"a", LINKED) == 9
    assert link_key(b"a", was_file(nlink=2)) == b"a"
    assert link_key(b"a", was_file()) is None
    assert link_key(b"a", Attr(stat.S_IFLNK | 0o777, 1, OLD, target=b"x", nlink=2, link_id=3)) is None
    assert link_key(b"d", Attr(stat.S_IFDIR | 0o755, 1, OLD, nlink=4)) is None


@each_row(
    ("was", "upper", "expected"),
    [
        ({b"a": was_file()}, Upper().file(b"a", inode=5, nlink=2, copied_up=True).file(b"b", inode=5, nlink=2), b"a"),
        ({b"a": was_file()}, Upper().file(b"a", mtime_ns=OLD, copied_up=True), b"a"),
        ({b"d": was_directory(), b"d/a": was_file()}, Upper().whiteout(b"d").directory(b"e"), b"d"),
        ({b"d": was_directory(), b"d/a": was_file()}, Upper().directory(b"d", opaque=True), b""),
        ({b"d": was_directory()}, Upper().directory(b"d").file(b"d/a", inode=5, nlink=2), b""),
        ({b"a": was_file()}, Upper().file(b"a", B, copied_up=True), b""),
        ({b"a": was_file()}, Upper().whiteout(b"a"), b""),
    ],
    ids=["linked", "unlinked again", "directory moved", "directory made anew", "new files", "written", "removed"],
)
def test_an_old_file_that_got_another_name_is_found(was: Mapping[bytes, Attr], upper: Upper, expected: bytes) -> None:
    found = find_linked(compared(upper, was), upper.digests, Comparers.NAMED)
    assert found == (ROOT + b"/" + expected if expected else b"")
    assert find_linked(compared(upper, was), upper.digests, Comparers.NONE) == b""


@each_row(
    ("upper", "expected"),
    [
        (Upper().file(b"a", inode=5, nlink=2, copied_up=True), b"a"),
        (Upper().file(b"a", mtime_ns=OLD, copied_up=True), b"a"),
        (Upper().file(b"a", mtime_ns=OLD + 1, copied_up=True), b""),
        (Upper().whiteout(b"d"), b""),
    ],
    ids=["linked", "unlinked again", "touched", "directory removed"],
)
def test_if_nobody_names_a_comparer_only_a_sure_trace_counts(upper: Upper, expected: bytes) -> None:
    was = {b"a": was_file(), b"d": was_directory(), b"d/a": was_file()}
    found = find_linked(compared(upper, was), upper.digests, Comparers.UNKNOWN)
    assert found == (ROOT + b"/" + expected if expected else b"")
