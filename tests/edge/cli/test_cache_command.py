"""termite-ctl cache finds the stores of a user and of a root worker, and empties unused ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from termite.cli.places import records_directory
from termite.cli.subcommands.machines import cache
from termite.engine.errors import UserError
from termite.engine.history.logic.job_record import BuildCounts
from termite.engine.private_directories import locked_directory
from tests.edge.engine.recall.test_result_store import add, opened, weak
from tests.synthetic_builds import synthetic_build, write_history


@pytest.fixture(autouse=True)
def _no_daemons(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cache, "living_places", list)
    yield


def make_stores(top: Path) -> list[cache.KeptStore]:
    for name in ("cas/ab", "cas/tmp", "warm", "user-60800/cas/tmp", "user-60800/warm"):
        (top / name).mkdir(parents=True)
    (top / "cas" / "ab" / "cdef").write_bytes(os.urandom(10_000))
    (top / "user-1").symlink_to(top)
    for name in ("hashes", "hashes-wal", "owner", "short-tree"):
        (top / name).write_bytes(b"x")
    return list(cache.stores_below(top, top))


def test_all_stores_are_found_and_measured(tmp_path: Path) -> None:
    stores = make_stores(tmp_path)
    assert [(store.kind, str(store.path.relative_to(tmp_path))) for store in stores] == [
        ("contents", "cas"),
        ("layers", "warm"),
        ("contents", "user-60800/cas"),
        ("layers", "user-60800/warm"),
        ("digests", "hashes"),
    ]
    size_bytes, files = cache.size_of(tmp_path / "cas")
    assert files == 1 and 10_000 <= size_bytes < 100_000
    assert cache.size_of(tmp_path / "none") == (0, 0)
    assert list(cache.stores_below(tmp_path / "none", tmp_path / "none")) == []


def test_stores_in_use_are_kept_and_named_and_all_others_are_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = make_stores(tmp_path)
    _, lock = locked_directory(tmp_path / "user-60800" / "cas" / "tmp", "", 0o700)
    monkeypatch.setattr(cache, "living_places", lambda: [{"hashes": str(tmp_path / "hashes")}])
    with pytest.raises(UserError, match="kept, because a daemon uses it") as refused:
        cache._clean(stores)
    assert str(tmp_path / "user-60800" / "cas") in str(refused.value) and "hashes" in str(refused.value)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"user-60800", "user-1", "hashes", "hashes-wal", "owner", "short-tree"}
    assert capsys.readouterr().out.count(" removed from ") == 3
    os.close(lock)
    monkeypatch.setattr(cache, "living_places", list)
    assert cache._clean(list(cache.stores_below(tmp_path, tmp_path))) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"user-60800", "user-1", "owner", "short-tree"}
    assert list((tmp_path / "user-60800").iterdir()) == []


def test_only_a_users_own_link_to_a_store_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tmp").mkdir(parents=True)
    (tmp_path / "cache" / "user-60800").mkdir(parents=True)
    (tmp_path / "cache" / "user-60800" / "cas").symlink_to(elsewhere)
    assert list(cache.stores_below(tmp_path / "cache", tmp_path)) == []
    (tmp_path / "cache" / "cas").symlink_to(elsewhere)
    assert [store.path for store in cache.stores_below(tmp_path / "cache", tmp_path)] == [elsewhere]


@pytest.mark.logs("store-blob-bad")
def test_results_are_shown_checked_and_emptied_while_a_master_has_them_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "results"
    master = opened(root)
    assert add(master, 1) and add(master, 2)
    stores = list(cache.stores_below(tmp_path / "none", tmp_path))
    assert [(store.kind, cache.is_in_use(store)) for store in stores] == [("results", False)]
    assert cache._verify(stores) == 0
    assert "results: 2 results, " in capsys.readouterr().out
    damaged = next(path for path in (root / "cas").glob("??/*") if path.is_file() and len(path.name) == 62)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert cache._verify(stores) == 1
    assert "and 1 damaged content removed" in capsys.readouterr().out and not damaged.exists()
    assert cache._clean(stores) == 0
    assert "results: " in capsys.readouterr().out
    assert master.rows(weak(1)).path_sets == () and add(master, 3)
    master.close()
    assert cache._verify(stores) == 0
    assert "results: 1 result, " in capsys.readouterr().out


def test_hits_of_the_recorded_builds_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TERMITE_SOCKET", raising=False)
    tree = tmp_path / "tree"
    tree.mkdir()
    monkeypatch.chdir(tree)
    assert list(cache._rate_lines()) == []
    build = synthetic_build(0)
    counts = BuildCounts(cached=3)
    write_history(records_directory(tree), [build._replace(build=replace(build.build, jobs=4, counts=counts))])
    assert list(cache._rate_lines()) == ["hits in the recorded builds of this tree: 3 of 4 commands (75%)"]
