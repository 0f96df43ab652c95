"""A tree may be built at another path: the flag, the rules for that path, and translated texts."""

from pathlib import Path

import pytest

from termite.cli.moved_trees.own_words import take_at
from termite.cli.moved_trees.path_rules import check_path, parse_path
from termite.cli.moved_trees.path_text import PathText
from termite.engine.errors import UserError
from tests.unit.tables import each_row

NEEDED = (("your home directory", Path("/home/you")), ("a directory of the system", Path("/usr")))


@each_row(
    ("words", "found"),
    [
        ((), ("", [])),
        (("-j20", "all"), ("", ["-j20", "all"])),
        (("--at", "/build/p", "-j20"), ("/build/p", ["-j20"])),
        (("-j20", "--at=/build/p"), ("/build/p", ["-j20"])),
        (("--at=/p", "--at", "/p"), ("/p", [])),
        (("-j4", "--", "--at", "/p"), ("", ["-j4", "--", "--at", "/p"])),
        (("-at",), ("", ["-at"])),  # two flags of make
        (("--attach",), ("", ["--attach"])),
    ],
)
def test_the_flag_is_taken_from_the_words_of_a_tool(words: tuple[str, ...], found: tuple[str, list[str]]) -> None:
    assert take_at(words) == found


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--at",), "has no value: write --at PATH"),
        (("--at=",), "has no value"),
        (("--at", "-j4"), "has no value"),
        (("--at", "/p", "--at=/q"), "names two paths: /p and /q"),
    ],
)
def test_a_flag_without_one_path_is_refused(words: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError, match=line):
        take_at(words)


@pytest.mark.parametrize("text", ["/build/p", "/build//p", "/build/p/", "//build/p", "/build/./p"])
def test_a_path_has_one_plain_form(text: str) -> None:
    assert parse_path(text) == Path("/build/p")


@each_row("text", ["build/p", "./p", "~/p", "/", "//", "/build/../p", "/a:b", "/a\nb", "/a\0b"])
def test_a_text_that_is_no_build_path_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--at") as caught:
        parse_path(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/build/p", "/home/you/project"),
        ("/home/you/other", "/home/you/project"),
        ("/usr/src/p", "/home/you/project"),
        ("/home/you/project", "/home/you/project"),
        ("/build/p2", "/build/p"),
    ],
)
def test_a_tree_can_be_built_at_any_other_place(path: str, own: str) -> None:
    check_path(Path(path), Path(own), NEEDED)


@each_row(
    ("path", "own", "line"),
    [
        ("/home/you/project/out", "/home/you/project", "one of them is in the other"),
        ("/home/you", "/home/you/project", "one of them is in the other"),
        ("/usr", "/home/you/project", "would cover a directory of the system"),
        ("/home/you", "/data/project", "would cover your home directory"),
        ("/home", "/data/project", "would cover your home directory"),
        ("/proc/p", "/home/you/project", "belongs to the kernel"),
        ("/dev/p", "/home/you/project", "belongs to the kernel"),
        ("/build/p", "/home/you", "your home directory .* is in it"),
        ("/build/p", "/home", "your home directory .* is in it"),
    ],
)
def test_a_tree_is_not_built_where_the_build_would_lack_something(path: str, own: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        check_path(Path(path), Path(own), NEEDED)
    assert caught.value.hint


TREE = PathText("/build/p", "/home/you/my project")


@each_row(
    "text",
    [
        "{0}",
        "{0}/x.c:3:1: error: no",
        "In file included from {0}/a.h,\n                 from {0}/b.h:\n",
        "make: Entering directory '{0}'",
        'gcc "-I{0}/include" -isystem{0}/i -iquote{0} -fdebug-prefix-map={0}=. @{0}/x.rsp -Wl,-rpath,{0}/lib',
        '{{"directory": "{0}", "file": "{0}/x.c"}},',
        "file://{0}/index.html",
        "PATH=/bin:{0}/bin:{0}",
        "({0}) [{0}] <{0}> {0};{0}|{0}&",
        "{0}\\n",
        "/x/build/p /build/project /build/p2/x build/p ./build/p /build/p.c a-I/build/p /build/p-x /build/p~",
    ],
)
def test_paths_of_a_tree_are_translated_and_others_are_not(text: str) -> None:
    before, after = text.format("/build/p").encode(), text.format("/home/you/my project").encode()
    assert TREE.translate(before) == after
    assert PathText("/home/you/my project", "/build/p").translate(after) == before


def test_bytes_of_no_character_set_stay_as_they_are() -> None:
    assert (
        TREE.translate(b"\xff \xe4/build/p \xff'/build/p/\xe4'") == b"\xff \xe4/build/p \xff'/home/you/my project/\xe4'"
    )


def test_an_environment_names_the_other_path() -> None:
    env = {"PWD": "/build/p/sub", "PATH": "/usr/bin:/build/p/bin", "X": "", "FLAGS": "-I/build/p -g"}
    assert PathText("/build/p", "/t").environment(env) == {
        "PWD": "/t/sub",
        "PATH": "/usr/bin:/t/bin",
        "X": "",
        "FLAGS": "-I/t -g",
    }
