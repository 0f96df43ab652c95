"""A worker asks for every directory that any user of the master's machine may list."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from termite.engine.errors import Reason, Retryable, Stale
from termite.engine.fleet.lease import Lease
from termite.engine.master.mirror_requests import MirrorRequests
from termite.engine.paths import tree_path
from termite.engine.tree.logic import outside_entries
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.wire.protocol.messages import Directory, GetDirectory, GetFile

MOST = 4000
MOST_FOR_WORKER = MOST // 2


class NamedLease:
    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.newest_seal = 0
        self.known_turns: int | None = None


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MasterTree]:
    monkeypatch.setattr(outside_entries, "MOST_FOR_ASKER", MOST_FOR_WORKER)
    monkeypatch.setattr(outside_entries, "MOST_OUTSIDE", MOST)
    made = MasterTree(TreeConfig(tree_path(tmp_path)))
    yield made
    made.close()


async def ask_for_all(requests: MirrorRequests, worker: str) -> bytes:
    """Ask for all directories of /usr, and return the first one that is refused."""
    for directory, _, _ in os.walk("/usr"):
        path = tree_path(Path(directory))
        try:
            await requests.answer(cast(Lease, NamedLease(worker)), GetDirectory(path), never)
        except Stale:
            continue  # it is private
        except Retryable as error:
            assert error.reason is Reason.TOO_MANY_LISTED
            return path
    raise AssertionError("all of /usr was listed")


async def never(chunk: bytes) -> None:
    raise AssertionError("no content is sent")


async def test_a_worker_makes_the_master_remember_only_so_many_directories(tree: MasterTree, tmp_path: Path) -> None:
    largest = 2 * max(len(files) + len(below) for _, below, files in os.walk("/usr"))  # with those above it
    requests = MirrorRequests(tree, {})
    hostile, honest = (cast(Lease, NamedLease(name)) for name in ("hostile", "honest"))
    refused = await ask_for_all(requests, "hostile")
    assert MOST_FOR_WORKER <= tree.outside_entries < MOST_FOR_WORKER + largest
    with pytest.raises(Retryable) as error:
        await requests.answer(hostile, GetFile(refused + b"/x", 1, 1), never)
    assert error.value.reason is Reason.TOO_MANY_LISTED

    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    in_tree = await requests.answer(hostile, GetDirectory(tree_path(tmp_path / "d")), never)
    assert isinstance(in_tree, Directory)
    assert b"f" in in_tree.children, "the tree itself is served as before"
    assert await requests.answer(hostile, GetDirectory(b"usr"), never), "so is what is known"
    if tree.outside_entries < MOST:
        assert await requests.answer(honest, GetDirectory(refused), never), "and another worker gets more"
    await ask_for_all(requests, "honest")
    await ask_for_all(requests, "hostile, too")
    assert tree.outside_entries < MOST + 2 * largest


async def test_a_directory_that_is_gone_makes_room(tree: MasterTree) -> None:
    requests = MirrorRequests(tree, {})
    await requests.answer(cast(Lease, NamedLease("w")), GetDirectory(b"var/tmp"), never)
    before = tree.outside_entries
    place = Path(tempfile.mkdtemp(prefix="termite-test-", dir="/var/tmp"))
    os.chmod(place, 0o755)
    try:
        (place / "f").touch()
        tree.drain()
        await requests.answer(cast(Lease, NamedLease("w")), GetDirectory(tree_path(place)), never)
        assert tree.outside_entries == before + 1
    finally:
        (place / "f").unlink()
        os.rmdir(place)
    tree.drain()
    assert tree.outside_entries == before


async def test_a_worker_may_ask_for_ever_for_directories_that_come_and_go(tree: MasterTree) -> None:
    worker = cast(Lease, NamedLease("w"))
    requests = MirrorRequests(tree, {})
    place = Path(tempfile.mkdtemp(prefix="termite-test-", dir="/var/tmp"))
    os.chmod(place, 0o755)
    try:
        for turn in range(3 * MOST_FOR_WORKER // 500):
            directory = place / str(turn)
            directory.mkdir()
            for name in range(500):
                (directory / str(name)).touch()
            tree.drain()
            await requests.answer(worker, GetDirectory(tree_path(directory)), never)
            shutil.rmtree(directory)
            tree.drain()
    finally:
        shutil.rmtree(place)
