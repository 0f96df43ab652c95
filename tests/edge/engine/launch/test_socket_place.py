"""A master notices that nobody can find it any more."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from termite.engine.launch.launcher_socket import bound_socket
from termite.engine.launch.socket_place import SocketPlace, Whereabouts


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    tree = tmp_path / "above" / "tree"
    tree.mkdir(parents=True)
    with bound_socket(tree / "socket"):
        yield tree


async def look_after(place: SocketPlace, change: Callable[[], object]) -> Whereabouts:
    """Make a change that must cause an event, and return what is seen then."""
    assert place.look() is Whereabouts.IN_PLACE
    change()
    with trio.fail_after(5):
        await place.wait_for_event()
    return place.look()


@pytest.mark.parametrize("moved", ["above/tree", "above"])
async def test_a_moved_tree_is_gone_whatever_has_its_path_now(tree: Path, tmp_path: Path, moved: str) -> None:
    top, other = tmp_path / moved, tmp_path / "moved"
    with SocketPlace(tree / "socket") as place:
        assert await look_after(place, lambda: top.rename(other)) is Whereabouts.TREE_GONE
        shutil.copytree(other, top, ignore=shutil.ignore_patterns("socket"))
        assert place.look() is Whereabouts.TREE_GONE
        shutil.rmtree(top)
        top.symlink_to(other)
        assert place.look() is Whereabouts.TREE_GONE, "results are not written through a symlink"
        top.unlink()
        other.rename(top)
        assert place.look() is Whereabouts.IN_PLACE


async def test_a_removed_socket_and_a_removed_tree_are_noticed(tree: Path) -> None:
    with SocketPlace(tree / "socket") as place:
        assert await look_after(place, (tree / "socket").unlink) is Whereabouts.SOCKET_GONE
        with bound_socket(tree / "socket"):
            assert place.look() is Whereabouts.SOCKET_GONE, "it is that of another master"
        shutil.rmtree(tree)
        assert place.look() is Whereabouts.TREE_GONE


@pytest.mark.attack
def test_a_socket_has_its_mode_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to the directory can put a symlink in its place as soon as it is bound."""
    victim, chmod = tmp_path / "victim", os.chmod
    victim.touch(0o644)

    def after_the_exchange(path: str, mode: int) -> None:
        os.unlink(path)
        os.symlink(victim, path)
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", after_the_exchange)
    old = os.umask(0)
    try:
        with bound_socket(tmp_path / "socket"):
            assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o700
        assert os.umask(0) == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


async def test_a_look_that_fails_says_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> os.stat_result:
        raise OSError(5, "the disk does not answer")

    with SocketPlace(tree / "socket") as place:
        monkeypatch.setattr(os, "stat", fail)
        assert place.look() is Whereabouts.IN_PLACE
