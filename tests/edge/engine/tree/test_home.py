"""Test how MasterTree serves directories and the contents of files."""

# ruff: noqa: ASYNC230, ASYNC240  (a test may wait for its own disk)

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import trio

from termite.engine.errors import FsError, RemoteProtocolError, Stale
from termite.engine.model import Change, Digest
from termite.engine.paths import PATH_BYTES
from termite.engine.tree import master_tree
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing.staging import Staging
from tests.edge.engine.tree.tree_jobs import Job, changed_since, digest_of, serve, tree_path

NS = 10**9


async def test_a_directory_is_answered_whole(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"abc")
    os.symlink("f", root / "l")
    os.link(root / "f", root / "g")
    number, own, children = await home.directory(tree_path(root))
    assert number == 0
    assert own.mode == root.stat().st_mode
    assert set(children) == {b"f", b"g", b"l"}
    assert children[b"l"].target == b"f"
    assert children[b"f"].link_id == children[b"g"].link_id != 0


@pytest.mark.parametrize("name", ["nothing", "f", "f/x"])
async def test_no_directory_is_none_that_anybody_was_shown(home: MasterTree, root: Path, name: str) -> None:
    (root / "f").write_bytes(b"abc")
    with pytest.raises(Stale):
        await home.directory(tree_path(root / name))


