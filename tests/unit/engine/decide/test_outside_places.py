"""Tests of the places outside the tree, and of the commands that name them."""

import pytest

from termite.engine.decide.logic import outside_places as module
from termite.engine.decide.logic.outside_places import OutsidePlaces, common_place, relative_to
from tests.unit.tables import each_row

ROOT = "/home/u/p"


def places(*paths: str, names: tuple[str, ...] = ()) -> OutsidePlaces:
    found = OutsidePlaces(ROOT)
    for path in paths:
        found.add([path], names)
    return found


@each_row(
    ("paths", "place"),
    [
        (["/srv/x/a"], "/srv/x"),
        (["/srv/x/a", "/srv/x/b/c"], "/srv/x"),
        (["/srv/x/bin/a", "/srv/x/lib/b"], "/srv/x"),
        (["/home/u/out/a"], "/home/u/out"),
        (["/home/u/.rc"], "/home/u/.rc"),
        (["/home/u/p"], "/home/u/p"),
        (["/home/u/p2/x"], "/home/u/p2"),
        (["/srv/a", "/home/b"], "/srv/a"),
        (["/x"], "/x"),
        (["/usr/local/bin/x", "/usr/local/lib/y"], "/usr/local/bin/x"),
    ],
)
def test_the_place_of_a_write_is_its_directory_unless_others_name_that_for_other_reasons(
    paths: list[str], place: str
) -> None:
    assert common_place(paths, ROOT) == place


@each_row(
    "text",
    [
        "install -m 644 x /srv/x/include/y",
        "cp a /srv/x",
        "cp a '/srv/x/b'",
        "cd /srv/x && ls",
        "cc -L/srv/x -lz",
        "cc -o/srv/x/a a.c",
        "make DESTDIR=/srv/x install",
        "tar xf a -C ../../../srv/x",
        "cc -DA=1 -o /srv/x/a a.c",
        "cc -DPREFIX=/srv/x -o /srv/x/a a.c",
        "(cat a)>/srv/x/b",
    ],
)
def test_a_command_that_names_the_place_is_found(text: str) -> None:
    assert places("/srv/x/a").place_in(text, ROOT) == "/srv/x"


@each_row(
    "text",
    [
        "cp a /srv/xy",
        "cp a /srv/x.old",
        "cp a /big/srv/x/a",
        "cp a b",
        "cc -DPREFIX=/srv/x -c a.c",
        "cc '-DPREFIX=\"/srv/x\"' -c a.c",
        'cc -DPREFIX=\\"/srv/x\\" -c a.c',
        "cc -o a a.o -Wl,-rpath,/srv/x/lib",
        "libtool --mode=link cc -rpath /srv/x/lib -o liba.la a.lo",
        "cc -ffile-prefix-map=/srv/x=. -c a.c",
    ],
)
def test_a_command_that_does_not_open_a_file_there_is_not_found(text: str) -> None:
    assert places("/srv/x/a").place_in(text, ROOT) == ""


def test_a_relative_path_counts_from_the_directory_of_the_command() -> None:
    found = places("/home/u/out/a")
    assert found.place_in("cp a ../out/b", ROOT) == "/home/u/out"
    assert found.place_in("cp a ../../out/b", f"{ROOT}/sub") == "/home/u/out"
    assert found.place_in("cp a ../out/b", f"{ROOT}/sub") == ""


def test_a_symlink_in_the_tree_is_a_name_of_the_place() -> None:
    found = places("/srv/x/obj/a.o", names=(f"{ROOT}/obj",))
    assert found.place_in("cc -c -o obj/b.o b.c", ROOT) == "/srv/x/obj"
    assert found.place_in("cc -c -o ./obj/b.o b.c", ROOT) == "/srv/x/obj"
    assert found.place_in(f"cc -c -o {ROOT}/obj/b.o b.c", ROOT) == "/srv/x/obj"
    assert found.place_in("cc -c -o ../obj/b.o b.c", f"{ROOT}/sub") == "/srv/x/obj"
    assert found.place_in("cc -c -o sub/obj/b.o b.c", ROOT) == ""
    assert found.place_in("cc -c -o object b.c", ROOT) == ""
    assert found.names_of("/srv/x/obj") == ["/srv/x/obj", f"{ROOT}/obj"]


def test_two_places_side_by_side_become_one() -> None:
    found = places("/srv/x/bin/a", "/srv/x/lib/b")
    assert found.place_in("cp a /srv/x/share/c", ROOT) == "/srv/x"
    found.add(["/srv/y/a"])
    assert found.place_in("cp a /srv/z/c", ROOT) == ""
    assert found.place_in("cp a /srv/y/c", ROOT) == "/srv/y"


def test_files_of_the_system_never_stand_for_their_directory() -> None:
    found = places("/usr/local/bin/a", "/usr/local/bin/b", "/etc/c")
    assert found.place_in("/usr/local/bin/cc -c x.c -I/usr/local/include", ROOT) == ""
    assert found.place_in("/usr/local/bin/b --version", ROOT) == "/usr/local/bin/b"


def test_all_files_of_the_system_that_one_command_wrote_are_names_of_its_place() -> None:
    found = OutsidePlaces(ROOT)
    assert found.add(["/usr/bin/a", "/usr/lib/b"]) == "/usr/bin/a"
    assert found.place_in("cat /usr/lib/b", ROOT) == "/usr/bin/a"


def test_what_stands_beside_the_tree_is_named_by_itself() -> None:
    found = places("/home/u/.rc", "/home/u/.other")
    assert found.place_in("cat /home/u/.rc", ROOT) == "/home/u/.rc"
    assert found.place_in("cat /home/u/p/x /home/u/y", ROOT) == ""


def test_another_build_begins_with_no_places() -> None:
    found = places("/srv/x/a")
    assert found
    found.clear()
    assert not found
    assert found.place_in("cp a /srv/x", ROOT) == ""


def test_the_number_of_places_and_patterns_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 3)
    monkeypatch.setattr(module, "MAX_DIRECTORIES", 2)
    found = places(*(f"/{name}/x" for name in "abcd"))
    assert [found.place_in(f"ls /{name}/y", ROOT) for name in "abcd"] == ["/a", "/b", "/c", ""]
    assert [found.place_in("ls /a/y", f"{ROOT}/{number}") for number in range(5)] == ["/a"] * 5


@each_row(
    ("path", "directory", "expected"),
    [
        ("/a/b", "/a", "b"),
        ("/a/b", "/a/c", "../b"),
        ("/a", "/a", ""),
        ("/a", "/", "a"),
        ("/a", "/b/c", "../../a"),
        ("/a", "/a/b", ".."),
    ],
)
def test_a_path_as_it_is_written_in_a_directory(path: str, directory: str, expected: str) -> None:
    assert relative_to(path, directory) == expected
