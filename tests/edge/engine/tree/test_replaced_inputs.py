"""A symlink that takes the place of what a job was shown is no error of the job: it runs again."""

import os
from pathlib import Path

import pytest

from termite.engine.errors import Retryable, Stale
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.tree.tree_jobs import agrees_with_the_disk, changed_since, serve, tree_path


def replace(path: Path, kind: str) -> None:
    """Move what is at `path` away, and put something else there."""
    path.rename(path.with_name("real"))
    match kind:
        case "a symlink":
            path.symlink_to("real")
        case "a directory":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case "a file":
            path.write_bytes(b"other")


@pytest.mark.parametrize("is_drained", [True, False])
@pytest.mark.parametrize("kind", ["a symlink", "a directory", "a FIFO", "nothing"])
@pytest.mark.parametrize("place", ["top/d/f", "top/d", "top"])
async def test_a_file_that_a_job_was_shown_and_that_is_no_file_any_more_runs_the_job_again(
    home: MasterTree, root: Path, place: str, kind: str, *, is_drained: bool
) -> None:
    file = root / "top" / "d" / "f"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    mtime_ns = file.stat().st_mtime_ns
    await serve(home, root, file.parent)
    replace(root / place, kind)
    if is_drained:
        home.drain()
    with pytest.raises(Stale):
        await home.open_file(tree_path(file), 1, mtime_ns)
    home.drain()
    assert place in await changed_since(home, root, 0)
    assert await agrees_with_the_disk(home, root)


@pytest.mark.parametrize("is_drained", [True, False])
@pytest.mark.parametrize("kind", ["a symlink", "a file", "a FIFO", "nothing"])
@pytest.mark.parametrize("place", ["top/d", "top"])
async def test_a_directory_that_a_job_was_shown_and_that_is_none_any_more_runs_the_job_again(
    home: MasterTree, root: Path, place: str, kind: str, *, is_drained: bool
) -> None:
    (root / "top" / "d").mkdir(parents=True)
    await serve(home, root, root / "top")
    replace(root / place, kind)
    if is_drained:
        home.drain()
    with pytest.raises(Stale):
        await home.directory(tree_path(root / "top" / "d"))
    home.drain()
    assert place in await changed_since(home, root, 0)
    assert await agrees_with_the_disk(home, root)


async def test_a_file_or_directory_that_is_closed_here_is_tried_here(refused_root: Path) -> None:
    home = MasterTree(TreeConfig(tree_path(refused_root)))
    try:
        (refused_root / "d").mkdir()
        (refused_root / "f").write_bytes(b"1")
        mtime_ns = (refused_root / "f").stat().st_mtime_ns
        await serve(home, refused_root)
        (refused_root / "d").chmod(0)
        (refused_root / "f").chmod(0)
        with pytest.raises(Retryable, match="/d"):
            await home.directory(tree_path(refused_root / "d"))
        with pytest.raises(Retryable, match="/f"):
            await home.open_file(tree_path(refused_root / "f"), 1, mtime_ns)
    finally:
        home.close()
