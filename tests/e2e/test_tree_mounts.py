"""Bringing home where other file systems are mounted, and where one is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]

# Runs in a mount namespace of its own: "build" is a small tmpfs inside the project.
PROGRAM = """
import errno, os, stat, sys, subprocess, time, trio
from pathlib import Path
from tests.edge.engine.tree.tree_jobs import Job, serve, staged_names, tree_path, agrees_with_the_disk
from termite.engine.errors import FsError
from termite.engine.model import Attr
from termite.engine.tree.master_tree import MasterTree, TreeConfig

async def main():
    root = Path(sys.argv[1])
    (root / "build").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", root / "build"], check=True)
    (root / "build" / "old").mkdir()
    (root / "build" / "old" / "f").write_bytes(b"1")
    home = MasterTree(TreeConfig(tree_path(root)))
    await serve(home, root, root / "build", root / "build" / "old")
    job = Job(home, root).mkdir("build/d").write("build/d/f", b"content", 0o750).delete("build/old")
    job.change("build/d/h", job.changes[-2].attr, link_to="build/d/f")
    job.change("build/d/l", Attr(stat.S_IFLNK | 0o777, 1, time.time_ns(), target=b"f"))
    await job.end()
    assert [n for n in staged_names(root) if ".area-" not in n] == []
    assert (root / "build/d/l").read_bytes() == (root / "build/d/h").read_bytes() == b"content"
    assert (root / "build/d/f").stat().st_mode & 0o777 == 0o750
    assert not (root / "build/old").exists()
    assert await agrees_with_the_disk(home, root / "build/d")
    try:
        await Job(home, root).write("build/d/f", b"x" * 300_000).end()
    except FsError as e:  # so that the command runs here instead
        assert e.errno == errno.ENOSPC, e
    else:
        raise AssertionError("it should not fit")
    assert (root / "build/d/f").read_bytes() == b"content"
    assert sorted(os.listdir(root / "build/d")) == ["f", "h", "l"]
    home.drain()
    assert await agrees_with_the_disk(home, root / "build/d")
    home.close()
    assert os.listdir(root) == ["build"]

trio.run(main)
"""


def can_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="no user namespaces here")
def test_a_file_system_mounted_below_the_writable_root_gets_its_results_whole_or_not_at_all(tmp_path: Path) -> None:
    subprocess.run(
        [*UNSHARE, sys.executable, "-c", PROGRAM, os.fspath(tmp_path)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)},
        check=True,
        timeout=60,
    )
