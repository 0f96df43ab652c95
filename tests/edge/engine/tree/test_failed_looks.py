"""An error of a look at the disk is never an absence, and it loses no event and no change."""

import os
from collections.abc import Callable
from errno import EACCES, EIO, EMFILE, ENAMETOOLONG, ENOENT, ENOMEM, ENOTCONN, EPERM, ESTALE
from pathlib import Path
from typing import Any

import pytest

from termite.engine import look_calls
from termite.engine.errors import FsError, Reason, Retryable, Stale
from termite.engine.model import UNKNOWN, Attr
from termite.engine.tree import directory_reader, tree_disk
from termite.engine.tree.logic.visibility import Exports, Visibility
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.tools import private_entries
from tests.edge.engine.tree.tree_jobs import Job, agrees_with_the_disk, changed_since, serve, tree_path

LOOKS = [EIO, ENOMEM, ESTALE, EMFILE]


class Faults:
    """The `look_calls` of one module, with a function that fails `times` times for one file."""

    def __init__(self, call: str, name: str, error: BaseException, times: int = 1) -> None:
        self.call = call
        self.name = os.fsencode(name)
        self.error = error
        self.times = times

    def __getattr__(self, name: str) -> Any:
        real = getattr(look_calls, name)
        return self._failing(real) if name == self.call else real

    def _failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(what: Any, *args: Any, **kwargs: Any) -> Any:
            if self.times and self._is_meant(what):
                self.times -= 1
                raise self.error
            return real(what, *args, **kwargs)

        return call

    def _is_meant(self, what: Any) -> bool:
        if isinstance(what, int):
            what = os.fsencode(os.readlink(f"/proc/self/fd/{what}"))
        return bool(os.path.basename(what) == self.name)


def failed(errno: int) -> OSError:
    return OSError(errno, os.strerror(errno))


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Faults]:
    def fail(call: str, name: str, error: BaseException, times: int = 1) -> Faults:
        faults = Faults(call, name, error, times)
        monkeypatch.setattr(directory_reader, "look_calls", faults)
        return faults

    return fail


def drain_fails(home: MasterTree, name: str) -> None:
    with pytest.raises(Retryable) as caught:
        home.drain()
    assert caught.value.reason is Reason.LOOK_FAILED
    assert name in caught.value.detail


def was_gone(home: MasterTree, path: Path) -> bool:
    """Return whether the journal ever said that there is nothing at `path`."""
    changes = [change for changeset in home.changesets_since(0) for change in changeset.changes]
    return any(change.path == tree_path(path) and change.attr is None for change in changes)


@pytest.mark.parametrize("errno", LOOKS)
@pytest.mark.parametrize("kind", ["an edited file", "a new file", "a renamed directory", "a new directory"])
async def test_a_name_whose_look_failed_keeps_its_entry_and_is_right_after_the_next_look(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int, kind: str
) -> None:
    (root / "old" / "sub").mkdir(parents=True)
    (root / "header").write_bytes(b"1")
    await serve(home, root, root / "old", root / "old" / "sub")
    match kind:
        case "an edited file":
            (root / "header").write_bytes(b"12")
            name = "header"
        case "a new file":
            (root / "new").write_bytes(b"12")
            name = "new"
        case "a new directory":
            (root / "new" / "sub").mkdir(parents=True)
            (root / "new" / "sub" / "f").write_bytes(b"1")
            name = "new"
        case _:
            (root / "old").rename(root / "new")
            (root / "new" / "sub" / "f").write_bytes(b"1")
            name = "new"
    fail("stat", name, failed(errno))
    drain_fails(home, name)
    home.drain()
    assert await agrees_with_the_disk(home, root)
    changed = await changed_since(home, root, 0)
    assert changed[name] is not None
    if name == "new" and kind != "a new file":
        assert changed["new/sub/f"] is not None
    number = home.number
    assert home.drain() == number, "what was looked at is not looked at for ever"


@pytest.mark.parametrize("errno", LOOKS)
@pytest.mark.parametrize("call", ["listdir", "fstat"])
@pytest.mark.parametrize("name", ["new", "sub"])
async def test_a_new_directory_that_cannot_be_listed_is_not_empty(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int, call: str, name: str
) -> None:
    await serve(home, root)
    (root / "new" / "sub").mkdir(parents=True)
    (root / "new" / "f").write_bytes(b"1")
    (root / "new" / "sub" / "g").write_bytes(b"1")
    fail(call, name, failed(errno))
    drain_fails(home, name)
    home.drain()
    assert (await changed_since(home, root, 0)).keys() >= {"new", "new/f", "new/sub", "new/sub/g"}
    for directory in (root, root / "new", root / "new" / "sub"):
        assert await agrees_with_the_disk(home, directory)


