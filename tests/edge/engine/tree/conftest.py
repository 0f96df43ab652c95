"""Give each test of the tree a writable root, and a MasterTree that must clean up after itself."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.tree.tree_jobs import tree_path

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "proj"
    root.mkdir()
    return root


@pytest.fixture
def refused_root() -> Iterator[Path]:
    """Yield a writable root of a user whom directories may refuse, which they never do to root.

    If root runs the test, the process has another user's rights until the test has ended.
    """
    base = Path(tempfile.mkdtemp(prefix="termite-edge-", dir="/var/tmp"))
    base.chmod(0o755)
    root = base / "proj"
    root.mkdir()
    is_root = os.geteuid() == 0
    groups = os.getgroups()
    if is_root:
        os.chown(root, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, 0)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield root
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(groups)
        for path, directories, _ in os.walk(base):  # a closed one is opened before it is entered
            for name in directories:
                if not os.path.islink(f"{path}/{name}"):
                    os.chmod(f"{path}/{name}", 0o755)
        shutil.rmtree(base)


@pytest.fixture
def home(root: Path) -> Iterator[MasterTree]:
    tree = MasterTree(TreeConfig(tree_path(root)))
    yield tree
    tree.close()
    assert not (root / ".termite-staging").exists()
