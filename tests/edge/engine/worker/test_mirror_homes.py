"""Tests of the users and directories of mirrors."""

import fcntl
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from termite.engine.errors import Retryable, UserError
from termite.engine.private_directories import locked_directory, remove_leftovers, remove_tree
from termite.engine.worker import mirror_homes, worker_calls
from termite.engine.worker.mirror_homes import (
    PRIVATE_PLACES,
    SCRATCH_PREFIX,
    MirrorHouse,
    check_users,
    make_directory,
    remove_mirror_leftovers,
)


async def test_a_scratch_directory_is_empty_and_goes_with_its_mirror(tmp_path: Path) -> None:
    homes = MirrorHouse(tmp_path / "deep" / "cache", tmp_path, None)
    async with homes.claim() as mine, homes.claim() as other:
        assert mine.uid is None
        assert mine.scratch != other.scratch
        assert mine.cache == other.cache == tmp_path / "deep" / "cache"
        (mine.scratch / "job").mkdir()
        (mine.scratch / "job" / "out").write_bytes(b"x")
    assert not mine.scratch.exists()
    homes.close()
    assert sorted(os.listdir(tmp_path)) == ["deep"]


async def test_homes_are_reused_the_first_one_first(tmp_path: Path) -> None:
    homes = MirrorHouse(tmp_path / "cache", tmp_path, None)
    async with homes.claim() as first, homes.claim():
        pass
    async with homes.claim() as again:
        assert again == first
    homes.close()


async def test_the_number_of_homes_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_homes, "MAX_MIRRORS", 2)
    homes = MirrorHouse(tmp_path / "cache", tmp_path, None)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(homes.claim())
        with pytest.raises(Retryable, match="2 mirrors run there already"):
            await stack.enter_async_context(homes.claim())
    homes.close()


async def test_each_mirror_of_a_root_worker_has_a_user_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, int] = {}

    def note(fd: int, uid: int, gid: int) -> None:
        given[os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))] = uid

    monkeypatch.setattr(worker_calls, "fchown", note)
    homes = MirrorHouse(tmp_path / "cache", tmp_path, range(60800, 60864))
    async with homes.claim() as mine, homes.claim() as other:
        assert (mine.uid, other.uid) == (60800, 60801)
        assert mine.cache != other.cache
    assert given == {"0": 60800, "user-60800": 60800, "1": 60801, "user-60801": 60801}
    homes.close()


async def test_two_workers_on_one_machine_do_not_share_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_calls, "fchown", lambda fd, uid, gid: None)
    users = range(60800, 60864)
    one, two = MirrorHouse(tmp_path / "cache", tmp_path, users), MirrorHouse(tmp_path / "cache", tmp_path, users)
    async with one.claim() as mine, two.claim() as other:
        assert (mine.uid, other.uid) == (60800, 60801)
    async with two.claim() as other:
        assert other.uid == 60800
    one.close()
    two.close()


@pytest.mark.attack
@pytest.mark.parametrize("moment", ["cache locked", "scratch made"])
async def test_no_symlink_leads_a_root_worker_to_somebody_elses_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Test that a symlink which takes a name just before the change of its owner has no effect."""
    private, given, exchanged = tmp_path / "private", [], []
    private.mkdir()
    make, lock = os.mkdir, fcntl.flock

    def exchange(path: Path) -> None:
        path.rmdir()
        path.symlink_to(private)
        exchanged.append(path)

    def make_and_exchange(path: str | Path, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        if os.path.basename(path) == "0":
            exchange(next(tmp_path.glob("termite-worker-*")) / "0")

    def lock_and_exchange(fd: int, operation: int) -> None:
        lock(fd, operation)
        exchange(tmp_path / "cache" / "user-60800")

    monkeypatch.setattr(worker_calls, "fchown", lambda fd, uid, gid: given.append(os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append(os.path.realpath(path)))
    homes = MirrorHouse(tmp_path / "cache", tmp_path, range(60800, 60864))
    if moment == "scratch made":
        monkeypatch.setattr(worker_calls, "mkdir", make_and_exchange)
    else:
        monkeypatch.setattr(fcntl, "flock", lock_and_exchange)
    with suppress(NotADirectoryError):
        async with homes.claim():
            pass
    assert len(exchanged) == 1
    assert str(private) not in given
    homes.close()


def test_a_leftover_is_removed_by_what_was_opened(tmp_path: Path) -> None:
    leftover, other = tmp_path / "termite-worker-x", tmp_path / "other"
    for directory in (leftover / "0" / "upper", other):
        directory.mkdir(parents=True)
    (other / "kept").touch()
    (leftover / "0" / "link").symlink_to(other)
    (tmp_path / "termite-worker-link").symlink_to(other)
    remove_leftovers(tmp_path, SCRATCH_PREFIX)
    assert sorted(os.listdir(tmp_path)) == ["other", "termite-worker-link"]
    assert os.listdir(other) == ["kept"]


def test_a_directory_that_another_worker_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test the moment between the two calls: a worker that starts then sees a leftover."""
    lock = fcntl.flock
    removed: list[str] = []

    def remove_and_lock(fd: int, operation: int) -> None:
        if not removed:
            monkeypatch.setattr(fcntl, "flock", lock)
            removed.extend(os.listdir(tmp_path / "tmp"))
            remove_leftovers(tmp_path / "tmp", SCRATCH_PREFIX)
        lock(fd, operation)

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    homes = MirrorHouse(tmp_path / "cache", tmp_path / "tmp", None)
    assert len(removed) == 1
    assert len(os.listdir(tmp_path / "tmp")) == 1
    assert os.listdir(tmp_path / "tmp") != removed
    homes.close()
    assert os.listdir(tmp_path / "tmp") == []


