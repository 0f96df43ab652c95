"""Test HomeTree on a real directory: serving, noticing changes, and bringing results home."""

# ruff: noqa: ASYNC230, ASYNC240  (a test may wait for its own disk)

import errno
import os
import resource
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import inotify_simple  # type: ignore[import-untyped]  # it has no annotations
import pytest
import trio

from termite.engine.errors import FsError, RemoteProtocolError, Stale
from termite.engine.model import Attr, Change, Digest
from termite.engine.tree import directory_reader, file_contents, truth
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.home import BroughtHome, HomeTree, TreeConfig
from termite.engine.tree.logic.attrs import Seen, Stamp
from termite.engine.tree.logic.plan import Plan
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.replay import Replay

NS = 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "proj"
    root.mkdir()
    return root


@pytest.fixture
def home(root: Path) -> Iterator[HomeTree]:
    tree = HomeTree(TreeConfig(tree_path(root)))
    yield tree
    tree.close()
    assert not (root / ".termite-staging").exists()


def tree_path(path: Path) -> bytes:
    return os.fsencode(path)[1:]


def digest_of(content: bytes) -> Digest:
    return Digest(sha256(content).digest(), len(content))


class Job:
    """The changes of one job, as a worker whose clock is right would report them."""

    def __init__(self, home: HomeTree, root: Path) -> None:
        self.home = home
        self.root = root
        self.number = home.drain()
        self.dispatched_ns = home.now_ns()
        self.started_ns = time.time_ns()
        self.changes: list[Change] = []
        self.contents: dict[bytes, bytes | Path] = {}

    def write(self, name: str, content: bytes = b"", mode: int = 0o644, mtime_ns: int | None = None) -> "Job":
        digest = digest_of(content)
        self.contents[digest.sha256] = content
        attr = Attr(stat.S_IFREG | mode, len(content), mtime_ns or time.time_ns(), digest)
        return self.change(name, attr)

    def mkdir(self, name: str, mode: int = 0o755, mtime_ns: int | None = None) -> "Job":
        return self.change(name, Attr(stat.S_IFDIR | mode, 0, mtime_ns or time.time_ns()))

    def change(self, name: str, attr: Attr | None, *, link_to: str | None = None, content: bool = True) -> "Job":
        target = tree_path(self.root / link_to) if link_to else None
        self.changes.append(Change(tree_path(self.root) + b"/" + os.fsencode(name), attr, target, content))
        return self

    def delete(self, *names: str) -> "Job":
        for name in names:
            self.change(name, None)
        return self

    async def end(self, offset_ns: int = 0) -> BroughtHome:
        timing = Timing(self.dispatched_ns, self.started_ns, time.time_ns(), offset_ns, self.number)
        return await self.home.bring_home(self.changes, self.contents, timing)


async def changed_since(home: HomeTree, root: Path, since: int) -> dict[str, Attr | None]:
    """Return what the journal says since number `since`, by path below the root."""
    changes = [change for changeset in home.changesets_since(since) for change in changeset.changes]
    top = tree_path(root) + b"/"
    return {os.fsdecode(c.path[len(top) :]): c.attr for c in changes if c.path.startswith(top)}


async def serve(home: HomeTree, *directories: Path) -> None:
    for directory in directories:
        await home.directory(tree_path(directory))


async def agrees_with_the_disk(home: HomeTree, directory: Path) -> bool:
    _, _, children = await home.directory(tree_path(directory))
    for name, attr in children.items():
        st = os.lstat(os.path.join(os.fsencode(directory), name))
        if (st.st_mode, st.st_mtime_ns) != (attr.mode, attr.mtime_ns):
            return False
    return set(children) == set(os.listdir(os.fsencode(directory))) - {b".termite-staging"}


# -- serving ----------------------------------------------------------------------------------------------------------


