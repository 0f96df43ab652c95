"""Paths and names as somebody else sends them: only what leads down is taken, and quickly."""

import errno
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.paths import (
    NAME_BYTES,
    PATH_BYTES,
    RESULT_BYTES,
    check_names,
    check_paths,
    components,
    from_below_up,
    from_root_down,
    is_below,
    is_inside,
    is_within,
    parse_mount_lines,
    unescape_mount_path,
)
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

BAD = [
    b"/",
    b"/tmp/x",
    b"a/",
    b"a//b",
    b".",
    b"..",
    b"a/..",
    b"../a",
    b"a/../b",
    b"a/./b",
    b"./a",
    b"a\0b",
    b"\0",
    b"a/\0/b",
]
GOOD = [b"", b"a", b"a/b", b"...", b".a", b"a.", b"a../b", b"..a/b", b"a/...", b"\xff", b"a\nb", b"n" * NAME_BYTES]
DEEP = b"/".join([b"d" * 200] * 40)


@each_row("path", BAD)
@each_row("others", [(), (b"",), (b"", b""), (b"a", b"b/c"), (b"a", b"", b"b")])
def test_a_path_that_leads_elsewhere_is_refused_among_any_others(path: bytes, others: tuple[bytes, ...]) -> None:
    with pytest.raises(FsError) as error:
        components(path)
    assert error.value.errno == errno.EINVAL
    for at in range(len(others) + 1):
        with pytest.raises(RemoteProtocolError):
            check_paths([*others[:at], path, *others[at:]])


def test_every_other_path_is_taken() -> None:
    check_paths([])
    check_paths(GOOD)
    for path in GOOD:
        check_paths([path])
        assert b"/".join(components(path)) == path


@pytest.mark.parametrize(
    "path", [b"n" * (NAME_BYTES + 1), b"a/" * 3 + b"n" * (NAME_BYTES + 1), b"a/" * PATH_BYTES + b"a"]
)
def test_what_is_too_long_is_refused(path: bytes) -> None:
    with pytest.raises(FsError) as error:
        components(path)
    assert error.value.errno == errno.ENAMETOOLONG
    with pytest.raises(RemoteProtocolError):
        check_paths([b"a", path])


def test_a_tree_deeper_than_a_path_of_a_system_call_is_a_tree_but_no_result() -> None:
    assert len(components(DEEP)) == 40
    check_paths([DEEP])
    with pytest.raises(FsError):
        components(DEEP, RESULT_BYTES)


@each_row("name", [b"", b".", b"..", b"/", b"a/b", b"/a", b"a/", b"a\0", b"n" * (NAME_BYTES + 1)])
@each_row("others", [(), (b"x",), (b"x", b"...")])
def test_what_is_no_name_of_an_entry_is_refused_among_any_others(name: bytes, others: tuple[bytes, ...]) -> None:
    for at in range(len(others) + 1):
        with pytest.raises(RemoteProtocolError):
            check_names(dict.fromkeys((*others[:at], name, *others[at:])))


@given(st.lists(st.binary(max_size=6) | st.text("a./\0", max_size=6).map(str.encode), max_size=5))
def test_thousands_at_once_are_judged_as_each_alone(paths: list[bytes]) -> None:
    assert _is_refused(lambda: check_paths(paths)) == any(_is_refused(lambda p=p: components(p)) for p in paths)
    expected = any(name in (b"", b".", b"..") or b"/" in name or b"\0" in name for name in paths)
    assert _is_refused(lambda: check_names(dict.fromkeys(paths))) == expected


def test_a_hundred_thousand_take_a_moment() -> None:
    paths = [b"home/user/project/src/directory%d/file_number_%d.c" % (i % 100, i) for i in range(100_000)]
    names = {b"file_number_%d.c" % i: None for i in range(100_000)}
    started_s = time.process_time()
    check_paths(paths)
    check_names(names)
    assert time.process_time() - started_s < 0.5  # 0.05 on a quiet machine


def _is_refused(check: object) -> bool:
    assert callable(check)
    try:
        check()
    except (FsError, RemoteProtocolError):
        return True
    return False


def test_the_way_to_the_root_has_one_order_from_each_end() -> None:
    assert list(from_root_down(b"a/b/c")) == [b"", b"a", b"a/b", b"a/b/c"]
    assert list(from_below_up(b"a/b/c")) == [b"a/b/c", b"a/b", b"a"]
    assert list(from_below_up(b"")) == []


@pytest.mark.parametrize(
    ("path", "top", "is_inside"),
    [(b"a/b", b"a", True), (b"ab", b"a", False), (b"a", b"a/b", False), (b"a", b"", True)],
)
def test_a_path_is_below_a_directory_by_whole_names(path: bytes, top: bytes, is_inside: bool) -> None:
    assert is_below(path, top) is is_within(path, top) is is_inside


@pytest.mark.parametrize("path", [b"", b"a", b"a/b"])
def test_a_directory_is_within_itself_and_not_below_itself(path: bytes) -> None:
    assert is_within(path, path)
    assert not is_below(path, path)


@each_row(
    ("path", "top", "expected"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/a/b", "/a/", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
        ("/", "/", True),
    ],
)
def test_an_absolute_path_is_inside_a_directory_or_is_it(path: str, top: str, expected: bool) -> None:
    assert is_inside(path, top) is expected


def test_a_mount_path_has_every_escape_of_the_kernel_undone() -> None:
    assert unescape_mount_path(rb"/a\040b\011c\012d\134e\043f") == b"/a b\tc\nd\\e#f"
    assert unescape_mount_path(rb"/\134040") == rb"/\040", "what was undone is no escape"


LINE = b"36 35 98:0 /mnt1 /a\\040b\\134c\\011d rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
# What ends a line or a word for Python, and stands in names as it is; and what is no UTF-8.
LINE_ENDS = ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\xa0", "\udcff"]


def test_a_line_of_mounts_is_taken_apart() -> None:
    (mount,) = parse_mount_lines(LINE)
    assert mount == (b"98:0", b"/mnt1", b"/a b\\c\td", b"ext3", b"rw,errors=continue")
    (top,) = parse_mount_lines(b"27 1 254:0 / / rw - ext4 /dev/root rw")
    assert (top.root, top.point) == (b"/", b"/")
    assert list(parse_mount_lines(b"\n36 35 98:0 - ext3 x rw\n36 35 98:0 / / rw\n - tmpfs none rw\n")) == []


@pytest.mark.attack
@each_row("end", LINE_ENDS)
def test_a_name_that_ends_lines_elsewhere_hides_no_mount(end: str) -> None:
    """A job could hide its memory so, and another user could stop every daemon of the machine."""
    name = os.fsencode(f"/mnt/a{end}b")
    text = b"40 36 0:50 / %s rw - tmpfs none rw\n" % name + LINE
    assert [(mount.point, mount.kind) for mount in parse_mount_lines(text)] == [
        (name, b"tmpfs"),
        (b"/a b\\c\td", b"ext3"),
    ]


@given(mutations(LINE * 2))
def test_any_text_of_mounts_is_read(text: bytes) -> None:
    for mount in parse_mount_lines(text):
        assert b"\n" not in mount.kind


def test_a_list_of_mounts_may_be_cut_anywhere() -> None:
    for end in range(len(2 * LINE)):
        assert len(list(parse_mount_lines((2 * LINE)[:end]))) <= 2
