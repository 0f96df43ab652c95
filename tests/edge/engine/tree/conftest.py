"""Give each test of the tree a writable root, and a MasterTree that must clean up after itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.tree.tree_jobs import tree_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "proj"
    root.mkdir()
    return root


@pytest.fixture
def home(root: Path) -> Iterator[MasterTree]:
    tree = MasterTree(TreeConfig(tree_path(root)))
    yield tree
    tree.close()
    assert not (root / ".termite-staging").exists()
