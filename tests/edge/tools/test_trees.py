"""tools/trees.py: the comparison of trees, for the demo and the examples."""

import os
from pathlib import Path

from trees import differences, put_back, read_tree


def grow(root: Path) -> Path:
    """Make a small tree with every kind of file."""
    (root / "src" / "deep").mkdir(parents=True)
    (root / "src" / "a.c").write_text("int a;\n")
    (root / "src" / "run").write_text("#!/bin/sh\n")
    (root / "src" / "run").chmod(0o755)
    (root / "link").symlink_to("src/a.c")
    for path in (root / "src" / "a.c", root / "src" / "deep", root / "src", root):
        os.utime(path, ns=(1, 1_000_000_000_000_000_007))
    return root


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in root.rglob("*")}


def test_equal_trees_have_no_differences(tmp_path: Path) -> None:
    assert differences(read_tree(grow(tmp_path / "one")), read_tree(grow(tmp_path / "other"))) == []


def test_content_mode_target_and_presence_differ(tmp_path: Path) -> None:
    one, other = grow(tmp_path / "one"), grow(tmp_path / "other")
    (other / "src" / "a.c").write_text("int b;\n")
    (other / "src" / "run").chmod(0o644)
    (other / "link").unlink()
    (other / "link").symlink_to("src/run")
    (other / "src" / "deep").rmdir()
    (other / "new").write_text("")
    assert differences(read_tree(one), read_tree(other)) == ["link", "new", "src/a.c", "src/deep", "src/run"]


def test_what_a_master_keeps_in_a_tree_is_no_difference(tmp_path: Path) -> None:
    one, other = grow(tmp_path / "one"), grow(tmp_path / "other")
    (other / ".termite-staging").mkdir()
    (other / ".termite-staging" / "7").write_text("staged")
    assert differences(read_tree(one), read_tree(other)) == []


def test_a_tree_is_put_back_with_its_times(tmp_path: Path) -> None:
    tree, saved = grow(tmp_path / "tree"), grow(tmp_path / "saved")
    before, pristine = stamps(tree), read_tree(tree)
    (tree / "src" / "a.c").write_text("int b;\n")
    (tree / "src" / "deep").rmdir()
    (tree / "src" / "deep").write_text("a file now")
    (tree / "link").unlink()
    (tree / "link").mkdir()
    (tree / "link" / "below").write_text("x")
    (tree / "out" / "more").mkdir(parents=True)
    put_back(tree, saved)
    assert read_tree(tree) == pristine
    assert {path: stamp for path, stamp in stamps(tree).items() if not path.endswith(("link", "run"))} == {
        path: stamp for path, stamp in before.items() if not path.endswith(("link", "run"))
    }


def test_an_untouched_file_is_left_alone(tmp_path: Path) -> None:
    tree, saved = grow(tmp_path / "tree"), grow(tmp_path / "saved")
    inode = (tree / "src" / "a.c").stat().st_ino
    put_back(tree, saved)
    assert (tree / "src" / "a.c").stat().st_ino == inode
