"""The stores of a worker are measured where nobody can lead the measuring elsewhere."""

import os
from pathlib import Path

import pytest
import trio

from termite.engine.model import StoreLimits
from termite.engine.store.cas import Cas
from termite.engine.worker.reports.store_sizes import StoreSizes, measure_stores

LIMITS = StoreLimits(1 << 30, 1000)
USERS = range(60800, 60864)


def store_with(root: Path, contents: int) -> Cas:
    root.mkdir(parents=True)
    store = Cas(root / "cas")
    for number in range(contents):
        store.put(b"%d" % number * 5000)
    return store


def test_a_store_is_measured_as_its_limits_count(tmp_path: Path) -> None:
    store = store_with(tmp_path / "cache", 7)
    blobs = [path for path in (tmp_path / "cache" / "cas").glob("??/*") if path.is_file()]
    (found,) = measure_stores(tmp_path / "cache", None, LIMITS)
    assert (found.name, found.files, found.max_bytes, found.max_files) == ("cas", 7, 1 << 30, 1000)
    assert found.size_bytes == sum(path.stat().st_blocks * 512 for path in blobs) > 0
    store.close()


def test_without_a_store_nothing_is_found(tmp_path: Path) -> None:
    assert measure_stores(tmp_path / "none", None, LIMITS) == ()


def test_each_user_of_a_root_worker_has_a_store_and_no_link_is_followed(tmp_path: Path) -> None:
    elsewhere = store_with(tmp_path / "elsewhere", 3)
    first = store_with(tmp_path / "cache" / "user-60800", 2)
    (tmp_path / "cache" / "user-60801").mkdir()
    (tmp_path / "cache" / "user-60801" / "cas").symlink_to(tmp_path / "elsewhere" / "cas")
    third = store_with(tmp_path / "cache" / "user-60802", 0)
    (tmp_path / "cache" / "user-60802" / "cas" / "ab").symlink_to(tmp_path / "elsewhere" / "cas")
    os.mkfifo(tmp_path / "cache" / "user-60802" / "cas" / "cd")
    found = measure_stores(tmp_path / "cache", USERS, LIMITS)
    assert [(one.name, one.files) for one in found] == [("user-60800", 2), ("user-60802", 0)]
    assert found[0].max_bytes == LIMITS.max_bytes // 2
    for store in (elsewhere, first, third):
        store.close()


async def test_sizes_are_measured_only_if_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path / "cache", 1)
    sizes = StoreSizes(tmp_path / "cache", None, LIMITS)
    monkeypatch.setattr("termite.engine.worker.reports.store_sizes.FIRST_WAIT_S", 0.0)
    assert await sizes.read() is None, "nobody measures yet"
    monkeypatch.setattr("termite.engine.worker.reports.store_sizes.FIRST_WAIT_S", 10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sizes.keep_measuring)
        first = await sizes.read()
        store.put(b"more")
        assert first is not None and first[0].files == 1
        assert await sizes.read() == first, "the next measurement comes after a pause"
        nursery.cancel_scope.cancel()
    store.close()
