"""Test which paths of this machine exist but are not shown to jobs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.tree.tree_jobs import tree_path


@pytest.fixture
def base() -> Iterator[Path]:
    """Yield a directory that others may read. It lies where homes are: no job sees /tmp."""
    base = Path(tempfile.mkdtemp(prefix="termite-edge-", dir="/home" if os.geteuid() == 0 else Path.home()))
    base.chmod(0o755)
    if os.geteuid() != 0 and not all(parent.stat().st_mode & 0o005 == 0o005 for parent in base.parents):
        os.rmdir(base)
        pytest.skip("the home directory is private")
    yield base
    remove_tree(base)


def remove_tree(base: Path) -> None:
    for path in (base, *base.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(base)


@pytest.fixture
def tree(base: Path) -> Iterator[MasterTree]:
    (base / "project").mkdir()
    for name in ("shown", "excluded"):
        (base / name).mkdir(mode=0o700)
    config = TreeConfig(
        tree_path(base / "project"), exports=(tree_path(base / "shown"),), excludes=(tree_path(base / "excluded"),)
    )
    tree = MasterTree(config)
    yield tree
    tree.close()


def found(tree: MasterTree, path: Path) -> Path | None:
    private = tree.find_private(tree_path(path))
    return Path("/" + os.fsdecode(private)) if private else None


def test_a_private_directory_hides_all_below_it_whether_it_exists_or_not(tree: MasterTree, base: Path) -> None:
    (base / "d").mkdir(mode=0o700)
    (base / "d" / "x").touch()
    for name in ("d", "d/x", "d/nothing", "d/nothing/x"):
        assert found(tree, base / name) == base / "d"


def test_a_private_file_hides_itself(tree: MasterTree, base: Path) -> None:
    (base / "f").touch(mode=0o600)
    (base / "g").touch(mode=0o644)
    assert (found(tree, base / "f"), found(tree, base / "g")) == (base / "f", None)


def test_a_directory_that_can_be_searched_but_not_listed_hides_its_entries(tree: MasterTree, base: Path) -> None:
    (base / "d").mkdir(mode=0o711)
    (base / "d").chmod(0o711)
    (base / "d" / "x").touch()
    assert found(tree, base / "d" / "x") == base / "d"


@pytest.mark.parametrize("name", ["", "nothing", "nothing/x", "project", "project/x", "shown", "shown/x", "excluded/x"])
def test_what_is_shown_absent_or_excluded_is_not_private(tree: MasterTree, base: Path, name: str) -> None:
    for directory in ("project", "shown", "excluded"):
        (base / directory / "x").touch(mode=0o600)
    assert found(tree, base / name) is None


@pytest.mark.parametrize("path", ["/", "/tmp/x", "/proc/1/mem", "/dev/null", "/run", "/usr/bin/env"])
def test_neither_the_standard_directories_nor_the_system_is_private(tree: MasterTree, path: str) -> None:
    assert found(tree, Path(path)) is None


def test_a_path_that_is_none_is_not_private(tree: MasterTree) -> None:
    assert tree.find_private(b"a/../b") == tree.find_private(b"a" * 20_000) == b""
