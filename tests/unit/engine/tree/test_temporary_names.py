"""Test which names of temporary directories the words of a command mention."""

import pytest

from termite.engine.tree.logic.temporary_names import chosen_in, named_in, other_words, temporary_above
from tests.unit.tables import each_row

ROOT = b"tmp/build"


@each_row(
    ("word", "paths"),
    [
        (b"/tmp/a", [b"tmp/a"]),
        (b"/var/tmp/a/b.c", [b"var/tmp/a/b.c"]),
        (b"-I/tmp/a/include", [b"tmp/a/include"]),
        (b"-Wl,-rpath,/tmp/a", [b"tmp/a"]),
        (b"--file=/tmp/a", [b"tmp/a"]),
        (b"@/tmp/a.rsp", [b"tmp/a.rsp"]),
        (b"PATH=/usr/bin:/tmp/a/bin:/bin", [b"tmp/a/bin"]),
        (b"cat '/tmp/a' >/tmp/b; echo \"/tmp/c\"", [b"tmp/a", b"tmp/b", b"tmp/c"]),
        (b"/tmp/a/", [b"tmp/a"]),
        (b"/tmp/", []),
        (b"/tmp", []),
        (b"/home/u/tmp/a", []),
        (b"../tmp/a", []),
        (b"/tmp/../etc/passwd", []),
        (b"/tmp/a/./b", []),
        (b"/tmp//a", []),
        (b"/tmp/build/x.c", []),
        (b"/tmp/a /tmp/a", [b"tmp/a"]),
    ],
)
def test_a_word_names_paths(word: bytes, paths: list[bytes]) -> None:
    assert named_in([word], ROOT) == paths


def test_the_way_to_the_tree_is_no_private_name() -> None:
    assert named_in([b"/tmp/x/proj/a.c", b"/tmp/x", b"/tmp/x/project"], b"tmp/x/proj") == [b"tmp/x/project"]


def test_the_variables_for_temporary_files_are_apart_from_the_others() -> None:
    environment = [b"TMPDIR=/tmp/user/0", b"TMP=/var/tmp/u/", b"TEMP=tmp/x", b"TEMPDIR=/tmp/build/t"]
    environment += [b"A=/tmp/a", b"B=1"]
    assert chosen_in(environment, ROOT) == [b"/tmp/user/0", b"/var/tmp/u/"]
    others = [b"TMPDIR=/home/u/tmp", b"TMP=/tmp/./link/", b"TEMP=/" + b"x" * 5000]
    assert chosen_in(others, ROOT) == [b"/home/u/tmp", b"/tmp/./link/"]
    assert other_words(environment) == [b"A=/tmp/a"]


@pytest.mark.parametrize(
    ("path", "top"),
    [(b"tmp/a", b"tmp"), (b"var/tmp/a/b", b"var/tmp"), (b"tmp", b""), (b"tmpfile", b""), (b"var/a", b"")],
)
def test_a_path_is_below_a_temporary_directory_or_not(path: bytes, top: bytes) -> None:
    assert temporary_above(path) == top
