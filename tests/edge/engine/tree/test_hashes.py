"""Test the digests by stamp: in memory up to a limit, the rest on disk."""

import time
from pathlib import Path

import pytest

from termite.engine.model import Digest
from termite.engine.tree import hashes
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.logic.attrs import Stamp


def stamp(inode: int) -> Stamp:
    return Stamp(1, inode, 5, 6, 7)


def digest(inode: int) -> Digest:
    return Digest(inode.to_bytes(32, "big"), 5)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hashes:
    monkeypatch.setattr(hashes, "KNOWN_LIMIT", 10)
    monkeypatch.setattr(hashes, "TICK_NS", 0)
    made = Hashes(tmp_path / "hashes")
    for inode in range(50):
        made.remember(stamp(inode), digest(inode))
        if inode % 5 == 4:
            made.flush()
    return made


def test_memory_is_bounded_and_what_is_on_disk_is_found(known: Hashes) -> None:
    assert len(known._known) <= 10
    assert [known.find(stamp(inode)) for inode in range(50)] == [digest(inode) for inode in range(50)]
    known.close()


@pytest.mark.logs("hash-cache-unusable")
def test_memory_is_bounded_without_a_store_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "UNSTORED_LIMIT", 10)
    (tmp_path / "file").touch()
    for made in (Hashes(None), Hashes(tmp_path / "file" / "hashes")):
        for inode in range(50):
            made.remember(stamp(inode), digest(inode))
            made.flush()
        assert len(made) == 10
        assert made.find(stamp(49)) == digest(49)
        assert not made.is_flush_due


def test_a_store_that_is_too_large_loses_what_was_not_used_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "TICK_NS", 0)
    made = Hashes(tmp_path / "hashes")
    for days in (50, 0):
        made._today = time.time_ns() // hashes.DAY_NS - days
        for inode in range(1000 * days, 1000 * days + 2000):
            made.remember(stamp(inode), digest(inode))
        made.flush()
    made.close()
    monkeypatch.setattr(hashes, "MAX_STORE_BYTES", 300_000)
    again = Hashes(tmp_path / "hashes")
    assert again.find(stamp(50_001)) is None
    assert again.find(stamp(1)) == digest(1)
    again.close()


def test_what_is_forgotten_is_forgotten_on_disk_too(known: Hashes) -> None:
    known.forget(stamp(3))
    assert known.find(stamp(3)) is None
    known.close()


def test_a_file_of_the_far_future_is_known_in_memory_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "TICK_NS", 0)
    future, present = Stamp(1, 1, 5, 2**63, 7), stamp(2)
    made = Hashes(tmp_path / "hashes")
    made.remember(future, digest(1))
    made.remember(present, digest(2))
    made.flush()
    assert (made.find(future), made.find(present)) == (digest(1), digest(2))
    made.close()
    again = Hashes(tmp_path / "hashes")
    assert (again.find(future), again.find(present)) == (None, digest(2))
    again.close()
