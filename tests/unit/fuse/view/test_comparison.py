"""A table of upper layers: the entries below, the entries of the layer, and the changes of both."""

import hashlib
import stat
from collections.abc import Iterable, Mapping

import pytest

from termite.engine.model import Attr, BaseVersion, Change, Digest
from termite.engine.wire.protocol.messages import MAX_DROPPED
from termite.fuse.view.comparison import (
    Compared,
    Homes,
    UpperEntry,
    coarsened,
    compare,
    deprived,
    files,
    harvest,
    is_worth_reading,
    link_key,
)
from tests.unit.tables import each_row

ROOT = b"home/u/p"
OLD, NEW, LATER = 1_000, 2_000, 3_000_000_000
A, B = b"a" * 10, b"b" * 10


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


def was_file(content: bytes = A, mode: int = 0o644, mtime_ns: int = OLD, nlink: int = 1, link_id: int = 0) -> Attr:
    return Attr(stat.S_IFREG | mode, len(content), mtime_ns, digest_of(content), nlink=nlink, link_id=link_id)


def was_directory(mode: int = 0o755, mtime_ns: int = OLD) -> Attr:
    return Attr(stat.S_IFDIR | mode, 4096, mtime_ns)


def was_symlink(target: bytes = b"x", mtime_ns: int = OLD) -> Attr:
    return Attr(stat.S_IFLNK | 0o777, len(target), mtime_ns, target=target)


def was_fifo() -> Attr:
    return Attr(stat.S_IFIFO | 0o644, 0, OLD)


class Upper:
    """Entries with their contents, named below the writable root, or absolutely with a slash."""

    def __init__(self) -> None:
        self.entries: list[UpperEntry] = []
        self.digests: dict[int, Digest] = {}

    def _add(self, name: bytes, mode: int, mtime_ns: int, **more: object) -> "Upper":
        path = name[1:] if name.startswith(b"/") else ROOT + b"/" + name
        inode = more.pop("inode", 1000 + len(self.entries))
        self.entries.append(UpperEntry(path, mode, 10, mtime_ns, inode, **more))  # type: ignore[arg-type]  # test data
        return self

    def file(
        self,
        name: bytes,
        content: bytes = A,
        mode: int = 0o644,
        mtime_ns: int = NEW,
        inode: int = 0,
        nlink: int = 1,
        copied_up: bool = False,
    ) -> "Upper":
        inode = inode or 1000 + len(self.entries)
        self.digests[inode] = digest_of(content)
        return self._add(name, stat.S_IFREG | mode, mtime_ns, inode=inode, nlink=nlink, copied_up=copied_up)

    def directory(
        self, name: bytes, mode: int = 0o755, mtime_ns: int = NEW, opaque: bool = False, retimed: bool = False
    ) -> "Upper":
        return self._add(name, stat.S_IFDIR | mode, mtime_ns, opaque=opaque, retimed=retimed)

    def symlink(self, name: bytes, target: bytes = b"x", mtime_ns: int = NEW) -> "Upper":
        return self._add(name, stat.S_IFLNK | 0o777, mtime_ns, target=target)

    def special(self, name: bytes, kind: int, mtime_ns: int = NEW) -> "Upper":
        return self._add(name, kind | 0o644, mtime_ns)

    def whiteout(self, name: bytes) -> "Upper":
        return self._add(name, stat.S_IFCHR, NEW, inode=7, nlink=5, whiteout=True)


def compared(upper: Upper, was: Mapping[bytes, Attr]) -> Compared:
    lower = {name[1:] if name.startswith(b"/") else ROOT + b"/" + name: attr for name, attr in was.items()}
    found = ((entry, lower.get(entry.path)) for entry in upper.entries if entry.copied_up)
    copied = {key for entry, attr in found if attr is not None and (key := link_key(entry.path, attr)) is not None}
    return compare(upper.entries, lower.get, Homes(ROOT), copied)


