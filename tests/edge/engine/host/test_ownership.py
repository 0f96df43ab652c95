"""Another user who could exchange a directory of ours is found, wherever on the path he is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.host.ownership import find_stranger, require_own

needs_root = pytest.mark.needs_root("gives a directory to another user")
STRANGER = 61234


def test_directories_of_root_and_of_this_user_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert find_stranger(tmp_path / "a" / "not yet" / "there") == ""
    assert find_stranger(Path("/var/tmp")) == ""


@pytest.mark.attack
@pytest.mark.parametrize(("mode", "is_fine"), [(0o777, False), (0o1777, True), (0o775, True), (0o757, False)])
def test_a_directory_that_others_may_write_must_be_sticky(tmp_path: Path, mode: int, is_fine: bool) -> None:
    (tmp_path / "open" / "ours").mkdir(parents=True)
    (tmp_path / "open").chmod(mode)
    assert (find_stranger(tmp_path / "open" / "ours") == "") is is_fine


@pytest.mark.attack
@needs_root
def test_the_group_of_others_may_not_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    os.chown(tmp_path, 0, STRANGER)
    assert "others may write" in find_stranger(tmp_path / "cache")


def _owned_above(base: Path) -> Path:
    (base / "his" / "ours").mkdir(parents=True)
    os.chown(base / "his", STRANGER, -1)
    return base / "his" / "ours"


def _owned_itself(base: Path) -> Path:
    (base / "his").mkdir()
    os.chown(base / "his", STRANGER, -1)
    return base / "his"


def _link_of_his(base: Path) -> Path:
    (base / "ours").mkdir()
    (base / "link").symlink_to("ours")
    os.chown(base / "link", STRANGER, -1, follow_symlinks=False)
    return base / "link"


def _link_to_his(base: Path) -> Path:
    (base / "link").symlink_to(_owned_above(base))
    return base / "link" / "below"


def _sticky_of_his(base: Path) -> Path:
    ours = _owned_above(base)
    ours.parent.chmod(0o1777)
    return ours


@pytest.mark.attack
@needs_root
@pytest.mark.parametrize("make", [_owned_above, _owned_itself, _link_of_his, _link_to_his, _sticky_of_his])
def test_a_part_of_another_user_is_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    with pytest.raises(UserError, match=f"belongs to user {STRANGER}.*see -cachedir"):
        require_own(path, "see -cachedir")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert find_stranger(tmp_path / "a") == ""
