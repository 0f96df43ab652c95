"""A directory that refuses to be opened for a while loses no event of what happened in it.

A shell that stands in a directory goes on writing there though the directory above is closed.
"""

import os
from collections.abc import Iterator
from errno import EACCES, EIO, EPERM
from pathlib import Path

import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.tree import tree_disk
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.tree.test_failed_looks import failed
from tests.edge.engine.tree.tree_jobs import agrees_with_the_disk, changed_since, serve, tree_path


@pytest.fixture
def closed_home(refused_root: Path) -> Iterator[MasterTree]:
    tree = MasterTree(TreeConfig(tree_path(refused_root)))
    yield tree
    tree.close()


def write(shell: int, name: str, content: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=shell)
    os.write(fd, content)
    os.close(fd)


def change_all(shell: int) -> None:
    """Do, from a directory that is open, everything that inotify reports."""
    write(shell, "edited", b"22")
    write(shell, "added", b"1")
    os.unlink("removed", dir_fd=shell)
    os.mkdir("new", dir_fd=shell)
    write(shell, "new/f", b"1")
    os.rmdir("gone", dir_fd=shell)
    os.rename("moved", "here", src_dir_fd=shell, dst_dir_fd=shell)
    os.rename("other", "moved", src_dir_fd=shell, dst_dir_fd=shell)
    os.chmod("mode", 0o600, dir_fd=shell)


async def test_what_is_written_below_a_closed_directory_is_seen_when_it_is_open_again(
    closed_home: MasterTree, refused_root: Path
) -> None:
    top, b = refused_root / "a", refused_root / "a" / "b"
    for name in ("gone", "moved", "other"):
        (b / name).mkdir(parents=True)
        (b / name / name).write_bytes(b"1")
    (b / "gone" / "gone").unlink()
    for name in ("edited", "removed", "mode"):
        (b / name).write_bytes(b"1")
    inside = [b / name for name in ("gone", "moved", "other")]
    await serve(closed_home, refused_root, top, b, *inside)
    closed_home.drain()
    shell = os.open(b, os.O_RDONLY | os.O_DIRECTORY)
    try:
        top.chmod(0)
        change_all(shell)
        for _ in range(3):
            closed_home.drain()  # other jobs begin
        top.chmod(0o755)
        closed_home.drain()
    finally:
        os.close(shell)
    for directory in (refused_root, top, b, b / "new", b / "moved", b / "here"):
        assert await agrees_with_the_disk(closed_home, directory), directory
    changed = await changed_since(closed_home, refused_root, 0)
    assert changed["a/b/moved/other"] is not None
    number = closed_home.number
    (b / "moved" / "later").write_bytes(b"1")
    assert closed_home.drain() == number + 1, "the directory that was moved is watched"
    assert closed_home._follower._failed.are_none, "and nothing is looked at for ever"


@pytest.mark.parametrize("errno", [EACCES, EPERM, EIO])
async def test_one_refusal_in_a_drain_loses_no_event(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, errno: int
) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "f").write_bytes(b"1")
    await serve(home, root, root / "a", root / "a" / "b")
    home.drain()
    real, refusals = tree_disk.Disk.open_directory, [failed(errno)]

    def open_directory(self: tree_disk.Disk, path: bytes, flags: int = os.O_RDONLY) -> int:
        if refusals and path.endswith(b"a/b"):
            raise refusals.pop()
        return real(self, path, flags)

    monkeypatch.setattr(tree_disk.Disk, "open_directory", open_directory)
    (root / "a" / "b" / "f").write_bytes(b"2")  # the same size, and often the same tick
    (root / "a" / "b" / "new").mkdir()
    if errno == EIO:
        with pytest.raises(Retryable):
            home.drain()
    else:
        home.drain()
    assert not refusals
    home.drain()
    assert await agrees_with_the_disk(home, root / "a" / "b")
    changed = await changed_since(home, root, 0)
    assert {"a/b/f", "a/b/new"} <= changed.keys()


async def test_a_closed_directory_that_is_gone_is_forgotten(closed_home: MasterTree, refused_root: Path) -> None:
    (refused_root / "a" / "b").mkdir(parents=True)
    await serve(closed_home, refused_root, refused_root / "a", refused_root / "a" / "b")
    shell = os.open(refused_root / "a" / "b", os.O_RDONLY | os.O_DIRECTORY)
    (refused_root / "a").chmod(0)
    write(shell, "f", b"1")
    closed_home.drain()
    os.unlink("f", dir_fd=shell)
    os.close(shell)
    (refused_root / "a").chmod(0o755)
    (refused_root / "a" / "b").rmdir()
    (refused_root / "a").rmdir()
    closed_home.drain()
    assert closed_home._follower._failed.are_none


@pytest.mark.parametrize("mode", [0o300, 0o600, 0o000])
async def test_our_own_directory_that_is_closed_during_a_build_is_not_taken_for_empty(
    closed_home: MasterTree, refused_root: Path, mode: int
) -> None:
    """Mirrors get a new lease, in which nobody serves the directory."""
    old, new = refused_root / "old", refused_root / "new"
    (old / "below").mkdir(parents=True)
    (old / "below" / "f").write_bytes(b"1")
    await serve(closed_home, refused_root, old, old / "below")
    closed_home.drain()
    turns = closed_home.notes.turns
    new.mkdir()
    (new / "f").write_bytes(b"1")
    new.chmod(mode)
    closed_home.drain()
    assert closed_home.notes.turns == turns + 1
    old.chmod(mode)
    closed_home._journal.append(closed_home._follower.check_directory(tree_path(old)))
    assert closed_home.notes.turns == turns + 2
    for directory in (old, new):
        with pytest.raises(Retryable) as error:
            await serve(closed_home, directory)
        assert error.value.reason is Reason.UNSEEN_PROGRAM
    closed_home.drain()
    assert closed_home.notes.turns == turns + 2, "once"
    for directory in (old, new):
        directory.chmod(0o755)
    closed_home.drain()
    for directory in (refused_root, old, old / "below", new):
        await serve(closed_home, directory)
        assert await agrees_with_the_disk(closed_home, directory), directory
