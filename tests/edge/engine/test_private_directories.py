"""Directories of one process: they go with it, however it ends, and no other process takes them."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from termite.engine.private_directories import locked_directory, private_directory, remove_leftovers


def leave_one(parent: Path) -> Path:
    """Let a process make a directory with a file in it, and kill the process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with private_directory(parent) as path:
            (path / "deep").mkdir()
            (path / "deep" / "file").touch()
            os.write(writer, os.fsencode(path))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as file:
        return Path(os.fsdecode(file.read()))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    with private_directory(tmp_path) as living:
        left = leave_one(tmp_path)
        assert left.exists()
        with private_directory(tmp_path) as mine:
            assert sorted(tmp_path.iterdir()) == sorted((living, mine))
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    removed: list[str] = []

    def remove_and_lock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        removed.extend(os.listdir(tmp_path))
        remove_leftovers(tmp_path, "")
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    path, held = locked_directory(tmp_path, "", 0o700)
    assert removed
    assert path.name not in removed
    assert os.listdir(tmp_path) == [path.name]
    remove_leftovers(tmp_path, "")
    assert path.exists()
    os.close(held)


def test_without_locks_a_directory_is_made_and_nothing_is_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with private_directory(tmp_path) as living, private_directory(tmp_path) as other:
        assert sorted(tmp_path.iterdir()) == sorted((living, other))


def test_only_directories_of_the_same_user_and_with_the_prefix_are_removed(tmp_path: Path) -> None:
    for name in ("ours-1", "ours-2", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours-link").symlink_to(tmp_path / "theirs")
    if os.geteuid() == 0:
        os.chown(tmp_path / "ours-2", 60800, 60800)
    remove_leftovers(tmp_path, "ours-")
    stay = {"ours-2"} if os.geteuid() == 0 else set()
    assert set(os.listdir(tmp_path)) == {"theirs", "ours-link"} | stay