def said(changes: Iterable[Change]) -> list[str]:
    """Return changes as text: `delete x`, `new dir x`, `attr file x`, `link y -> x`."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}

    def name(path: bytes) -> str:
        return path.removeprefix(ROOT + b"/").decode()

    lines = []
    for change in changes:
        if change.attr is None:
            lines.append(f"delete {name(change.path)}")
        elif change.link_to is not None:
            lines.append(f"link {name(change.path)} -> {name(change.link_to)}")
        else:
            verb = "new" if change.content else "attr"
            lines.append(f"{verb} {kinds[stat.S_IFMT(change.attr.mode)]} {name(change.path)}")
    return lines


def changes_of(upper: Upper, was: Mapping[bytes, Attr]) -> list[str]:
    return said(harvest(compared(upper, was), upper.digests))


NOTHING: dict[bytes, Attr] = {}
LINKED = was_file(nlink=2, link_id=9)

TABLE: list[tuple[str, Mapping[bytes, Attr], Upper, list[str]]] = [
    ("a new file", NOTHING, Upper().file(b"x"), ["new file x"]),
    ("a new fifo", NOTHING, Upper().special(b"x", stat.S_IFIFO), ["new fifo x"]),
    ("a new symlink", NOTHING, Upper().symlink(b"x"), ["new symlink x"]),
    (
        "new directories come before what is in them",
        NOTHING,
        Upper().directory(b"d").directory(b"d/e").file(b"d/e/x"),
        ["new dir d", "new dir d/e", "new file d/e/x"],
    ),
    # -- copied up -----------------------------------------------------------------------------------------------------
    ("opened for writing", {b"x": was_file()}, Upper().file(b"x", mtime_ns=OLD, copied_up=True), []),
    ("touched", {b"x": was_file()}, Upper().file(b"x", copied_up=True), ["attr file x"]),
    ("chmod", {b"x": was_file()}, Upper().file(b"x", mode=0o600, mtime_ns=OLD, copied_up=True), ["attr file x"]),
    ("made anew with the umask", {b"x": was_file(mode=0o664)}, Upper().file(b"x"), ["new file x"]),
    ("appended to", {b"x": was_file()}, Upper().file(b"x", B, copied_up=True), ["new file x"]),
    (
        "written, with the old time put back",
        {b"x": was_file()},
        Upper().file(b"x", B, mtime_ns=OLD, copied_up=True),
        ["new file x"],
    ),
    (
        "equal to what was there, as far as one can tell without its digest",
        {b"x": Attr(stat.S_IFREG | 0o644, 10, OLD)},
        Upper().file(b"x", mtime_ns=OLD, copied_up=True),
        ["new file x"],
    ),
    (
        "an empty file needs no digest to be known",
        {b"x": Attr(stat.S_IFREG | 0o644, 0, OLD)},
        Upper().file(b"x", b"", mtime_ns=OLD, copied_up=True),
        [],
    ),
    # -- made again ----------------------------------------------------------------------------------------------------
    ("made anew with the same content", {b"x": was_file()}, Upper().file(b"x"), ["attr file x"]),
    ("made anew where a hard link was", {b"x": LINKED}, Upper().file(b"x"), ["new file x"]),
    (
        "made anew where a hard link was, with the same time",
        {b"x": LINKED},
        Upper().file(b"x", mtime_ns=OLD),
        ["new file x"],
    ),
    ("touched where a hard link was", {b"x": LINKED}, Upper().file(b"x", copied_up=True), ["attr file x"]),
    ("a symlink made anew, with another time", {b"x": was_symlink()}, Upper().symlink(b"x"), ["new symlink x"]),
    ("a symlink copied up", {b"x": was_symlink()}, Upper().symlink(b"x", mtime_ns=OLD), []),
    ("a symlink elsewhere", {b"x": was_symlink()}, Upper().symlink(b"x", b"y", OLD), ["new symlink x"]),
    ("a fifo copied up", {b"x": was_fifo()}, Upper().special(b"x", stat.S_IFIFO, OLD), []),
    ("a fifo touched", {b"x": was_fifo()}, Upper().special(b"x", stat.S_IFIFO), ["attr fifo x"]),
    # -- deleted -------------------------------------------------------------------------------------------------------
    ("deleted", {b"x": was_file()}, Upper().whiteout(b"x"), ["delete x"]),
    ("a directory deleted as a whole", {b"d": was_directory()}, Upper().whiteout(b"d"), ["delete d"]),
    ("deleted, but never there", NOTHING, Upper().whiteout(b"x"), []),
    (
        "whiteouts share an inode and are no hard links",
        {b"x": was_file(), b"y": was_file()},
        Upper().whiteout(b"x").whiteout(b"y"),
        ["delete x", "delete y"],
    ),
    # -- directories ---------------------------------------------------------------------------------------------------
    (
        "an ancestor of a file written in place",
        {b"d": was_directory(), b"d/x": was_file()},
        Upper().directory(b"d", mtime_ns=OLD).file(b"d/x", B, copied_up=True),
        ["new file d/x"],
    ),
    (
        "a directory that got an entry",
        {b"d": was_directory()},
        Upper().directory(b"d").file(b"d/x"),
        ["attr dir d", "new file d/x"],
    ),
    ("chmod of a directory", {b"d": was_directory()}, Upper().directory(b"d", 0o700, OLD), ["attr dir d"]),
    (
        "rm -rf d; mkdir d",
        {b"d": was_directory(), b"d/x": was_file(), b"d/y": was_file()},
        Upper().directory(b"d", mtime_ns=OLD, opaque=True).file(b"d/x", mtime_ns=OLD),
        ["delete d", "new dir d", "new file d/x"],
    ),
    (
        "a new directory below one that was made again hides nothing more",
        {b"d": was_directory(), b"d/e": was_directory(), b"d/e/x": was_file(), b"y": was_file()},
        Upper().directory(b"d", opaque=True).directory(b"d/e").whiteout(b"d/e/x").whiteout(b"y"),
        ["delete d", "new dir d", "new dir d/e", "delete y"],
    ),
    (
        "a directory moved to where nothing was keeps its opaque mark",
        NOTHING,
        Upper().directory(b"d", opaque=True),
        ["new dir d"],
    ),
    # -- another type --------------------------------------------------------------------------------------------------
    ("a directory for a file", {b"x": was_file()}, Upper().directory(b"x", opaque=True), ["delete x", "new dir x"]),
    ("a directory for a symlink", {b"x": was_symlink()}, Upper().directory(b"x"), ["delete x", "new dir x"]),
    ("a file for a directory", {b"x": was_directory()}, Upper().file(b"x"), ["delete x", "new file x"]),
    ("a symlink for a directory", {b"x": was_directory()}, Upper().symlink(b"x"), ["delete x", "new symlink x"]),
    ("a symlink for a file is one rename", {b"x": was_file()}, Upper().symlink(b"x"), ["new symlink x"]),
    ("a file for a symlink is one rename", {b"x": was_symlink()}, Upper().file(b"x"), ["new file x"]),
    ("a socket for a file", {b"x": was_file()}, Upper().special(b"x", stat.S_IFSOCK), ["delete x"]),
    # -- hard links ----------------------------------------------------------------------------------------------------
    (
        "two names of a new file; links come last",
        NOTHING,
        Upper().file(b"a", inode=5, nlink=2).file(b"b", inode=5, nlink=2).file(b"c"),
        ["new file a", "new file c", "link b -> a"],
    ),
    (
        "a link to a file of the lower layers, whichever name comes first",
        {b"b": was_file()},
        Upper()
        .file(b"a", mtime_ns=OLD, inode=5, nlink=3, copied_up=True)
        .file(b"b", mtime_ns=OLD, inode=5, nlink=3, copied_up=True)
        .file(b"c", mtime_ns=OLD, inode=5, nlink=3, copied_up=True),
        ["link a -> b", "link c -> b"],
    ),
    (
        "a link to a file whose mode was changed",
        {b"b": was_file()},
        Upper()
        .file(b"a", mode=0o600, mtime_ns=OLD, inode=5, nlink=2, copied_up=True)
        .file(b"b", mode=0o600, mtime_ns=OLD, inode=5, nlink=2, copied_up=True),
        ["attr file b", "link a -> b"],
    ),
    (
        "a link in place of a directory",
        {b"b": was_directory()},
        Upper().file(b"a", inode=5, nlink=2).file(b"b", inode=5, nlink=2),
        ["new file a", "delete b", "link b -> a"],
    ),
    (
        "a moved file of the lower layers is new under its new name",
        {b"old": was_file()},
        Upper().file(b"new", mtime_ns=OLD, copied_up=True).whiteout(b"old"),
        ["new file new", "delete old"],
    ),
    (
        "hard links made again as they were",
        {b"a": LINKED, b"b": LINKED},
        Upper()
        .file(b"a", mtime_ns=OLD, inode=5, nlink=2, copied_up=True)
        .file(b"b", mtime_ns=OLD, inode=5, nlink=2, copied_up=True),
        [],
    ),
    (
        "two equal files made one by ln -f",
        {b"a": was_file(), b"b": was_file()},
        Upper()
        .file(b"a", mtime_ns=OLD, inode=5, nlink=2, copied_up=True)
        .file(b"b", mtime_ns=OLD, inode=5, nlink=2, copied_up=True),
        ["link b -> a"],
    ),
]


@each_row(("was", "upper", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_an_upper_layer_means(was: Mapping[bytes, Attr], upper: Upper, expected: list[str]) -> None:
    assert changes_of(upper, was) == expected


def test_a_change_tells_mode_size_time_digest_and_target() -> None:
    upper = Upper().file(b"x", B, 0o4755, 1_234_567_891).symlink(b"y", b"../z", 5)
    file, symlink = harvest(compared(upper, NOTHING), upper.digests)
    assert file.attr == Attr(stat.S_IFREG | 0o4755, len(B), 1_234_567_891, digest_of(B))
    assert symlink.attr == Attr(stat.S_IFLNK | 0o777, 4, 5, target=b"../z")


def test_names_are_bytes_with_whatever_a_kernel_allows() -> None:
    names = [b"new\nline", b"\xff\xfe", "ünï".encode(), b" ", b"-rf"]
    upper = Upper()
    for name in names:
        upper.file(name)
    assert [change.path for change in harvest(compared(upper, NOTHING), upper.digests)] == [
        ROOT + b"/" + name for name in names
    ]


def test_a_directory_hides_only_what_is_below_it_not_what_begins_like_it() -> None:
    upper = Upper().directory(b"d").file(b"d.x", mtime_ns=OLD, copied_up=True)
    assert changes_of(upper, {b"d.x": was_file()}) == ["new dir d"]


def test_each_inode_is_hashed_once_and_only_below_the_writable_root() -> None:
    upper = Upper().file(b"/etc/x").file(b"a", inode=5, nlink=2).file(b"b", inode=5, nlink=2).whiteout(b"w")
    assert [entry.inode for entry in files(compared(upper, NOTHING))] == [5]


def test_what_lower_raises_passes_through() -> None:
    class Need(Exception):
        pass

    def lower(path: bytes) -> Attr | None:
        raise Need(path)

    with pytest.raises(Need):
        compare(Upper().file(b"x").entries, lower, Homes(ROOT))


def test_a_socket_stays_behind_and_is_named() -> None:
    result = compared(Upper().special(b"s", stat.S_IFSOCK), NOTHING)
    assert result.dropped == (ROOT + b"/s",)


OUTSIDE: list[tuple[str, Mapping[bytes, Attr], Upper, tuple[bytes, ...]]] = [
    ("a new file", NOTHING, Upper().file(b"/etc/x"), (b"etc/x",)),
    ("a deletion", {b"/etc/x": was_file()}, Upper().whiteout(b"/etc/x"), (b"etc/x",)),
    ("a deletion of nothing", NOTHING, Upper().whiteout(b"/etc/x"), ()),
    ("an opened file", {b"/etc/x": was_file()}, Upper().file(b"/etc/x", mtime_ns=OLD, copied_up=True), (b"etc/x",)),
    ("a touched file", {b"/etc/x": was_file()}, Upper().file(b"/etc/x"), (b"etc/x",)),
    ("a file's mode", {b"/etc/x": was_file()}, Upper().file(b"/etc/x", mode=0o600, copied_up=True), (b"etc/x",)),
    ("another symlink", {b"/etc/x": was_symlink()}, Upper().symlink(b"/etc/x", b"y"), (b"etc/x",)),
    ("a written file", {b"/etc/x": was_file()}, Upper().file(b"/etc/x", copied_up=True), (b"etc/x",)),
    ("a directory's time", {b"/etc": was_directory()}, Upper().directory(b"/etc"), ()),
    ("a directory's mode", {b"/etc": was_directory()}, Upper().directory(b"/etc", 0o700), (b"etc",)),
    (
        "a directory's set time",
        {b"/etc": was_directory()},
        Upper().directory(b"/etc", mtime_ns=LATER, retimed=True),
        (b"etc",),
    ),
    (
        "a directory that was read",
        {b"/etc": was_directory()},
        Upper().directory(b"/etc", mtime_ns=OLD, retimed=True),
        (),
    ),
    (
        "the time of a temporary directory above the tree",
        {b"/var/tmp": was_directory(0o1777)},
        Upper().directory(b"/var/tmp", 0o1777, mtime_ns=LATER, retimed=True),
        (),
    ),
    (
        "the mode of a temporary directory",
        {b"/var/tmp": was_directory(0o1777)},
        Upper().directory(b"/var/tmp", 0o777, mtime_ns=LATER, retimed=True),
        (b"var/tmp",),
    ),
    ("a new directory", NOTHING, Upper().directory(b"/c"), (b"c",)),
    ("new directories", NOTHING, Upper().directory(b"/c").directory(b"/c/d").directory(b"/c/e"), (b"c/d", b"c/e")),
    ("a new directory, by what is in it", NOTHING, Upper().directory(b"/c").file(b"/c/x"), (b"c/x",)),
    (
        "a directory's mode, and what is in it",
        {b"/c": was_directory()},
        Upper().directory(b"/c", 0o700).file(b"/c/x"),
        (b"c", b"c/x"),
    ),
    ("a replaced directory", {b"/c": was_file()}, Upper().directory(b"/c"), (b"c",)),
    ("files for a while", NOTHING, Upper().file(b"/tmp/x").directory(b"/var/tmp/d").file(b"/dev/shm/x"), ()),
    ("the writable root deleted", {b"/" + ROOT: was_directory()}, Upper().whiteout(b"/" + ROOT), (ROOT,)),
    (
        "the writable root's own time",
        {b"/" + ROOT: was_directory()},
        Upper().directory(b"/" + ROOT, mtime_ns=LATER, retimed=True),
        (),
    ),
    ("what begins like the writable root", NOTHING, Upper().file(b"/" + ROOT + b"2/x"), (ROOT + b"2/x",)),
]


@each_row(("was", "upper", "dropped"), [row[1:] for row in OUTSIDE], ids=[row[0] for row in OUTSIDE])
def test_outside_the_writable_root_nothing_changes_and_what_is_lost_is_named(
    was: Mapping[bytes, Attr], upper: Upper, dropped: tuple[bytes, ...]
) -> None:
    result = compared(upper, was)
    assert (result.pairs, result.dropped) == ((), dropped)


def test_the_names_of_what_is_lost_are_not_without_end_and_leave_nothing_out() -> None:
    upper = Upper().file(b"/root/.npm/a")
    for number in range(1500):
        upper.file(b"/etc/d/%d" % number).file(b"/root/.npm/c/%d/%d" % (number % 7, number))
    few = tuple(b"root/.npm/c/%d" % number for number in range(7))
    assert sorted(compared(upper, NOTHING).dropped) == [b"etc/d", b"root/.npm/a", *few]


def test_names_give_way_to_their_directories_only_if_there_are_too_many() -> None:
    few = tuple(b"a/%d" % number for number in range(MAX_DROPPED))
    assert coarsened(few) == few
    assert coarsened((*few, b"a/x")) == (b"a",)
    assert coarsened(tuple(b"%d" % number for number in range(MAX_DROPPED + 1))) == (b"",)


@each_row(
    ("directory", "writable_root", "expected"),
    [
        (b"usr", ROOT, True),
        (b"tmp", ROOT, False),
        (b"tmp/d", ROOT, False),
        (b"tmp/d", b"tmp/d/project", True),
        (b"tmp/d/project", b"tmp/d/project", True),
        (b"tmp/d/project/src", b"tmp/d/project", True),
        (b"tmp/other", b"tmp/d/project", False),
        (b"anything", b"", True),
    ],
)
def test_the_reader_goes_where_changes_can_be(directory: bytes, writable_root: bytes, expected: bool) -> None:
    assert is_worth_reading(directory, Homes(writable_root)) is expected


def bases_of(upper: Upper, was: Mapping[bytes, Attr]) -> dict[str, BaseVersion | None]:
    done = compared(upper, was)
    return {change.path.decode().rpartition("/")[2]: change.base for change in harvest(done, upper.digests)}


def test_a_result_derives_from_what_was_there_unless_it_was_made_anew() -> None:
    upper = Upper().file(b"in-place", B, copied_up=True).file(b"new", B).file(b"over", B).file(b"module.pyc", B)
    upper.file(b"linked", B).whiteout(b"gone").whiteout(b"gone-directory").symlink(b"link").symlink(b"link-over")
    upper.file(b"touched", A, copied_up=True)
    was = {
        b"in-place": was_file(),
        b"over": was_file(),
        b"linked": was_file(nlink=2, link_id=1),
        b"gone": was_file(),
        b"gone-directory": was_directory(),
        b"touched": was_file(),
        b"link-over": was_file(),
    }
    version = BaseVersion(len(A), OLD, digest_of(A))
    assert bases_of(upper, was) == {
        "in-place": version,
        "new": BaseVersion(-1),
        "over": None,
        "module.pyc": None,
        "linked": None,
        "gone": version,
        "gone-directory": None,
        "link": BaseVersion(-1),
        "link-over": None,
        "touched": None,
    }


def test_a_moved_file_derives_from_the_place_that_it_left() -> None:
    upper = Upper().whiteout(b"log").file(b"log.1", A, copied_up=True)
    version = BaseVersion(len(A), OLD, digest_of(A))
    assert bases_of(upper, {b"log": was_file()}) == {"log": version, "log.1": BaseVersion(-1)}


def test_each_name_of_a_written_file_has_its_own_base() -> None:
    upper = Upper().file(b"a", B, nlink=2).file(b"b", B, copied_up=True, nlink=2, inode=1)
    assert bases_of(upper, {b"b": was_file()}) == {
        "a": BaseVersion(-1),
        "b": BaseVersion(len(A), OLD, digest_of(A)),
    }


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6755])
def test_a_written_file_that_has_lost_special_bits_is_named(bits: int) -> None:
    was = {b"f": was_file(mode=bits), b"g": was_file(mode=bits)}
    lost = Upper().file(b"f", B, mode=0o755, copied_up=True).file(b"g", B, mode=0o755)
    assert deprived(compared(lost, was)) == (ROOT + b"/f",), "g was made anew"
    kept = Upper().file(b"f", B, mode=bits, copied_up=True).whiteout(b"g")
    assert deprived(compared(kept, was)) == ()
