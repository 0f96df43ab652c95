"""Test that a watch follows the directory that has a name now, not the one that had it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.tree import watch as watch_module
from termite.engine.tree.logic.attrs import Events
from termite.engine.tree.watch import Watches


@pytest.fixture
def watches() -> Iterator[Watches]:
    watches = Watches(lambda path: path != b"settled")
    yield watches
    watches.close()


def watch(watches: Watches, name: bytes, directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        watches.watch(name, fd)
    finally:
        os.close(fd)


def read(watches: Watches) -> Events:
    events = Events()
    watches.read_into(events)
    return events


def test_a_name_that_another_directory_has_taken_is_watched_there(tmp_path: Path, watches: Watches) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    watch(watches, b"d", old)
    watch(watches, b"d", new)
    old.rmdir()
    assert not read(watches)
    assert watches.is_watched(b"d")
    (new / "file").touch()
    assert set(read(watches).names[b"d"]) == {b"file"}
    (new / "file").unlink()
    new.rmdir()
    assert read(watches).replaced == {b"d"}
    assert not watches.is_watched(b"d")


def test_a_directory_with_two_names_is_watched_by_the_last_and_listed_by_the_other(
    tmp_path: Path, watches: Watches
) -> None:
    watch(watches, b"one", tmp_path)
    watch(watches, b"two", tmp_path)
    assert (watches.is_watched(b"one"), watches.is_watched(b"two")) == (False, True)
    assert watches.unwatched == {b"one"}


def test_what_is_looked_at_less_often_takes_no_watch_from_what_is_not_and_is_never_listed_instead(
    tmp_path: Path, watches: Watches
) -> None:
    watch(watches, b"settled", tmp_path)
    assert watches.is_watched(b"settled")
    watch(watches, b"live", tmp_path)
    watch(watches, b"settled", tmp_path)
    assert (watches.is_watched(b"settled"), watches.is_watched(b"live")) == (False, True)
    watches.list_always(b"settled")
    assert not watches.unwatched


def test_a_name_that_moves_to_a_directory_with_another_name_leaves_nothing_behind(
    tmp_path: Path, watches: Watches
) -> None:
    old, shared = tmp_path / "old", tmp_path / "shared"
    old.mkdir()
    shared.mkdir()
    watch(watches, b"a", old)
    watch(watches, b"b", shared)
    watch(watches, b"a", shared)
    old.rmdir()
    shared.rmdir()
    assert read(watches).replaced == {b"a"}
    assert len(watches) == 0


@pytest.mark.logs("watch-limit-reached")
def test_directories_outside_of_the_tree_leave_half_of_the_watches_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_most_watches", lambda: 4)
    watches = Watches(lambda path: path.startswith(b"tree"))
    try:
        for name in (b"usr1", b"usr2", b"usr3", b"tree1", b"tree2"):
            (tmp_path / os.fsdecode(name)).mkdir()
            watch(watches, name, tmp_path / os.fsdecode(name))
        assert [name for name in (b"usr1", b"usr2", b"usr3") if watches.is_watched(name)] == [b"usr1", b"usr2"]
        assert watches.is_watched(b"tree1") and watches.is_watched(b"tree2")
        assert watches.is_limited
        assert not watches.unwatched
    finally:
        watches.close()