async def test_what_was_recorded_before_a_look_failed_is_in_the_journal_after_the_next(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    (root / "a").mkdir()
    (root / "b").mkdir()
    await serve(home, root, root / "a", root / "b")
    (root / "a" / "seen").write_bytes(b"1")
    (root / "b" / "failed").write_bytes(b"1")
    fail("stat", "failed", failed(EIO))
    drain_fails(home, "failed")
    home.drain()
    assert (await changed_since(home, root, 0)).keys() >= {"a/seen", "b/failed"}


async def test_a_look_that_always_fails_fails_every_drain_until_it_heals(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    await serve(home, root)
    (root / "f").write_bytes(b"1")
    faults = fail("stat", "f", failed(EIO), times=3)
    for _ in range(3):
        drain_fails(home, "f")
    assert faults.times == 0, "each drain looks once"
    (root / "other").write_bytes(b"1")
    home.drain()
    assert (await changed_since(home, root, 0)).keys() >= {"f", "other"}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug")])
@pytest.mark.parametrize(("call", "name"), [("stat", "f"), ("fstat", "d")])
async def test_a_drain_that_is_broken_off_loses_no_event(
    home: MasterTree, root: Path, fail: Callable[..., Faults], error: Exception, call: str, name: str
) -> None:
    (root / "d").mkdir()
    await serve(home, root, root / "d")
    (root / "d" / "f").write_bytes(b"1")
    (root / "g").write_bytes(b"1")
    fail(call, name, error)
    with pytest.raises(type(error)):
        home.drain()
    home.drain()
    assert (await changed_since(home, root, 0)).keys() >= {"d/f", "g"}


@pytest.mark.parametrize("errno", LOOKS)
async def test_after_an_overflow_a_directory_that_cannot_be_listed_keeps_its_entries(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    home._follower._failed.events.overflow = True
    fail("listdir", "d", failed(errno))
    drain_fails(home, "d")
    (root / "d" / "g").write_bytes(b"1")
    home.drain()
    assert (await changed_since(home, root, 0))["d/g"] is not None
    assert not was_gone(home, root / "d" / "f")


async def test_a_directory_that_we_may_list_and_that_refuses_is_not_empty(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    home._follower._failed.events.overflow = True
    fail("listdir", "d", failed(EACCES))
    drain_fails(home, "d")
    home.drain()
    assert not was_gone(home, root / "d" / "f")


REFUSALS = [EACCES, EPERM, ENOTCONN, ENAMETOOLONG]


@pytest.mark.parametrize("errno", REFUSALS)
async def test_a_name_of_the_tree_that_was_refused_is_unknown_and_comes_back(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int
) -> None:
    await serve(home, root)
    (root / "f").write_bytes(b"1")
    fail("stat", "f", failed(errno))
    home.drain()
    assert (await changed_since(home, root, 0))["f"] == Attr(0, errno, 0), "a job that touches it does not go on"
    home.drain()
    found = (await changed_since(home, root, 0))["f"]
    assert found is not None and found.size == 1
    assert home._follower.reader.refused == {}


@pytest.mark.parametrize("errno", REFUSALS)
async def test_a_directory_that_was_refused_is_unknown_and_its_entries_come_back(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int
) -> None:
    (root / "inc").mkdir()
    (root / "inc" / "h.h").write_bytes(b"1")
    fail("stat", "inc", failed(errno), times=2)
    _, _, children = await home.directory(tree_path(root))
    assert children[b"inc"].mode == UNKNOWN, "at the first look as well"
    home.drain()
    home.drain()
    assert await agrees_with_the_disk(home, root)
    assert await agrees_with_the_disk(home, root / "inc")


async def test_a_directory_whose_mount_is_dead_is_neither_empty_nor_the_end_of_all_drains(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    home._follower._failed.events.overflow = True
    faults = fail("listdir", "d", failed(ENOTCONN))
    drain_fails(home, "d")
    faults.call, faults.times = "stat", 2
    home.drain()
    found = (await changed_since(home, root, 0))["d"]
    assert found is not None and found.mode == UNKNOWN
    assert not was_gone(home, root / "d" / "f")
    faults.times = 0
    home.drain()
    assert await agrees_with_the_disk(home, root)


@pytest.mark.parametrize("errno", [EACCES, EPERM, ENOTCONN])
async def test_a_name_that_jobs_ask_for_is_no_absence_if_it_was_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, errno: int
) -> None:
    (tmp_path / "private").mkdir(0o700)
    (tmp_path / "private" / "link").symlink_to("x")
    home = MasterTree(TreeConfig(tree_path(root), shares_temporary=False))
    monkeypatch.setattr(private_entries, "look_calls", Faults("stat", "link", failed(errno)))
    monkeypatch.setattr(private_entries, "is_asked_for", lambda exports, directory: True)
    monkeypatch.setattr(Exports, "visibility", lambda self, path: Visibility.PASSAGE)
    try:
        with pytest.raises(Retryable) as caught:
            await home.private_entry(tree_path(tmp_path / "private" / "link"))
        assert caught.value.reason is Reason.LOOK_FAILED
        assert await home.private_entry(tree_path(tmp_path / "private" / "link")) is not None
    finally:
        home.close()


async def test_a_refused_name_that_is_gone_is_forgotten(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    (root / "d").mkdir()
    await serve(home, root, root / "d")
    (root / "f").write_bytes(b"1")
    (root / "d" / "g").write_bytes(b"1")
    fail("stat", "f", failed(EACCES))
    home.drain()
    (root / "f").unlink()
    home.drain()
    fail("stat", "g", failed(EACCES))
    (root / "d" / "g").write_bytes(b"12")
    home.drain()
    (root / "d" / "g").unlink()
    (root / "d").rmdir()
    home.drain()
    home.drain()
    assert home._follower.reader.refused == {}


async def test_a_settled_name_that_was_refused_comes_back_with_the_next_check(
    tmp_path: Path, root: Path, fail: Callable[..., Faults]
) -> None:
    usr = tmp_path / "usr"
    usr.mkdir()
    (usr / "cc").write_bytes(b"1")
    home = MasterTree(TreeConfig(tree_path(root), exports=(tree_path(usr),)))
    try:
        fail("stat", "cc", failed(EACCES))
        _, _, children = await home.directory(tree_path(usr))
        assert children[b"cc"].mode == UNKNOWN
        await home.recheck_settled()
        _, _, children = await home.directory(tree_path(usr))
        assert children[b"cc"].size == 1
    finally:
        home.close()


@pytest.mark.parametrize("errno", LOOKS)
@pytest.mark.parametrize(("call", "name"), [("listdir", "d"), ("stat", "f")])
async def test_a_job_that_asks_for_a_directory_whose_look_fails_is_tried_again(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int, call: str, name: str
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    fail(call, name, failed(errno))
    with pytest.raises(Retryable) as caught:
        await home.directory(tree_path(root / "d"))
    assert caught.value.reason is Reason.LOOK_FAILED
    assert await agrees_with_the_disk(home, root / "d")


@pytest.mark.parametrize("errno", [ENAMETOOLONG, ENOENT])
async def test_a_job_gets_the_error_that_a_local_open_would_get(
    home: MasterTree, root: Path, fail: Callable[..., Faults], errno: int
) -> None:
    (root / "d").mkdir()
    fail("listdir", "d", failed(errno))
    with pytest.raises(FsError) as caught:
        await home.directory(tree_path(root / "d"))
    assert caught.value.errno == errno


async def test_a_directory_of_the_user_that_refuses_him_sends_the_command_home(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    (root / "d").mkdir()
    fail("listdir", "d", failed(EACCES))
    with pytest.raises(Retryable) as caught:
        await home.directory(tree_path(root / "d"))
    assert caught.value.reason is Reason.UNSEEN_PROGRAM


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def refuse(errno: int) -> None:
        def open_file(self: tree_disk.Disk, path: bytes) -> int:
            raise failed(errno)

        monkeypatch.setattr(tree_disk.Disk, "open_file", open_file)

    return refuse


@pytest.mark.parametrize(
    ("errno", "kind"), [*((errno, Retryable) for errno in LOOKS), (ENAMETOOLONG, FsError), (ENOENT, Stale)]
)
async def test_a_file_that_cannot_be_opened_is_an_error_of_the_job_only_if_it_is_one_here(
    home: MasterTree, root: Path, opening: Callable[[int], None], errno: int, kind: type[Exception]
) -> None:
    (root / "f").write_bytes(b"1")
    await serve(home, root)
    opening(errno)
    with pytest.raises(kind):
        await home.open_file(tree_path(root / "f"), 1, (root / "f").stat().st_mtime_ns)


async def test_a_file_of_the_user_that_refuses_him_sends_the_command_home(
    home: MasterTree, root: Path, opening: Callable[[int], None]
) -> None:
    (root / "f").write_bytes(b"1")
    await serve(home, root)
    opening(EACCES)
    with pytest.raises(Retryable) as caught:
        await home.open_file(tree_path(root / "f"), 1, (root / "f").stat().st_mtime_ns)
    assert caught.value.reason is Reason.UNSEEN_PROGRAM


async def test_no_worker_is_to_blame_if_nobody_can_say_whose_a_closed_file_or_directory_is(
    home: MasterTree,
    root: Path,
    fail: Callable[..., Faults],
    opening: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(self: tree_disk.Disk, path: bytes) -> None:
        raise failed(EMFILE)

    (root / "d").mkdir()
    (root / "f").write_bytes(b"1")
    await serve(home, root)
    fail("listdir", "d", failed(EACCES))
    opening(EACCES)
    monkeypatch.setattr(tree_disk.Disk, "look", look)
    for asked in (
        home.directory(tree_path(root / "d")),
        home.open_file(tree_path(root / "f"), 1, (root / "f").stat().st_mtime_ns),
    ):
        with pytest.raises(Retryable) as caught:
            await asked
        assert caught.value.reason is Reason.LOOK_FAILED


async def test_a_result_on_the_disk_stays_a_result_if_the_look_at_it_fails(
    home: MasterTree, root: Path, fail: Callable[..., Faults]
) -> None:
    await serve(home, root)
    job = Job(home, root).write("result", b"text").write("other", b"text")
    fail("stat", "result", failed(EIO))
    await job.end()
    assert (root / "result").read_bytes() == b"text"
    home.drain()
    assert (await changed_since(home, root, 0)).keys() >= {"result", "other"}
