"""TERMITE_SUMMARY may name a file in /tmp, where other users put links and FIFOs at its name."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.cli.places import records_directory
from termite.cli.written_files.summary_file import write_summary
from tests.synthetic_builds import synthetic_history, write_history

PRIVATE = "the user's own file"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = tmp_path / "tree"
    root.mkdir()
    write_history(records_directory(root), synthetic_history(1, 3))
    return root


@pytest.mark.parametrize("name", ["summary.json", "summary.md"])
def test_a_fifo_that_nobody_reads_holds_no_build_up(tree: Path, name: str) -> None:
    os.mkfifo(tree / name)
    (line,) = write_summary(tree / name, tree, "1")
    assert "FIFO" in line


@pytest.mark.needs_root("makes a link of another user")
@pytest.mark.parametrize("name", ["summary.json", "summary.md"])
def test_the_link_of_another_user_is_not_followed(tree: Path, name: str) -> None:
    private = tree / "private"
    private.write_text(PRIVATE)
    (tree / name).symlink_to(private)
    os.lchown(tree / name, 65534, 65534)
    (line,) = write_summary(tree / name, tree, "1")
    assert "another user's link" in line
    assert private.read_text() == PRIVATE


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.symlink_to("real"), Path.touch])
def test_a_file_and_the_users_own_link_are_written(tree: Path, make: Callable[[Path], None]) -> None:
    for name in ("summary.json", "summary.md"):
        make(tree / name)
        assert write_summary(tree / name, tree, "1") == []
        assert "build" in (tree / name).read_text()
        (tree / name).unlink()