async def test_two_jobs_may_remove_directories_at_once(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with a second name in one of them loses it when that directory is emptied."""
    for name in ("a", "b"):
        (root / name).mkdir()
        (root / f"f{name}").write_bytes(b"1")
        os.link(root / f"f{name}", root / name / "g")
    await serve(home, root, root / "a", root / "b")
    empty, has_begun, may_end = master_tree._empty, threading.Event(), threading.Event()

    def empty_slowly(staging: Staging, trash: list[bytes]) -> None:
        if not has_begun.is_set():
            has_begun.set()
            may_end.wait(10)
        empty(staging, trash)

    monkeypatch.setattr(master_tree, "_empty", empty_slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Job(home, root).delete("a").end)
        await trio.to_thread.run_sync(has_begun.wait, 10)
        await Job(home, root).delete("b").end()
        may_end.set()
    _, _, children = await home.directory(tree_path(root))
    assert {name: attr.nlink for name, attr in children.items() if name.startswith(b"f")} == {b"fa": 1, b"fb": 1}


@pytest.mark.parametrize("by_a_job", [True, False])
async def test_a_file_whose_other_name_goes_with_its_directory_has_one_name_less(
    home: MasterTree, root: Path, by_a_job: bool
) -> None:
    (root / "d").mkdir()
    (root / "f").write_bytes(b"1")
    os.link(root / "f", root / "d" / "g")
    await serve(home, root)
    await serve(home, root, root / "d")
    number = home.number
    if by_a_job:
        await Job(home, root).delete("d").end()
    else:
        shutil.rmtree(root / "d")
        home.drain()
    attr = (await changed_since(home, root, number))["f"]
    assert attr is not None
    assert (attr.nlink, attr.link_id) == (1, 0)


async def test_a_symlink_leads_nowhere_but_at_the_worker(home: MasterTree, root: Path) -> None:
    os.symlink("/root", root / "l")
    for path, error in ((b"/l", Stale), (b"/l/x", Stale), (b"/../proj/x", FsError), (b"//x", FsError)):
        with pytest.raises(error):
            await home.directory(tree_path(root) + path)


async def test_a_directory_swapped_for_a_symlink_shows_nothing_of_where_it_leads(home: MasterTree, root: Path) -> None:
    (root / "d" / "etc").mkdir(parents=True)
    await serve(home, root, root / "d")
    os.rename(root / "d", root / "old")
    os.symlink("/", root / "d")
    with pytest.raises(Stale):
        await home.directory(tree_path(root / "d" / "etc"))


async def test_a_file_is_opened_and_hashed_once(home: MasterTree, root: Path) -> None:
    content = os.urandom(200_000)
    (root / "f").write_bytes(content)
    _, _, children = await home.directory(tree_path(root))
    for _ in range(2):
        fd, digest = await home.open_file(tree_path(root / "f"), len(content), children[b"f"].mtime_ns)
        with open(fd, "rb") as f:
            assert f.read() == content
        assert digest == digest_of(content)
    assert home.statistics()["hashed"] == 1
    _, _, children = await home.directory(tree_path(root))
    assert children[b"f"].digest == digest


async def test_a_file_that_many_ask_for_at_once_is_hashed_once(home: MasterTree, root: Path) -> None:
    content = b"x" * 1_000_000
    (root / "f").write_bytes(content)
    mtime_ns = (root / "f").stat().st_mtime_ns
    digests: list[Digest] = []

    async def ask() -> None:
        fd, digest = await home.open_file(tree_path(root / "f"), 1_000_000, mtime_ns)
        os.close(fd)
        digests.append(digest)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert digests == [digest_of(content)] * 5
    assert home.statistics()["hashed"] == 1


async def test_a_cancelled_job_brings_nothing_home(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    job = Job(home, root).write("f", b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await job.end()
    assert not (root / "f").exists()
    assert home.number == 0


async def test_a_version_that_is_gone_is_stale_and_the_journal_says_what_is_there(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"old")
    _, _, children = await home.directory(tree_path(root))
    (root / "f").write_bytes(b"newer")
    with pytest.raises(Stale):
        await home.open_file(tree_path(root / "f"), 3, children[b"f"].mtime_ns)
    attr = (await changed_since(home, root, 0))["f"]
    assert attr is not None
    assert attr.size == 5
    (root / "f").unlink()
    with pytest.raises(Stale):
        await home.open_file(tree_path(root / "f"), 5, attr.mtime_ns)
    assert (await changed_since(home, root, 0))["f"] is None


async def test_another_name_for_a_file_does_not_make_it_stale(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"abc")
    _, _, children = await home.directory(tree_path(root))
    os.link(root / "f", root / "g")
    fd, digest = await home.open_file(tree_path(root / "f"), 3, children[b"f"].mtime_ns)
    os.close(fd)
    assert digest == digest_of(b"abc")


async def test_a_hidden_file_cannot_be_opened(root: Path) -> None:
    (root / "secret").write_bytes(b"s")
    home = MasterTree(TreeConfig(tree_path(root), hidden=(tree_path(root / "secret"),)))
    with pytest.raises(Stale):
        await home.open_file(tree_path(root / "secret"), 1, (root / "secret").stat().st_mtime_ns)
    with pytest.raises(Stale):
        await home.open_file(b"etc/shadow", 1, 1)
    home.close()


async def test_a_second_master_hashes_nothing_again(root: Path, tmp_path: Path) -> None:
    (root / "f").write_bytes(b"abc")
    os.utime(root / "f", ns=(NS, NS))
    config = TreeConfig(tree_path(root), hash_cache=tmp_path / "cache" / "hashes")
    for hashed in (1, 0):
        home = MasterTree(config)
        _, _, children = await home.directory(tree_path(root))
        fd, digest = await home.open_file(tree_path(root / "f"), 3, NS)
        os.close(fd)
        assert digest == digest_of(b"abc")
        assert home.statistics()["hashed"] == hashed
        home.close()
    assert children[b"f"].digest == digest


@pytest.mark.logs("hash-cache-unusable")
async def test_a_hash_cache_that_is_rubbish_is_done_without(root: Path, tmp_path: Path) -> None:
    (tmp_path / "hashes").write_bytes(b"rubbish" * 1000)
    (root / "f").write_bytes(b"abc")
    home = MasterTree(TreeConfig(tree_path(root), hash_cache=tmp_path / "hashes"))
    _, _, children = await home.directory(tree_path(root))
    assert children[b"f"].size == 3
    home.close()


async def test_one_endless_path_of_a_worker_costs_the_master_a_moment(home: MasterTree, root: Path) -> None:
    path = tree_path(root) + b"/a" * 200_000
    for ask in (
        lambda: home.publish([Change(path, None)], {}, Timing(0, 0, 0, 0, 0)),
        lambda: home.directory(path),
        lambda: home.open_file(path, 1, 1),
    ):
        started_s = time.process_time()
        with pytest.raises((FsError, RemoteProtocolError)):
            await ask()
        assert time.process_time() - started_s < 0.5  # minutes, where each step of it splits the path


async def test_a_tree_deeper_than_the_wire_takes_is_followed_as_far_as_that(home: MasterTree, root: Path) -> None:
    """Configure scripts make such trees. Nothing beyond the limit is sent, and nothing fails."""
    await home.directory(tree_path(root))
    fds = [os.open(root, os.O_RDONLY)]
    for _ in range(2 * PATH_BYTES // 201):
        os.mkdir("d" * 200, dir_fd=fds[0])
        fds.insert(0, os.open("d" * 200, os.O_RDONLY, dir_fd=fds[0]))
        os.close(fds.pop())
    os.close(fds.pop())
    number = home.drain()
    longest = max(len(change.path) for sets in home.changesets_since(0) for change in sets.changes)
    assert number > 0
    assert PATH_BYTES - 2048 < longest <= PATH_BYTES
    shutil.rmtree(root / ("d" * 200))
    home.drain()
    _, _, children = await home.directory(tree_path(root))
    assert not children


def test_the_path_of_a_worker_leads_to_no_look_outside_the_places_of_results(
    home: MasterTree, root: Path, tmp_path: Path
) -> None:
    """A result may name a path below an automounter, or below a symlink of an earlier result."""
    elsewhere = tmp_path / "elsewhere"
    for directory in (root / "bare", elsewhere):
        directory.mkdir()
        (directory / "HEAD").write_text("ref: refs/heads/main\n")
    os.symlink(elsewhere, root / "a")
    assert home.may_have(tree_path(root / "bare/HEAD"))
    assert not home.may_have(tree_path(root / "bare/config"))
    assert not home.may_have(tree_path(root / "a/HEAD"))
    assert not home.may_have(b"etc/passwd")