def test_ids_that_somebody_has_are_refused() -> None:
    with pytest.raises(UserError, match="user id 0 belongs to root"):
        check_users(range(64))
    check_users(range(60800, 60864))


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/cache: cannot make this directory"):
        make_directory(tmp_path / "file" / "cache", 0o700)
    with pytest.raises(UserError, match="missing: cannot make a directory here"):
        MirrorHouse(tmp_path / "cache", tmp_path / "missing", None)


def test_a_tree_of_closed_directories_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "tree" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (tmp_path / "tree" / "link").symlink_to("/nowhere")
    for directory in (deep, deep.parent, tmp_path / "tree"):
        directory.chmod(0)
    remove_tree(tmp_path / "tree")
    assert os.listdir(tmp_path) == []
    remove_tree(tmp_path / "tree")
    assert os.listdir(tmp_path) == []


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(tree)
    assert os.listdir(tmp_path) == []


@pytest.mark.attack
def test_what_symlinks_lead_to_is_not_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(0o555)
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(kept)
    (tree / "link").symlink_to(kept)
    remove_tree(tree)
    assert os.listdir(tmp_path) == ["kept"]
    assert kept.stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("moment", ["a mirror ends", "a worker starts", "a worker on another cache ends"])
async def test_what_a_killed_mirror_left_in_its_cache_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(worker_calls, "fchown", lambda fd, uid, gid: None)
    cache = tmp_path / "cache"
    for user in ("user-60800", "user-60801"):
        for place in PRIVATE_PLACES:
            (cache / user / place / "left" / "deep").mkdir(parents=True)
    living, lock = locked_directory(cache / "user-60801" / "warm", "", 0o700)
    homes = MirrorHouse(cache if moment == "a worker starts" else tmp_path / "other", tmp_path, range(60800, 60864))
    if moment == "a mirror ends":
        homes.close()
        homes = MirrorHouse(cache, tmp_path, range(60800, 60864))
        async with homes.claim() as home:
            killed = home.cache / "warm" / "killed"
            killed.mkdir()
            assert killed.exists()
    homes.close()
    left = {path for place in PRIVATE_PLACES for path in cache.glob(f"user-*/{place}/*")}
    if moment == "a worker on another cache ends":
        assert len(left) == 5
        remove_mirror_leftovers(cache)
        left = {path for place in PRIVATE_PLACES for path in cache.glob(f"user-*/{place}/*")}
    assert left == {living}
    os.close(lock)


@pytest.mark.attack
def test_no_symlink_in_a_cache_leads_out_of_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "tmp" / "entry"
    kept.mkdir(parents=True)
    user = tmp_path / "cache" / "user-60800"
    user.mkdir(parents=True)
    (user / "warm").symlink_to(kept.parent)
    (user / "cas").symlink_to(kept.parent.parent)
    other = tmp_path / "other" / "warm" / "entry"
    other.mkdir(parents=True)
    (tmp_path / "cache" / "user-60801").symlink_to(tmp_path / "other")
    remove_mirror_leftovers(tmp_path / "cache")
    assert kept.exists() and other.exists()


@pytest.mark.attack
@pytest.mark.needs_root("gives directories to other users")
def test_what_belongs_to_another_user_than_the_cache_is_no_leftover_of_it(tmp_path: Path) -> None:
    warm = tmp_path / "cache" / "user-60800" / "warm"
    for name, uid in (("left", 60800), ("theirs", 60801)):
        (warm / name).mkdir(parents=True)
        os.chown(warm / name, uid, uid)
    for path in (warm, warm.parent):
        os.chown(path, 60800, 60800)
    remove_mirror_leftovers(tmp_path / "cache")
    assert os.listdir(warm) == ["theirs"]


@pytest.mark.attack
def test_a_place_that_others_could_exchange_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for cache, tmpdir in ((tmp_path / "cache", tmp_path / "open"), (tmp_path / "open" / "cache", tmp_path)):
        with pytest.raises(UserError, match="others may write"):
            MirrorHouse(cache, tmpdir, None)
