"""Collecting a result: changes, contents in the store and contents inside the answer.

The upper layer is a plain directory with new files, without an overlay.
"""

import os
from pathlib import Path

import pytest

from termite.engine.model import Attr
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.messages import INLINE_BYTES, INLINE_TOTAL_BYTES
from termite.fuse.harvest.collect import collect, find_left_in_memory
from termite.fuse.view.comparison import Homes

ROOT = b"p"


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    (tmp_path / "upper" / "p").mkdir(parents=True)
    return tmp_path / "upper"


@pytest.fixture
def cas(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "cas")


def nothing_was_there(path: bytes) -> Attr | None:
    return None if path != ROOT else Attr(0o40755, 0, 0)


async def test_an_empty_upper_layer_is_no_change(upper: Path, cas: Cas) -> None:
    os.rmdir(upper / "p")
    harvested = await collect(upper, Homes(ROOT), nothing_was_there, cas)
    assert (harvested.changes, harvested.inline, harvested.dropped) == ((), {}, ())


async def test_small_contents_are_inside_the_answer_and_all_are_in_the_store(upper: Path, cas: Cas) -> None:
    contents = {b"p/empty": b"", b"p/large": b"l" * (INLINE_BYTES + 1), b"p/small": b"s" * INLINE_BYTES}
    for path, content in contents.items():
        (upper / os.fsdecode(path)).write_bytes(content)
    harvested = await collect(upper, Homes(ROOT), nothing_was_there, cas)
    assert [change.path for change in harvested.changes] == sorted(contents)
    for change in harvested.changes:
        assert change.attr is not None and change.attr.digest is not None
        blob = cas.path(change.attr.digest)
        assert blob is not None and blob.read_bytes() == contents[change.path]
        expected = None if change.path == b"p/large" else contents[change.path]
        assert harvested.inline.get(change.attr.digest.sha256) == expected


async def test_what_is_inside_the_answer_has_a_limit(upper: Path, cas: Cas) -> None:
    for number in range(40):
        (upper / "p" / str(number)).write_bytes(b"%2d" % number * (INLINE_BYTES // 2))
    harvested = await collect(upper, Homes(ROOT), nothing_was_there, cas)
    assert len(harvested.changes) == 40
    assert sum(map(len, harvested.inline.values())) == INLINE_TOTAL_BYTES


async def test_a_content_that_is_not_new_is_not_sent(upper: Path, cas: Cas) -> None:
    (upper / "p" / "x").write_bytes(b"same")
    digest = cas.put(b"same")

    def lower(path: bytes) -> Attr | None:
        return Attr(0o100644, 4, 1, digest) if path == b"p/x" else nothing_was_there(path)

    harvested = await collect(upper, Homes(ROOT), lower, cas)
    assert [change.content for change in harvested.changes] == [False]
    assert harvested.inline == {}


async def test_hard_links_are_stored_once(upper: Path, cas: Cas) -> None:
    (upper / "p" / "a").write_bytes(b"content")
    os.link(upper / "p" / "a", upper / "p" / "b")
    harvested = await collect(upper, Homes(ROOT), nothing_was_there, cas)
    assert [(change.path, change.link_to) for change in harvested.changes] == [(b"p/a", None), (b"p/b", b"p/a")]
    assert cas.statistics()["added"] == 1


async def test_a_missing_fact_is_asked_for_before_anything_is_moved(upper: Path, cas: Cas) -> None:
    class Need(Exception):
        pass

    (upper / "p" / "x").write_bytes(b"x" * (INLINE_BYTES + 1))

    def knows_nothing_yet(path: bytes) -> Attr | None:
        raise Need(path)

    with pytest.raises(Need):
        await collect(upper, Homes(ROOT), knows_nothing_yet, cas)
    harvested = await collect(upper, Homes(ROOT), nothing_was_there, cas)
    assert [change.path for change in harvested.changes] == [b"p/x"]


async def test_what_lies_in_the_temporary_directories_is_not_even_read(upper: Path, cas: Cas) -> None:
    (upper / "tmp" / "d").mkdir(parents=True)
    (upper / "tmp" / "d" / "x").write_bytes(b"x")
    asked: list[bytes] = []

    def lower(path: bytes) -> Attr | None:
        asked.append(path)
        return Attr(0o40755, 0, 0)

    await collect(upper, Homes(ROOT), lower, cas)
    assert asked == [b"p", b"tmp"]


def test_what_a_job_leaves_in_shared_memory_is_named(tmp_path: Path) -> None:
    (tmp_path / "shm").mkdir()
    assert find_left_in_memory(tmp_path / "upper") == []
    (tmp_path / "shm" / "x\udcff").touch()
    (tmp_path / "shm" / "d").mkdir()
    assert sorted(find_left_in_memory(tmp_path / "upper")) == [b"dev/shm/d", b"dev/shm/x\xff"]
