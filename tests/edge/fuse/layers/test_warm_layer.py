"""The warm layer on a plain disk: a generation is complete, and its files are still true."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
import trio

from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.messages import Directory
from termite.fuse.layers import warm_layer as warm_module
from termite.fuse.layers.warm_generation import WarmGeneration, directories_above
from termite.fuse.layers.warm_layer import WarmLayer
from termite.fuse.view.view_tree import Tree
from termite.fuse.view.views import WHITEOUT

NS = 10**18 + 5
ROOT = Attr(stat.S_IFDIR | 0o755, 0, NS)
USR = Attr(stat.S_IFDIR | 0o750, 0, NS)
FILE = Attr(stat.S_IFREG | 0o751, 7, NS)
OTHER = Attr(stat.S_IFREG | 0o644, 0, NS)
LINK = Attr(stat.S_IFLNK | 0o777, 4, NS, target=b"file")


def tree_and_store(tmp_path: Path) -> tuple[Tree, Cas, Digest]:
    tree, cas = Tree(b"home", 0), Cas(tmp_path / "cas")
    for path, children in ((b"", {b"usr": USR}), (b"usr", {b"file": FILE, b"other": OTHER, b"link": LINK})):
        tree.asked(path)
        tree.answered(path, Directory(0, ROOT, children))
    return tree, cas, cas.put(b"content")


async def sealed(warm: WarmLayer) -> WarmGeneration:
    await warm.seal()
    generation = warm.enter()
    assert generation is not None
    return generation


async def test_a_generation_has_files_and_links_as_they_are_at_home(tmp_path: Path) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"usr/file", FILE, digest, again=False)
    warm.note(b"usr/other", OTHER, None, again=False)
    warm.note(b"usr/link", LINK, None, again=False)
    generation = await sealed(warm)
    top = tmp_path / generation.name
    assert (top / "usr/link").read_bytes() == b"content"
    assert os.readlink(top / "usr/link") == "file"
    assert (top / "usr/other").read_bytes() == b""
    for path, attr in ((top, ROOT), (top / "usr", USR), (top / "usr/file", FILE), (top / "usr/other", OTHER)):
        assert (path.stat().st_mode, path.stat().st_mtime_ns) == (attr.mode, attr.mtime_ns)


async def test_a_live_file_is_taken_when_it_is_opened_again_and_covered_when_it_moves(tmp_path: Path) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    live = Attr(stat.S_IFREG | 0o644, 7, NS)
    tree.take_in([Changeset(1, (Change(b"home", USR), Change(b"home/f", live)))])
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"home/f", live, digest, again=False)
    warm.note(b"usr/other", OTHER, None, again=False)
    assert b"home/f" not in (await sealed(warm)).files
    warm.note(b"home/f", live, digest, again=True)
    generation = await sealed(warm)
    assert (tmp_path / generation.name / "home/f").read_bytes() == b"content"
    tree.take_in([Changeset(2, (Change(b"home/f", None),))])
    assert tree.attr_at(tree.open_view(), b"home/f") is None
    assert tree.moves.loose[b"home"][b"f"] is WHITEOUT


async def test_what_is_live_or_has_changed_since_is_left_out(tmp_path: Path) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"home/f", FILE, digest, again=False)
    warm.note(b"usr/file", Attr(stat.S_IFREG | 0o751, 7, NS - 1), digest, again=False)
    warm.note(b"usr/other", OTHER, None, again=False)
    generation = await sealed(warm)
    assert list(generation.files) == [b"usr/other"]


async def test_after_a_settled_change_it_is_covered_and_left_out_of_the_next_one(tmp_path: Path) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"usr/file", FILE, digest, again=False)
    warm.note(b"usr/link", LINK, None, again=False)
    first = await sealed(warm)
    tree.take_in([Changeset(1, (Change(b"usr/link", None),))])
    assert warm.enter() is first
    view = tree.open_view()
    assert tree.attr_at(view, b"usr/link") is None
    assert tree.attr_at(view, b"usr/file") is FILE
    assert tree.moves.loose[b"usr"][b"link"] is WHITEOUT
    second = await sealed(warm)
    assert second is not first
    assert list(second.files) == [b"usr/file"]
    assert (tmp_path / second.name / "usr/file").read_bytes() == b"content"
    assert (tmp_path / second.name / "usr/file").stat().st_nlink == 1
    assert (tmp_path / first.name / "usr/link").exists(), "a job still uses it"


async def test_a_generation_goes_when_its_last_job_is_gone_and_a_newer_one_is_there(tmp_path: Path) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"usr/link", LINK, None, again=False)
    first = await sealed(warm)
    warm.leave(first)
    warm.note(b"usr/file", FILE, digest, again=False)
    second = await sealed(warm)
    assert not (tmp_path / first.name).exists()
    assert sorted(second.files) == [b"usr/file", b"usr/link"]


async def test_a_content_that_was_evicted_is_left_to_the_mirror(tmp_path: Path) -> None:
    tree, cas, _ = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"usr/file", FILE, Digest(hashlib.sha256(b"evicted").digest(), 7), again=False)
    warm.note(b"usr/link", LINK, None, again=False)
    assert list((await sealed(warm)).files) == [b"usr/link"]


async def until_it_has(warm: WarmLayer, files: int) -> None:
    with trio.fail_after(10):
        while warm.statistics()["warm_files"] != files:  # noqa: ASYNC110  # no event says so
            await trio.sleep(0.01)


async def test_generations_come_by_themselves_when_their_lack_has_cost_as_much(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    monkeypatch.setattr(warm_module, "SEAL_S", 0.01)
    nursery.start_soon(warm.keep_sealing)
    monkeypatch.setattr(warm_module, "MISS_COST_S", 1e-9)
    warm.note(b"usr/file", FILE, digest, again=False)
    await until_it_has(warm, 1)
    warm.note(b"usr/link", LINK, None, again=False)
    await trio.sleep(0.2)
    assert warm.statistics()["warm_files"] == 1
    monkeypatch.setattr(warm_module, "MISS_COST_S", 10.0)
    warm.note(b"usr/link", LINK, None, again=True)
    await until_it_has(warm, 2)


def test_a_file_that_moves_counts_once(tmp_path: Path) -> None:
    tree, cas, digest = tree_and_store(tmp_path)
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    for size in (7, 9, 5):
        warm.note(b"usr/file", Attr(stat.S_IFREG | 0o644, size, NS), digest, again=True)
    assert warm.statistics()["warm_wanted_bytes"] == 5


def test_ancestors_come_parents_first_and_once() -> None:
    found = directories_above({b"a/b/c/f": 0, b"a/b/g": 0, b"h": 0}, lambda path: ROOT)
    assert [path for path, _ in found] == [b"", b"a", b"a/b", b"a/b/c"]


async def test_a_setuid_file_is_left_to_the_mirror(tmp_path: Path) -> None:
    setuid = Attr(stat.S_IFREG | 0o4755, 7, NS)
    tree, cas, digest = tree_and_store(tmp_path)
    tree.take_in([Changeset(1, (Change(b"usr/file", setuid),))])
    warm = WarmLayer(tree, cas, tmp_path, tree.is_here)
    warm.note(b"usr/file", setuid, digest, again=False)
    warm.note(b"usr/other", OTHER, None, again=False)
    assert list((await sealed(warm)).files) == [b"usr/other"]
