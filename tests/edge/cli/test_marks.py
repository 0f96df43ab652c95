"""A mark says at which path a tree is built."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.cli.moved_trees.marks import MARK, check_directory, check_mark, find_mark, read_mark, write_mark
from termite.engine.errors import UserError


def test_a_tree_is_built_at_one_path_for_its_life(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert find_mark(tmp_path / "sub") is None
    check_directory(tmp_path / "sub")
    write_mark(tmp_path, "/build/p")
    write_mark(tmp_path, "/build/p")
    assert find_mark(tmp_path / "sub") == (tmp_path, "/build/p")
    check_mark(tmp_path, "/build/p")
    attempts: list[Callable[[], None]] = [
        lambda: write_mark(tmp_path, "/build/q"),
        lambda: check_mark(tmp_path, "/build/q"),
        lambda: check_mark(tmp_path, ""),
        lambda: check_directory(tmp_path / "sub"),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match=f"{tmp_path} is built at /build/p, not at ") as caught:
            attempt()
        assert "use --at /build/p" in caught.value.hint
    assert read_mark(tmp_path) == "/build/p"


def test_a_tree_that_stands_at_its_build_path_is_built_as_any_other(tmp_path: Path) -> None:
    write_mark(tmp_path, str(tmp_path))
    check_directory(tmp_path)
    check_mark(tmp_path, str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"build/p\n", b"/a\n/b\n", b"\xff"])
def test_a_mark_without_one_path_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARK).write_bytes(content)
    with pytest.raises(UserError, match="has no path in it"):
        check_directory(tmp_path)


def test_a_mark_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / MARK).symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="has no path in it"):
        check_directory(tmp_path)
    (tmp_path / MARK).unlink()
    (tmp_path / MARK).mkdir()
    with pytest.raises(UserError, match="has no path in it"):
        check_directory(tmp_path)


@pytest.mark.needs_root("gives a mark to another user")
@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_a_mark_that_another_user_has_put_into_a_directory_of_all_users_does_not_count(
    tmp_path: Path, kind: str
) -> None:
    mark, tree = tmp_path / MARK, tmp_path / "tree"
    tree.mkdir()
    match kind:
        case "file":
            mark.write_text("/build/p\n")
        case "symlink":
            mark.symlink_to("/etc/hostname")
        case "directory":
            mark.mkdir()
    os.chown(mark, 61000, 61000, follow_symlinks=False)
    with pytest.raises(UserError, match=str(tmp_path)):
        check_directory(tree)
    tmp_path.chmod(0o1777)
    check_directory(tree)
    assert find_mark(tree) is None
    os.chown(tmp_path, 61000, 61000)
    with pytest.raises(UserError, match=str(tmp_path)):
        check_directory(tree)
