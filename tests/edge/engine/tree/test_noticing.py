"""Test that MasterTree notices what others change on the disk."""

# ruff: noqa: ASYNC230, ASYNC240  (a test may wait for its own disk)

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

import inotify_simple  # type: ignore[import-untyped]  # it has no annotations
import pytest

from termite.engine.errors import FsError, Reason, Retryable
from termite.engine.model import Attr, Change
from termite.engine.paths import is_within
from termite.engine.tree import directory_reader, file_contents
from termite.engine.tree.directory_reader import Listed
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.logic.attrs import Stamp
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing import publication
from termite.engine.tree.tools.tool_homes import ToolPlace
from tests.edge.engine.tree.tree_jobs import Job, agrees_with_the_disk, changed_since, digest_of, serve, tree_path

NS = 10**9


async def test_what_was_done_before_a_drain_is_in_the_journal_after_it(home: MasterTree, root: Path) -> None:
    (root / "edited").write_bytes(b"1")
    await serve(home, root)
    (root / "edited").write_bytes(b"12")
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "f").write_bytes(b"3")
    assert home.drain() == 1
    changes = await changed_since(home, root, 0)
    assert changes.keys() >= {"edited", "d", "d/sub", "d/sub/f"}
    assert home.drain() == 1


async def test_a_file_written_but_not_closed_is_noticed(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    with open(root / "log", "wb", buffering=0) as f:
        home.drain()
        number = home.number
        f.write(b"line")
        home.drain()
        attr = (await changed_since(home, root, number))["log"]
    assert attr is not None
    assert attr.size == 4


async def test_small_files_written_here_go_along_with_the_news_of_them(home: MasterTree, root: Path) -> None:
    await home.directory(tree_path(root))
    at = home.drain()
    (root / "small").write_bytes(b"text")
    (root / "empty").write_bytes(b"")
    (root / "large").write_bytes(b"x" * 101)
    (root / "linked").write_bytes(b"text")
    os.link(root / "linked", root / "other")
    os.symlink("small", root / "symlink")
    (root / "directory").mkdir()
    number = home.drain()
    small = tree_path(root / "small")
    assert home.contents_since(at, 100, 1000, 99) == {small: b"text"}
    assert home.contents_since(number, 100, 1000, 99) == {}, "they are sent once"
    job = Job(home, root).write("result", b"text")
    await job.end()
    assert home.contents_since(number, 100, 1000, 99) == {}, "the worker that made the file has its content"
    os.close((await home.open_file(small, 4, (root / "small").stat().st_mtime_ns))[0])
    assert home.contents_since(at, 100, 1000, 99) == {}, "a worker has asked for it"


@pytest.mark.parametrize("how", ["written again", "gone", "a directory", "a symlink"])
async def test_of_a_version_that_is_gone_no_content_is_told(home: MasterTree, root: Path, how: str) -> None:
    await home.directory(tree_path(root))
    at = home.drain()
    path = root / "f"
    path.write_bytes(b"text")
    home.drain()
    path.unlink()
    if how == "written again":
        path.write_bytes(b"news")
    elif how == "a directory":
        path.mkdir()
    elif how == "a symlink":
        (root / "there").write_bytes(b"text")
        path.symlink_to("there")
    assert home.contents_since(at, 100, 1000, 99) == {}


async def test_not_more_than_a_job_can_wait_for_goes_along(home: MasterTree, root: Path) -> None:
    await home.directory(tree_path(root))
    at = home.drain()
    for number in range(20):
        (root / f"f{number}").write_bytes(b"x" * 100)
    home.drain()
    contents = home.contents_since(at, 100, 1000, 99)
    assert sum(map(len, contents.values())) == 1000


async def test_not_more_files_are_opened_than_a_master_has_time_for(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.directory(tree_path(root))
    at = home.drain()
    for number in range(20):
        (root / f"f{number}").write_bytes(b"x")
    home.drain()
    (root / "f0").write_bytes(b"written again, and again in the journal")
    home.drain()
    opened: list[bytes] = []
    open_file = home._disk.open_file

    def open_and_note(path: bytes) -> int:
        opened.append(path)
        return open_file(path)

    monkeypatch.setattr(home._disk, "open_file", open_and_note)
    assert len(home.contents_since(at, 100, 1000, 7)) == 7
    assert len(opened) == 7


async def test_what_was_done_through_one_name_of_a_file_is_noticed_for_all(home: MasterTree, root: Path) -> None:
    (root / "d").mkdir()
    (root / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    os.link(root / "f", root / "d" / "g")
    home.drain()
    assert (await changed_since(home, root, 0)).keys() >= {"f", "d/g"}
    number = home.number
    (root / "d" / "g").write_bytes(b"12")
    home.drain()
    attr = (await changed_since(home, root, number))["f"]
    assert attr is not None
    assert attr.size == 2


async def test_a_write_that_no_stamp_shows_is_noticed_for_all_names(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the clock ticks slowly, the stamp stays: the same size, in the same tick."""
    for module in (directory_reader, file_contents):
        monkeypatch.setattr(module, "stamp_of", lambda st: Stamp(st.st_dev, st.st_ino, st.st_size, 1, 1))
    for module in (directory_reader, file_contents):
        monkeypatch.setattr(module, "is_racy", lambda *_: True)
    (root / "d").mkdir()
    (root / "h").mkdir()
    (root / "f").write_bytes(b"old")
    os.link(root / "f", root / "d" / "g")
    os.link(root / "f", root / "h" / "f")
    await serve(home, root, root / "d")
    home.drain()
    st = os.stat(root / "f")
    paths = {name: tree_path(root / name) for name in ("f", "d/g")}
    for path in paths.values():
        fd, digest = await home.open_file(path, st.st_size, 1)
        os.close(fd)
        assert digest == digest_of(b"old")
    number = home.number
    (root / "d" / "g").write_bytes(b"new")
    home.drain()
    changed = await changed_since(home, root, number)
    assert changed.keys() >= paths.keys()
    assert changed["f"] == changed["d/g"], "they are still shown as one file"
    for name, path in paths.items():
        attr = changed[name]
        assert attr is not None
        assert attr.digest is None
        fd, digest = await home.open_file(path, st.st_size, 1)
        os.close(fd)
        assert digest == digest_of(b"new")
    later = (await home.directory(tree_path(root / "h")))[2][b"f"]
    assert (linked := changed["d/g"]) and later.link_id == linked.link_id, "nor is a name that is looked at later"


async def test_the_names_of_one_file_are_told_as_one_while_they_are(home: MasterTree, root: Path) -> None:
    (root / "d").mkdir()
    (root / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    os.link(root / "f", root / "d" / "g")
    os.link(root / "f", root / "h")
    home.drain()
    links = {
        name: attr.link_id for name, attr in (await changed_since(home, root, 0)).items() if attr and attr.nlink == 3
    }
    assert links.keys() == {"f", "d/g", "h"}
    assert len(set(links.values())) == 1
    number = home.number
    (root / "h").unlink()
    home.drain()
    changed = await changed_since(home, root, number)
    f, g = changed["f"], changed["d/g"]
    assert f is not None
    assert f == g
    assert f.nlink == 2
    assert f.link_id not in links.values()


async def test_what_nobody_was_shown_is_no_news(home: MasterTree, root: Path) -> None:
    (root / "d").mkdir()
    await serve(home, root)
    (root / "d" / "f").write_bytes(b"1")
    assert home.drain() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root enters every directory")
async def test_a_directory_that_may_be_listed_but_not_entered_sends_the_command_home_and_is_not_empty(
    home: MasterTree, root: Path
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    (root / "d").chmod(0o644)
    await serve(home, root)
    with pytest.raises(Retryable) as error:
        await serve(home, root / "d")
    assert error.value.reason is Reason.UNSEEN_PROGRAM
    (root / "d").chmod(0o755)
    home.drain()
    await serve(home, root / "d")
    assert (await home.directory(tree_path(root / "d")))[2].keys() == {b"f"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_directory_that_became_readable_shows_what_is_in_it(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    (root / "d").chmod(0)
    home.drain()
    with pytest.raises(Retryable):
        await serve(home, root / "d")
    number = home.drain()
    (root / "d").chmod(0o755)
    home.drain()
    assert "d" in await changed_since(home, root, number)
    assert (await home.directory(tree_path(root / "d")))[2].keys() == {b"f"}


@pytest.fixture
def usr(tmp_path: Path) -> Path:
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    for name in ("same", "changed", "deleted"):
        (tmp_path / "usr" / "lib" / name).write_bytes(b"1")
    return tmp_path / "usr"


def change_what_is_settled(usr: Path) -> None:
    (usr / "lib" / "changed").write_bytes(b"12")
    (usr / "lib" / "deleted").unlink()
    (usr / "lib" / "new").mkdir()
    (usr / "lib" / "new" / "f").write_bytes(b"1")


# Only the name of a new directory is reported: a mirror that needs its entries asks for them.
SETTLED_CHANGES = {"lib", "lib/changed", "lib/deleted", "lib/new"}


async def test_the_settled_tree_is_watched(usr: Path, root: Path) -> None:
    home = MasterTree(TreeConfig(tree_path(root), exports=(tree_path(usr),)))
    await serve(home, usr / "lib")
    change_what_is_settled(usr)
    number = home.drain()
    assert number > 0
    assert (await changed_since(home, usr, 0)).keys() == SETTLED_CHANGES
    (usr / "lib" / "new" / "g").write_bytes(b"1")
    assert (await changed_since(home, usr, 0)).keys() == SETTLED_CHANGES
    await serve(home, usr / "lib" / "new")
    (usr / "lib" / "new" / "g").write_bytes(b"12")
    home.drain()
    assert (await changed_since(home, usr, 0))["lib/new/g"] is not None
    number = home.drain()
    await home.recheck_settled()
    assert await changed_since(home, usr, number) == {}, "directories above may change: other programs use them"
    home.close()


@pytest.mark.logs("watch-limit-reached")
async def test_the_settled_tree_is_compared_when_asked_where_it_cannot_be_watched(
    usr: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, path: object, mask: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inotify_simple.INotify, "add_watch", full)
    home = MasterTree(TreeConfig(tree_path(root), exports=(tree_path(usr),)))
    await serve(home, usr / "lib")
    change_what_is_settled(usr)
    assert home.drain() == 0
    assert await home.recheck_settled() > 0
    assert (await changed_since(home, usr, 0)).keys() == SETTLED_CHANGES
    number = home.number
    await home.recheck_settled()
    assert await changed_since(home, usr, number) == {}
    home.close()


async def test_what_others_may_not_read_any_more_is_not_shown_any_more(root: Path) -> None:
    public = next((d for d in (Path("/opt"), Path.home()) if os.access(d, os.W_OK) and is_public(d)), None)
    if public is None:
        pytest.skip("neither /opt nor the home directory can be written by us and read by all")
    with tempfile.TemporaryDirectory(dir=public) as name:
        top = Path(name)
        (top / "lib").mkdir()
        (top / "lib" / "f").write_bytes(b"1")
        top.chmod(0o755)
        home = MasterTree(TreeConfig(tree_path(root)))
        await serve(home, top / "lib")
        top.chmod(0o750)
        home.drain()
        assert (await changed_since(home, public, 0))[top.name] is None
        top.chmod(0o755)
        home.drain()
        assert (await changed_since(home, public, 0))[top.name] is not None
        home.close()


def is_public(directory: Path) -> bool:
    return all(d.stat().st_mode & 0o005 == 0o005 for d in (directory, *directory.parents))


async def test_a_watched_export_is_known_without_asking_and_stays_read_only(tmp_path: Path, root: Path) -> None:
    crates = tmp_path / "crates"
    crates.mkdir()
    home = MasterTree(TreeConfig(tree_path(root)))
    home.show_tools([ToolPlace(bytes(crates), is_watched=True)], [])
    await serve(home, crates)
    (crates / "new").mkdir()
    (crates / "new" / "lib.rs").write_bytes(b"1")
    assert home.drain() > 0
    changed_paths = {os.path.basename(os.fsdecode(c.path)) for s in home.changesets_since(0) for c in s.changes}
    assert changed_paths >= {"new", "lib.rs"}
    written = Change(tree_path(crates / "made"), Attr(stat.S_IFDIR | 0o755, 4096, NS))
    with pytest.raises(FsError):
        await home.publish([written], {}, Timing(0, 0, 0, 0, home.number))
    home.close()


async def test_a_settled_file_that_changed_in_place_is_found(tmp_path: Path, root: Path) -> None:
    (tmp_path / "tool").write_bytes(b"1")
    home = MasterTree(TreeConfig(tree_path(root), exports=(tree_path(tmp_path),)))
    await serve(home, tmp_path)
    with open(tmp_path / "tool", "r+b") as f:
        f.write(b"2")
    assert home.drain() == 1
    await home.recheck_settled()
    assert await changed_since(home, tmp_path, 1) == {}
    home.close()


async def test_files_that_nobody_has_hashed_cost_the_store_nothing_when_they_are_listed_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "f").write_bytes(b"text")
    (root / "g").write_bytes(b"text")
    forgotten: list[Stamp] = []
    monkeypatch.setattr(Hashes, "forget", lambda _, stamp: forgotten.append(stamp))
    tree = MasterTree(TreeConfig(tree_path(root), hash_cache=tmp_path / "hashes"))
    try:
        await serve(tree, root)
        tree.drain()
        tree._follower.watches.list_always(tree_path(root))  # this happens if there are no watches left
        os.chmod(root / "g", 0o600)
        tree.drain()
        assert await agrees_with_the_disk(tree, root)
        assert forgotten == []
    finally:
        tree.close()


async def test_what_is_done_to_one_name_of_a_symlink_is_seen_of_the_other(home: MasterTree, root: Path) -> None:
    os.symlink("q", root / "one")
    os.link(root / "one", root / "two", follow_symlinks=False)
    await serve(home, root)
    os.utime(root / "one", ns=(5, 5), follow_symlinks=False)
    home.drain()
    attr = (await changed_since(home, root, 0))["two"]
    assert attr is not None
    assert (attr.mtime_ns, attr.nlink) == (5, 2)


async def test_the_directory_of_a_result_is_checked_once(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    await serve(home, root, root / "d", root / "d" / "sub")
    opened: list[bytes] = []
    read_names = directory_reader.DirectoryReader.read_names

    def counted(reader: directory_reader.DirectoryReader, directory: bytes, names: Collection[bytes]) -> Listed:
        if is_within(directory, tree_path(root)):  # others make files in /tmp
            opened.append(directory)
        return read_names(reader, directory, names)

    monkeypatch.setattr(directory_reader.DirectoryReader, "read_names", counted)
    monkeypatch.setattr(publication, "SLICE_S", 60.0)  # otherwise a busy machine reads the events in two parts
    job = Job(home, root).write("d/sub/x", b"text").mkdir("d/sub", 0o750)
    await job.end()
    home.drain()
    assert opened == [tree_path(root / "d" / "sub")]
    assert await agrees_with_the_disk(home, root / "d")
    assert await agrees_with_the_disk(home, root / "d" / "sub")


@pytest.mark.parametrize("names", ["d/sub/x", "d/sub", "d", "d/sub d", "d/sub/x d/sub", "d/sub/x d/sub d", "d/sub/x d"])
async def test_attributes_of_directories_are_noticed_beside_changes_in_them(
    home: MasterTree, root: Path, names: str
) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "x").touch()
    await serve(home, root, root / "d", root / "d" / "sub")
    home.drain()
    for name in names.split():
        (root / name).chmod(0o700)
    number = home.number
    home.drain()
    changes = await changed_since(home, root, number)
    assert {name: stat.S_IMODE(attr.mode) for name, attr in changes.items() if attr} == dict.fromkeys(
        names.split(), 0o700
    )
    for directory in (root, root / "d", root / "d" / "sub"):
        assert await agrees_with_the_disk(home, directory)


async def test_files_that_lost_a_name_with_its_directory_are_not_remembered_for_ever(
    home: MasterTree, root: Path
) -> None:
    await serve(home, root)
    for number in range(20):
        directory = root / f"d{number}"
        directory.mkdir()
        for name in ("a", "b", "c"):
            (directory / name).write_bytes(b"1")
            os.link(directory / name, root / f"{name}{number}")
        home.drain()
        assert home.statistics()["lost_links"] == 0
        shutil.rmtree(directory)
        home.drain()
    assert home.statistics()["lost_links"] == 0
    assert await agrees_with_the_disk(home, root)
    _, _, children = await home.directory(tree_path(root))
    assert {attr.nlink for attr in children.values()} == {1}, "though nothing happened to these names"
