"""A tree is built at no path which another user of the machine could give to another tree."""

import os
from pathlib import Path

import pytest

from termite.cli.moved_trees.moves import checked_path
from termite.engine.errors import UserError
from tests.hostile.attackers import NOBODY


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.mark.parametrize("below", ["p", "new/p"])
def test_a_directory_that_others_may_write_to_is_no_place_for_a_tree(tree: Path, below: str) -> None:
    parent = tree.parent / "build"
    parent.mkdir()
    at = str(parent / below)
    for mode in (0o755, 0o1777):
        parent.chmod(mode)
        assert checked_path(tree, at) == at
    parent.chmod(0o777)
    with pytest.raises(UserError, match=f"no tree can be built at {at}: others may write to {parent}"):
        checked_path(tree, at)


@pytest.mark.needs_root("makes a directory of another user")
@pytest.mark.parametrize("below", ["p", "new/p"])
def test_nor_is_one_of_another_user(tree: Path, below: str) -> None:
    parent = tree.parent / "build"
    parent.mkdir()
    os.chown(parent, NOBODY, NOBODY)
    with pytest.raises(UserError, match=f"{parent} belongs to user {NOBODY}"):
        checked_path(tree, str(parent / below))


def test_what_stands_at_the_path_may_be_anybodys(tree: Path) -> None:
    place = tree.parent / "place"
    place.mkdir()
    place.chmod(0o777)
    assert checked_path(tree, str(place)) == str(place)