async def test_a_directory_is_answered_whole(home: HomeTree, root: Path) -> None:
    (root / "f").write_bytes(b"abc")
    os.symlink("f", root / "l")
    os.link(root / "f", root / "g")
    number, own, children = await home.directory(tree_path(root))
    assert number == 0
    assert own.mode == root.stat().st_mode
    assert set(children) == {b"f", b"g", b"l"}
    assert children[b"l"].target == b"f"
    assert children[b"f"].link_id == children[b"g"].link_id != 0


@pytest.mark.parametrize(("name", "errno_name"), [("nothing", "ENOENT"), ("f", "ENOTDIR"), ("f/x", "ENOTDIR")])
async def test_no_directory_fails_as_it_would_at_home(home: HomeTree, root: Path, name: str, errno_name: str) -> None:
    (root / "f").write_bytes(b"abc")
    with pytest.raises(FsError) as e:
        await home.directory(tree_path(root / name))
    assert errno.errorcode[e.value.errno] == errno_name


async def test_two_jobs_may_remove_directories_at_once(
    home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with a second name in one of them loses it when that directory is emptied."""
    for name in ("a", "b"):
        (root / name).mkdir()
        (root / f"f{name}").write_bytes(b"1")
        os.link(root / f"f{name}", root / name / "g")
    await serve(home, root, root / "a", root / "b")
    empty, has_begun, may_end = home._empty, threading.Event(), threading.Event()

    def empty_slowly(trash: list[bytes]) -> None:
        if not has_begun.is_set():
            has_begun.set()
            may_end.wait(10)
        empty(trash)

    monkeypatch.setattr(home, "_empty", empty_slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Job(home, root).delete("a").end)
        await trio.to_thread.run_sync(has_begun.wait, 10)
        await Job(home, root).delete("b").end()
        may_end.set()
    _, _, children = await home.directory(tree_path(root))
    assert {name: attr.nlink for name, attr in children.items() if name.startswith(b"f")} == {b"fa": 1, b"fb": 1}


@pytest.mark.parametrize("by_a_job", [True, False])
async def test_a_file_whose_other_name_goes_with_its_directory_has_one_name_less(
    home: HomeTree, root: Path, by_a_job: bool
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


async def test_a_symlink_leads_nowhere_but_at_the_worker(home: HomeTree, root: Path) -> None:
    os.symlink("/root", root / "l")
    for path in (b"/l", b"/l/x", b"/../proj/x", b"//x"):
        with pytest.raises(FsError):
            await home.directory(tree_path(root) + path)


async def test_a_directory_swapped_for_a_symlink_shows_nothing_of_where_it_leads(home: HomeTree, root: Path) -> None:
    (root / "d" / "etc").mkdir(parents=True)
    await serve(home, root, root / "d")
    os.rename(root / "d", root / "old")
    os.symlink("/", root / "d")
    with pytest.raises(FsError):
        await home.directory(tree_path(root / "d" / "etc"))


async def test_a_file_is_opened_and_hashed_once(home: HomeTree, root: Path) -> None:
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


async def test_a_file_that_many_ask_for_at_once_is_hashed_once(home: HomeTree, root: Path) -> None:
    (root / "f").write_bytes(bytes(1_000_000))
    mtime_ns = (root / "f").stat().st_mtime_ns
    digests: list[Digest] = []

    async def ask() -> None:
        fd, digest = await home.open_file(tree_path(root / "f"), 1_000_000, mtime_ns)
        os.close(fd)
        digests.append(digest)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert digests == [digest_of(bytes(1_000_000))] * 5
    assert home.statistics()["hashed"] == 1


async def test_a_cancelled_job_brings_nothing_home(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    job = Job(home, root).write("f", b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await job.end()
    assert not (root / "f").exists()
    assert home.number == 0


async def test_a_version_that_is_gone_is_stale_and_the_journal_says_what_is_there(home: HomeTree, root: Path) -> None:
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


async def test_another_name_for_a_file_does_not_make_it_stale(home: HomeTree, root: Path) -> None:
    (root / "f").write_bytes(b"abc")
    _, _, children = await home.directory(tree_path(root))
    os.link(root / "f", root / "g")
    fd, digest = await home.open_file(tree_path(root / "f"), 3, children[b"f"].mtime_ns)
    os.close(fd)
    assert digest == digest_of(b"abc")


async def test_a_hidden_file_cannot_be_opened(root: Path) -> None:
    (root / "secret").write_bytes(b"s")
    home = HomeTree(TreeConfig(tree_path(root), hidden=(tree_path(root / "secret"),)))
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
        home = HomeTree(config)
        _, _, children = await home.directory(tree_path(root))
        fd, digest = await home.open_file(tree_path(root / "f"), 3, NS)
        os.close(fd)
        assert digest == digest_of(b"abc")
        assert home.statistics()["hashed"] == hashed
        while time.time_ns() < (root / "f").stat().st_ctime_ns + 100_000_000:
            pass  # a digest is saved when its file is old enough that another write would show
        home.close()
    assert children[b"f"].digest == digest


async def test_a_hash_cache_that_is_rubbish_is_done_without(root: Path, tmp_path: Path) -> None:
    (tmp_path / "hashes").write_bytes(b"rubbish" * 1000)
    (root / "f").write_bytes(b"abc")
    home = HomeTree(TreeConfig(tree_path(root), hash_cache=tmp_path / "hashes"))
    _, _, children = await home.directory(tree_path(root))
    assert children[b"f"].size == 3
    home.close()


# -- noticing ---------------------------------------------------------------------------------------------------------


async def test_what_was_done_before_a_drain_is_in_the_journal_after_it(home: HomeTree, root: Path) -> None:
    (root / "edited").write_bytes(b"1")
    await serve(home, root)
    (root / "edited").write_bytes(b"12")
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "f").write_bytes(b"3")
    assert home.drain() == 1
    changes = await changed_since(home, root, 0)
    assert changes.keys() >= {"edited", "d", "d/sub", "d/sub/f"}
    assert home.drain() == 1


async def test_a_file_written_but_not_closed_is_noticed(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    with open(root / "log", "wb", buffering=0) as f:
        home.drain()
        number = home.number
        f.write(b"line")
        home.drain()
        attr = (await changed_since(home, root, number))["log"]
    assert attr is not None
    assert attr.size == 4


async def test_small_files_written_here_go_along_with_the_news_of_them(home: HomeTree, root: Path) -> None:
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
async def test_of_a_version_that_is_gone_no_content_is_told(home: HomeTree, root: Path, how: str) -> None:
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


async def test_not_more_than_a_job_can_wait_for_goes_along(home: HomeTree, root: Path) -> None:
    await home.directory(tree_path(root))
    at = home.drain()
    for number in range(20):
        (root / f"f{number}").write_bytes(b"x" * 100)
    home.drain()
    contents = home.contents_since(at, 100, 1000, 99)
    assert sum(map(len, contents.values())) == 1000


async def test_not_more_files_are_opened_than_a_master_has_time_for(
    home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch
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


async def test_what_was_done_through_one_name_of_a_file_is_noticed_for_all(home: HomeTree, root: Path) -> None:
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
    home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose clock ticks slowly, the stamp stays: the same size, in the same tick."""
    for module in (truth, directory_reader, file_contents):
        monkeypatch.setattr(module, "stamp_of", lambda st: Stamp(st.st_dev, st.st_ino, st.st_size, 1, 1))
    for module in (directory_reader, file_contents):
        monkeypatch.setattr(module, "is_racy", lambda *_: True)
    (root / "d").mkdir()
    (root / "f").write_bytes(b"old")
    os.link(root / "f", root / "d" / "g")
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
    for name, path in paths.items():
        attr = changed[name]
        assert attr is not None
        assert attr.digest is None
        fd, digest = await home.open_file(path, st.st_size, 1)
        os.close(fd)
        assert digest == digest_of(b"new")


async def test_the_names_of_one_file_are_told_as_one_while_they_are(home: HomeTree, root: Path) -> None:
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


async def test_what_nobody_was_shown_is_no_news(home: HomeTree, root: Path) -> None:
    (root / "d").mkdir()
    await serve(home, root)
    (root / "d" / "f").write_bytes(b"1")
    assert home.drain() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_directory_that_became_readable_shows_what_is_in_it(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    (root / "d").chmod(0)
    home.drain()
    (root / "d").chmod(0o755)
    home.drain()
    assert "d/f" in await changed_since(home, root, 0)


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
    home = HomeTree(TreeConfig(tree_path(root), exports=(tree_path(usr),)))
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
    assert await home.recheck_settled() == number
    home.close()


async def test_the_settled_tree_is_compared_when_asked_where_it_cannot_be_watched(
    usr: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, path: object, mask: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inotify_simple.INotify, "add_watch", full)
    home = HomeTree(TreeConfig(tree_path(root), exports=(tree_path(usr),)))
    await serve(home, usr / "lib")
    change_what_is_settled(usr)
    assert home.drain() == 0
    assert await home.recheck_settled() > 0
    assert (await changed_since(home, usr, 0)).keys() == SETTLED_CHANGES
    number = home.number
    assert await home.recheck_settled() == number
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
        home = HomeTree(TreeConfig(tree_path(root)))
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
    home = HomeTree(TreeConfig(tree_path(root), watched=(tree_path(crates),)))
    await serve(home, crates)
    (crates / "new").mkdir()
    (crates / "new" / "lib.rs").write_bytes(b"1")
    assert home.drain() > 0
    changed_paths = {os.path.basename(os.fsdecode(c.path)) for s in home.changesets_since(0) for c in s.changes}
    assert changed_paths >= {"new", "lib.rs"}
    written = Change(tree_path(crates / "made"), Attr(stat.S_IFDIR | 0o755, 4096, NS))
    with pytest.raises(FsError):
        await home.bring_home([written], {}, Timing(0, 0, 0, 0, home.number))
    home.close()


async def test_a_settled_file_that_changed_in_place_is_found(tmp_path: Path, root: Path) -> None:
    (tmp_path / "tool").write_bytes(b"1")
    home = HomeTree(TreeConfig(tree_path(root), exports=(tree_path(tmp_path),)))
    await serve(home, tmp_path)
    with open(tmp_path / "tool", "r+b") as f:
        f.write(b"2")
    assert home.drain() == 1
    assert await home.recheck_settled() == 1
    home.close()


async def test_files_that_nobody_has_hashed_cost_the_store_nothing_when_they_are_listed_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "f").write_bytes(b"text")
    (root / "g").write_bytes(b"text")
    forgotten: list[Stamp] = []
    monkeypatch.setattr(Hashes, "forget", lambda _, stamp: forgotten.append(stamp))
    tree = HomeTree(TreeConfig(tree_path(root), hash_cache=tmp_path / "hashes"))
    try:
        await serve(tree, root)
        tree.drain()
        tree._truth.watches.list_always(tree_path(root))  # this happens if there are no watches left
        os.chmod(root / "g", 0o600)
        tree.drain()
        assert await agrees_with_the_disk(tree, root)
        assert forgotten == []
    finally:
        tree.close()


async def test_what_is_done_to_one_name_of_a_symlink_is_seen_of_the_other(home: HomeTree, root: Path) -> None:
    os.symlink("q", root / "one")
    os.link(root / "one", root / "two", follow_symlinks=False)
    await serve(home, root)
    os.utime(root / "one", ns=(5, 5), follow_symlinks=False)
    home.drain()
    attr = (await changed_since(home, root, 0))["two"]
    assert attr is not None
    assert (attr.mtime_ns, attr.nlink) == (5, 2)


# -- bringing home ----------------------------------------------------------------------------------------------------


async def test_everything_that_a_job_can_make_comes_home(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    job = Job(home, root).mkdir("d").write("d/f", b"content", 0o750).write("empty")
    job.change("d/l", Attr(stat.S_IFLNK | 0o777, 1, 12 * NS, None, b"f"))
    job.change("d/h", Attr(stat.S_IFREG | 0o750, 7, 1, digest_of(b"content")), link_to="d/f")
    job.change("d/p", Attr(stat.S_IFIFO | 0o622, 0, 13 * NS))
    brought = await job.end()
    assert (root / "d" / "f").read_bytes() == b"content"
    assert stat.S_IMODE((root / "d" / "f").stat().st_mode) == 0o750
    assert (root / "empty").read_bytes() == b""
    assert os.readlink(root / "d" / "l") == "f"
    assert (root / "d" / "l").lstat().st_mtime_ns == 12 * NS
    assert (root / "d" / "h").samefile(root / "d" / "f")
    assert stat.S_ISFIFO((root / "d" / "p").stat().st_mode)
    assert stat.S_IMODE((root / "d" / "p").stat().st_mode) == 0o622
    assert brought == BroughtHome(1, ())
    assert await agrees_with_the_disk(home, root)
    assert await agrees_with_the_disk(home, root / "d")
    assert home.drain() == 1, "our own events are no changes"
    assert os.listdir(root / ".termite-staging") == ["now"]


async def test_the_journal_knows_the_digests_of_results(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).write("f", b"content").end()
    attr = (await changed_since(home, root, 0))["f"]
    assert attr is not None
    assert attr.digest == digest_of(b"content")
    assert attr.mtime_ns == (root / "f").stat().st_mtime_ns


async def test_what_came_home_is_looked_at_once(home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watches report it too, but the next drain need not check it again."""
    await serve(home, root)
    await Job(home, root).mkdir("d").write("d/f", b"content").write("f", b"content").end()
    checked: list[bytes] = []
    read_entries = home._truth._reader.read_entries

    def read_and_note(directory: bytes, fd: int, names: Iterable[bytes]) -> dict[bytes, Seen]:
        checked.append(directory)
        return read_entries(directory, fd, names)

    monkeypatch.setattr(home._truth._reader, "read_entries", read_and_note)
    number = home.drain()
    assert checked == []
    (root / "f").write_bytes(b"now by somebody else")
    assert home.drain() == number + 1
    assert checked == [tree_path(root)]


OURS, THEIRS = b"of the job", b"of no job."


def write_as_if_it_were_not(path: Path, content: bytes) -> None:
    """Write in the tick in which the file was made, so that only the watches show it."""
    st = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("step", ["_place", "close"])
@pytest.mark.parametrize("content", [THEIRS, b"longer than " + OURS])
@pytest.mark.parametrize("overflows", [False, True])
async def test_who_writes_to_a_result_at_once_is_heard(
    home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, content: bytes, overflows: bool
) -> None:
    await serve(home, root)

    def just_after(done: Callable[..., None]) -> Callable[..., None]:
        def do(*args: object) -> None:
            done(*args)
            write_as_if_it_were_not(root / "f", content)
            if overflows:
                for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 1):
                    os.utime(root / ("g" if number % 2 else "h"))  # two names in turn, so that events are not merged

        return do

    for name in ("g", "h"):
        (root / name).touch()
    monkeypatch.setattr(Replay, step, just_after(getattr(Replay, step)))
    await Job(home, root).write("f", OURS).end()
    home.drain()
    assert await served_digest(home, root, "f") == digest_of(content)


@pytest.mark.parametrize("mtime_ns", [-NS, NS])  # the mtime of the result, from now
async def test_who_writes_to_a_result_in_a_new_directory_at_once_is_heard(
    home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch, mtime_ns: int
) -> None:
    """The writer sets an old time, as `cp -p` does, or that of the result."""
    await serve(home, root)
    place = Replay._place

    def place_and_write(self: Replay, path: bytes, staged: bytes) -> None:
        place(self, path, staged)
        write_as_if_it_were_not(root / "d/f", THEIRS)
        if mtime_ns < 0:
            os.utime(root / "d/f", (0, 0))

    monkeypatch.setattr(Replay, "_place", place_and_write)
    await Job(home, root).mkdir("d").write("d/f", OURS, mtime_ns=time.time_ns() + mtime_ns).end()
    home.drain()
    assert await served_digest(home, root / "d", "f") == digest_of(THEIRS)


async def test_a_result_in_a_new_directory_is_known_all_the_same(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).mkdir("d").write("d/f", OURS, mtime_ns=time.time_ns() - NS).end()
    _, _, children = await home.directory(tree_path(root / "d"))
    assert children[b"f"].digest == digest_of(OURS)


async def served_digest(home: HomeTree, directory: Path, name: str) -> Digest:
    _, _, children = await home.directory(tree_path(directory))
    attr = children[os.fsencode(name)]
    fd, digest = await home.open_file(tree_path(directory / name), attr.size, attr.mtime_ns)
    os.close(fd)
    assert attr.digest in (None, digest)
    return digest


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
async def test_what_cannot_be_placed_does_not_stay_staged(
    home: HomeTree, root: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    (root / "d").mkdir()
    await serve(home, root, root / "d")
    publish = Replay.publish

    def lose_and_publish(self: Replay, plan: Plan) -> None:
        (root / "d").rmdir()
        publish(self, plan)

    monkeypatch.setattr(Replay, "publish", lose_and_publish)
    attr = Attr(kind | 0o777, 1, time.time_ns(), target=b"f" if kind == stat.S_IFLNK else b"")
    with pytest.raises(FsError):
        await Job(home, root).change("d/new", attr).end()
    assert os.listdir(root / ".termite-staging") == ["now"]


async def test_a_staged_file_comes_home_under_all_its_names(home: HomeTree, root: Path) -> None:
    content = os.urandom(300_000)
    writer = home.staging_file()
    writer.write(content[:1000])
    writer.write(content[1000:])
    job = Job(home, root).write("a", content).write("b", content, 0o755)
    job.contents = {digest_of(content).sha256: writer.finish(digest_of(content))}
    await job.end()
    assert (root / "a").read_bytes() == (root / "b").read_bytes() == content
    assert not (root / "a").samefile(root / "b")
    assert os.listdir(root / ".termite-staging") == ["now"]


async def test_a_content_that_is_not_what_was_promised_is_refused(home: HomeTree, root: Path) -> None:
    writer = home.staging_file()
    writer.write(b"other")
    with pytest.raises(RemoteProtocolError):
        writer.finish(digest_of(b"content"))
    writer.discard()
    assert os.listdir(root / ".termite-staging") == ["now"]


async def test_a_changed_mode_or_time_does_not_touch_the_content(home: HomeTree, root: Path) -> None:
    (root / "f").write_bytes(b"content")
    await serve(home, root)
    before = (root / "f").stat()
    attr = Attr(stat.S_IFREG | 0o755, 7, 5 * NS)
    await Job(home, root).change("f", attr, content=False).change("gone", attr, content=False).end()
    after = (root / "f").stat()
    assert (after.st_ino, stat.S_IMODE(after.st_mode), after.st_mtime_ns) == (before.st_ino, 0o755, 5 * NS)
    assert not (root / "gone").exists()


async def test_a_file_that_was_written_again_with_the_same_content_stays_in_place(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).write("f", b"content").end()
    before = (root / "f").stat()
    await Job(home, root).write("f", b"content", 0o755).end()
    after = (root / "f").stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
    assert stat.S_IMODE(after.st_mode) == 0o755
    changes = home.changesets_since(1)[0].changes
    assert [c.content for c in changes if c.path.endswith(b"/f")] == [False]


async def test_deleting_twice_is_deleting(home: HomeTree, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "f").write_bytes(b"1")
    await serve(home, root, root / "d", root / "d" / "sub")
    await Job(home, root).delete("d/sub/f", "d/sub", "d", "never", "never/was").end()
    await Job(home, root).delete("d/sub/f", "d").end()
    assert not (root / "d").exists()
    assert (await changed_since(home, root, 0))["d"] is None
    assert home.drain() == home.number


async def test_what_another_job_put_into_a_deleted_directory_stays(home: HomeTree, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "old").write_bytes(b"1")
    (root / "d" / "old").write_bytes(b"1")
    await serve(home, root, root / "d", root / "d" / "sub")
    deleting = Job(home, root).delete("d")
    await Job(home, root).write("d/sub/new", b"2").end()
    await deleting.end()
    assert sorted(os.listdir(root / "d")) == ["sub"]
    assert os.listdir(root / "d" / "sub") == ["new"]
    assert await agrees_with_the_disk(home, root / "d")
    assert await agrees_with_the_disk(home, root / "d" / "sub")


@pytest.mark.parametrize("names_it", [True, False])
async def test_a_file_takes_the_place_of_a_directory_and_back(home: HomeTree, root: Path, names_it: bool) -> None:
    (root / "x").mkdir()
    (root / "x" / "in").write_bytes(b"1")
    await serve(home, root, root / "x")
    job = Job(home, root)
    if names_it:
        job.delete("x")
    await job.write("x", b"file").end()
    assert (root / "x").read_bytes() == b"file"
    job = Job(home, root)
    if names_it:
        job.delete("x")
    await job.mkdir("x").write("x/again", b"2").end()
    assert os.listdir(root / "x") == ["again"]
    assert await agrees_with_the_disk(home, root / "x")
    assert home.drain() == home.number


async def test_a_directory_removed_and_made_again_is_empty_but_for_the_new(home: HomeTree, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "old").write_bytes(b"1")
    await serve(home, root, root / "d", root / "d" / "sub")
    await Job(home, root).delete("d").mkdir("d").write("d/new", b"2").end()
    assert os.listdir(root / "d") == ["new"]
    assert await agrees_with_the_disk(home, root / "d")
    (root / "d" / "later").write_bytes(b"3")
    home.drain()
    assert await agrees_with_the_disk(home, root / "d"), "the new directory is watched"


async def test_nothing_is_written_through_a_symlink(home: HomeTree, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", root / "d")
    os.symlink(tmp_path / "outside" / "f", root / "f")
    await serve(home, root)
    with pytest.raises(FsError):
        await Job(home, root).write("d/f", b"1").end()
    with pytest.raises(FsError):
        await Job(home, root).change("l", Attr(stat.S_IFREG, 1, 1), link_to="d/f").end()
    await Job(home, root).delete("d/f").write("f", b"2").end()
    assert os.listdir(tmp_path / "outside") == []
    assert (root / "f").read_bytes() == b"2"


async def test_a_directory_that_the_job_made_over_a_symlink_takes_its_place(home: HomeTree, root: Path) -> None:
    os.symlink("/", root / "d")
    await serve(home, root)
    await Job(home, root).delete("d").mkdir("d").write("d/f", b"1").end()
    assert os.listdir(root / "d") == ["f"]
    assert not (root / "d").is_symlink()


async def test_a_read_only_directory_is_written_as_the_job_wrote_it(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).mkdir("d", 0o555).write("d/f", b"1", 0o444).end()
    await Job(home, root).write("d/g", b"2").end()
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o555
    assert sorted(os.listdir(root / "d")) == ["f", "g"]
    await Job(home, root).delete("d").end()
    assert not (root / "d").exists()


async def test_a_full_disk_leaves_everything_as_it_was(home: HomeTree, root: Path) -> None:
    (root / "old").write_bytes(b"old")
    (root / "closed").mkdir(0o555)
    (root / "deleted").write_bytes(b"old")
    await serve(home, root)
    job = Job(home, root).mkdir("d").write("d/small", b"1").write("old", b"x" * 60_000).delete("deleted")
    job.write("closed/f", b"2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(FsError):
            await job.end()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(root)) == [".termite-staging", "closed", "deleted", "old"]
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o555
    assert (root / "old").read_bytes() == b"old"
    assert os.listdir(root / ".termite-staging") == ["now"]
    assert home.number == 0


async def test_a_result_in_the_staging_directory_is_refused(home: HomeTree, root: Path) -> None:
    for name in (".termite-staging/x", ".termite-socket"):
        with pytest.raises(FsError):
            await Job(home, root).write(name, b"1").end()


async def test_names_need_not_be_text(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    name = os.fsdecode(b"new\nline \xff\xfe")
    await Job(home, root).mkdir(name).write(name + "/x", b"1").end()
    assert (root / name / "x").read_bytes() == b"1"
    assert await agrees_with_the_disk(home, root / name)


async def test_two_jobs_that_write_one_path_are_named(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    one, two = Job(home, root).write("f", b"one"), Job(home, root).write("f", b"two").write("g", b"mine")
    assert (await one.end()).conflicts == ()
    assert (await two.end()).conflicts == (tree_path(root / "f"),)
    assert (root / "f").read_bytes() == b"two"
    assert (await Job(home, root).write("f", b"three").end()).conflicts == ()


async def test_results_lie_between_what_was_there_and_what_comes_after(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    for offset_ns in (0, -NS, NS):
        (root / "input").write_bytes(b"1")
        job = Job(home, root).write("first", b"%d" % offset_ns).write("second", b"%d" % offset_ns)
        await job.end(offset_ns)
        (root / "after").write_bytes(b"1")
        times = [(root / name).stat().st_mtime_ns for name in ("input", "first", "second", "after")]
        assert times == sorted(times)


async def test_a_directorys_time_is_not_set_back_by_a_job_that_was_slower(home: HomeTree, root: Path) -> None:
    (root / "d").mkdir()
    await serve(home, root, root / "d")
    slow = Job(home, root)
    slow.mkdir("d").write("d/slow", b"1")
    await Job(home, root).write("d/fast", b"1").end()
    (root / "d" / "local").write_bytes(b"1")
    before = (root / "d").stat().st_mtime_ns
    await slow.end()
    assert (root / "d").stat().st_mtime_ns == before


async def test_a_directory_that_only_lost_something_has_the_time_of_that(home: HomeTree, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    job = Job(home, root).delete("d/f")
    when_ns = time.time_ns()
    job.change("d", Attr(stat.S_IFDIR | 0o755, 0, when_ns), content=False)
    await job.end()
    assert (root / "d").stat().st_mtime_ns == when_ns
    await Job(home, root).change("d", Attr(stat.S_IFDIR | 0o711, 0, 8 * NS), content=False).end()
    assert (root / "d").stat().st_mtime_ns == 8 * NS
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711
    assert await agrees_with_the_disk(home, root)


async def test_a_time_set_by_the_job_stays_for_directories_too(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).mkdir("d", mtime_ns=7 * NS).write("d/f", b"1", mtime_ns=9 * 10**18).end()
    assert (root / "d").stat().st_mtime_ns == 7 * NS
    assert (root / "d" / "f").stat().st_mtime_ns == 9 * 10**18


def test_a_killed_masters_staging_is_cleared(root: Path) -> None:
    (root / ".termite-staging" / "7" / "deep").mkdir(parents=True)
    (root / ".termite-staging" / "3").write_bytes(b"half")
    home = HomeTree(TreeConfig(tree_path(root)))
    assert os.listdir(root / ".termite-staging") == ["now"]
    home.close()


async def test_a_thousand_files_come_home_in_one_changeset(home: HomeTree, root: Path) -> None:
    await serve(home, root)
    watches = home.statistics()["watches"]
    job = Job(home, root)
    for d in range(10):
        job.mkdir(f"d{d}")
        for f in range(100):
            job.write(f"d{d}/{f}", b"%d" % f)
    assert (await job.end()).number == 1
    assert home.drain() == 1
    assert home.statistics()["watches"] == watches + 10
