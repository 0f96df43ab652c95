"""Real layers on a plain disk: what they hold, how they are merged, when they go."""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import Stale
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import Directory, File, GetFile
from termite.engine.wire.silence_watch import Patience
from termite.fuse.content.fetch import Fetcher
from termite.fuse.layers import prefetch
from termite.fuse.layers.prefetch import MAX_UNOPENED_VERSIONS, PREFETCHED_FILE_BYTES
from termite.fuse.layers.real_layer_build import MAX_NAMES_WITHOUT_THREAD
from termite.fuse.layers.real_layers import MAX_REAL_FILE_BYTES, RealLayers
from termite.fuse.layers.real_tree import OPAQUE_XATTR, ORIGIN_XATTR
from termite.fuse.sandbox.scratch import Scratch
from termite.fuse.view.moved_names import MAX_LAYERS
from termite.fuse.view.view_tree import Tree
from termite.fuse.view.views import Layer

NS = 10**18 + 5
DIRECTORY = Attr(stat.S_IFDIR | 0o750, 0, NS)


class FakeConnection:
    """A master with some files, which notes the paths that it is asked for."""

    def __init__(self, files: dict[bytes, bytes]) -> None:
        self.asked: list[bytes] = []
        self.patience = Patience()
        self._files = files

    async def request(self, message: Message, on_chunk: object = None) -> Message:
        assert isinstance(message, GetFile)
        self.asked.append(message.path)
        if message.path not in self._files:
            raise Stale(message.path)
        content = self._files[message.path]
        return File(Digest(hashlib.sha256(content).digest(), len(content)), content)


class Home:
    """A tree `d` in the mirror's eyes, a store, and the layers over it."""

    def __init__(self, directory: Path, files: dict[bytes, bytes] | None = None) -> None:
        (directory / "scratch").mkdir()
        self.tree, self.cas = Tree(b"", 0), Cas(directory / "cas")
        self.connection = FakeConnection(files or {})
        fetcher = Fetcher(self.connection, self.tree, self.cas)  # type: ignore[arg-type]  # the fake has what is used
        self.scratch = Scratch(Path("/unused"), directory / "scratch")
        self.layers = RealLayers(self.tree, self.cas, fetcher, self.scratch)
        self.top = directory / "scratch" / "layers"
        for path, children in ((b"", {b"d": DIRECTORY}), (b"d", {b"old": self.file(b"old")})):
            self.tree.asked(path)
            self.tree.answered(path, Directory(0, DIRECTORY, children))
            self.tree.base_listing(self.tree.open_view().base, path)

    def file(self, content: bytes, mode: int = 0o640, *, is_here: bool = True) -> Attr:
        digest = self.cas.put(content) if is_here else Digest(b"?" * 32, len(content))
        return Attr(stat.S_IFREG | mode, len(content), NS, digest)

    def take_in(self, *changes: tuple[bytes, Attr | None]) -> None:
        self.tree.take_in([Changeset(self.tree.number + 1, tuple(Change(path, attr) for path, attr in changes))])

    async def change(self, *changes: tuple[bytes, Attr | None]) -> None:
        self.take_in(*changes)
        await self.layers.settle()

    @property
    def stack(self) -> list[Layer]:
        return self.tree.moves.stack

    def path(self, name: str, layer: int = 0) -> Path:
        return self.top / self.stack[layer].name / name


def names(layer: Layer) -> set[bytes]:
    return {directory + b"/" + name for directory, listing in layer.listings.items() for name in listing}


async def test_what_moves_stands_on_disk_as_it_is_at_home_and_no_delta_is_left(tmp_path: Path) -> None:
    home = Home(tmp_path)
    link = Attr(stat.S_IFLNK | 0o777, 3, NS, target=b"new")
    await home.change(
        (b"d/new", home.file(b"text", 0o1751)),
        (b"d/empty", home.file(b"")),
        (b"d/link", link),
        (b"d/sub", DIRECTORY),
        (b"d/old", None),
    )
    assert home.path("d/new").read_bytes() == b"text"
    assert home.path("d/empty").read_bytes() == b""
    assert os.readlink(home.path("d/link")) == "new"
    for name, mode in (("d/new", stat.S_IFREG | 0o1751), ("d/sub", DIRECTORY.mode), ("d", DIRECTORY.mode)):
        status = home.path(name).stat()
        assert (status.st_mode, status.st_mtime_ns) == (mode, NS), name
    assert home.path("d/link").lstat().st_mtime_ns == NS
    view = home.tree.open_view()
    assert view.delta is None
    assert view.layers() == f"../layers/{home.stack[0].name}:base/{view.base.name}"


@pytest.mark.needs_root("makes whiteouts, as mirrors do in their namespaces")
async def test_a_name_that_is_gone_is_a_whiteout(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.change((b"d/old", None))
    status = home.path("d/old").lstat()
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, 0)
    assert os.getxattr(home.path("d"), ORIGIN_XATTR) == b""


async def test_what_cannot_be_real_stays_with_the_mirror_until_it_can(tmp_path: Path) -> None:
    home = Home(tmp_path)
    absent = home.file(b"x" * (PREFETCHED_FILE_BYTES + 1), is_here=False)
    linked = Attr(stat.S_IFREG | 0o644, 1, NS, home.cas.put(b"1"), nlink=2, link_id=7)
    large = Attr(stat.S_IFREG | 0o644, MAX_REAL_FILE_BYTES + 1, NS, Digest(b"?" * 32, MAX_REAL_FILE_BYTES + 1))
    fifo = Attr(stat.S_IFIFO | 0o644, 0, NS)
    await home.change((b"d/absent", absent), (b"d/linked", linked), (b"d/large", large), (b"d/fifo", fifo))
    view = home.tree.open_view()
    assert view.delta is not None
    assert set(view.delta.listings[b"d"]) == {b"absent", b"linked", b"large", b"fifo"}
    home.tree.learn_digest(absent, home.cas.put(b"x" * (PREFETCHED_FILE_BYTES + 1)))
    home.layers.note_opened(b"d/absent", absent)
    await home.layers.settle()
    assert home.path("d/absent").stat().st_size == PREFETCHED_FILE_BYTES + 1


async def test_setuid_and_setgid_files_stay_with_the_mirror_and_a_setgid_directory_is_as_at_home(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    shared = Attr(stat.S_IFDIR | 0o2775, 0, NS)
    files = {b"setuid": home.file(b"1", 0o4755), b"setgid": home.file(b"2", 0o2755), b"both": home.file(b"3", 0o6755)}
    await home.change((b"d/shared", shared), *((b"d/shared/" + name, attr) for name, attr in files.items()))
    view = home.tree.open_view()
    assert view.delta is not None
    assert view.delta.listings[b"d/shared"] == files
    assert home.path("d/shared").stat().st_mode == shared.mode
    assert os.listdir(home.path("d/shared")) == []


async def test_what_no_disk_takes_stays_with_the_mirror(tmp_path: Path) -> None:
    home = Home(tmp_path)
    odd = {
        b"n" * 256: home.file(b"1"),
        b"nul": Attr(stat.S_IFLNK | 0o777, 3, NS, target=b"a\0b"),
        b"empty": Attr(stat.S_IFLNK | 0o777, 0, NS),
    }
    await home.change((b"d/even", home.file(b"1")), *((b"d/" + name, attr) for name, attr in odd.items()))
    assert home.path("d/even").read_bytes() == b"1"
    view = home.tree.open_view()
    assert view.delta is not None
    assert view.delta.listings[b"d"] == odd


async def test_a_content_that_came_with_the_news_is_real_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    attr = Attr(stat.S_IFREG | 0o750, 4, NS)
    home.take_in((b"d/new", attr), (b"d/later", attr))
    home.tree.take_contents({b"d/new": b"text", b"d/later": b"text", b"d/nowhere": b"text", b"d/old": b"text"}, 1)
    await home.change((b"d/later", Attr(attr.mode, 4, NS + 1)))
    status = home.path("d/new").stat()
    assert home.path("d/new").read_bytes() == b"text"
    assert (status.st_mode, status.st_mtime_ns) == (attr.mode, NS)
    view = home.tree.open_view()
    was = home.tree.was_at(view, b"d/new")
    assert was is not None and was.digest == Digest(hashlib.sha256(b"text").digest(), 4)
    assert view.delta is not None
    assert set(view.delta.listings[b"d"]) == {b"later"}, "what came was of a version that is gone"


@pytest.mark.parametrize(("number", "content"), [(0, b"text"), (2, b"text"), (1, b"texts"), (1, b"")])
async def test_a_content_of_another_moment_or_size_is_not_taken(tmp_path: Path, number: int, content: bytes) -> None:
    home = Home(tmp_path)
    home.take_in((b"d/new", Attr(stat.S_IFREG | 0o644, 4, NS)))
    home.tree.take_contents({b"d/new": content}, number)
    await home.layers.settle()
    assert not home.stack


async def test_small_files_changed_elsewhere_are_fetched_ahead(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    home = Home(tmp_path, {b"d/f": b"fetched"})
    attr = Attr(stat.S_IFREG | 0o644, 7, NS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(home.layers.keep_fetching)
        await home.change((b"d/f", attr), (b"d/gone-again", Attr(stat.S_IFREG | 0o644, 3, NS)))
        assert home.tree.open_view().delta is not None
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    await home.layers.settle()
    assert home.path("d/f").read_bytes() == b"fetched"
    view = home.tree.open_view()
    assert view.delta is not None
    assert set(view.delta.listings[b"d"]) == {b"f", b"gone-again"}, "a layer above it hides f"
    assert set(home.tree.moves.loose[b"d"]) == {b"gone-again"}


async def test_what_no_job_asks_for_is_not_fetched_ahead_again_and_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    home = Home(tmp_path, {b"d/log": b"entries"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(home.layers.keep_fetching)
        for number in range(5):
            await home.change((b"d/log", Attr(stat.S_IFREG | 0o644, 7, NS + number)))
            await trio.sleep(1)
        assert len(home.connection.asked) == MAX_UNOPENED_VERSIONS
        home.layers.note_opened(b"d/log", Attr(stat.S_IFREG | 0o644, 7, NS + 4))
        await home.change((b"d/log", Attr(stat.S_IFREG | 0o644, 7, NS + 5)))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(home.connection.asked) == MAX_UNOPENED_VERSIONS + 1


async def test_unread_versions_are_counted_of_files_that_are_there(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "REMEMBERED_FILES", 10)
    home = Home(tmp_path, {b"d/%d" % number: b"content" for number in range(100)} | {b"d/log": b"entries"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(home.layers.keep_fetching)
        for version in range(MAX_UNOPENED_VERSIONS):
            await home.change((b"d/log", Attr(stat.S_IFREG | 0o644, 7, NS + version)))
            await trio.sleep(1)
        for number in range(100):
            gone = (b"d/%d" % (number - 1), None)
            await home.change((b"d/%d" % number, Attr(stat.S_IFREG | 0o644, 7, NS)), gone)
            await trio.sleep(1)
            assert home.layers.statistics()["unopened_files"] <= 10
        asked = len(home.connection.asked)
        await home.change((b"d/log", Attr(stat.S_IFREG | 0o644, 7, NS + 9)))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert asked == 100 + MAX_UNOPENED_VERSIONS
    assert len(home.connection.asked) == asked, "the log is there, so its versions are still counted"


async def test_many_changes_make_few_layers_that_show_the_newest(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for turn in range(100):
        await home.change((b"d/f%d" % (turn % 40), home.file(b"%d" % turn)))
        home.layers.discard_unused()
    assert len(home.stack) <= MAX_LAYERS
    for number in range(40):
        newest = next(layer for layer in home.stack if b"d/f%d" % number in names(layer))
        path = home.top / newest.name / "d" / f"f{number}"
        content = path.read_bytes()
        assert path.stat().st_nlink == 1, "a job would see another name"
        assert content == b"%d" % (number + 80 if number < 20 else number + 40)


@pytest.mark.needs_root("makes whiteouts, as mirrors do in their namespaces")
async def test_a_directory_made_again_hides_what_it_had(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.change((b"d/n", DIRECTORY), (b"d/n/first", home.file(b"1")), *_padding(home, 12))
    await home.change((b"d/n", None), *_padding(home, 4))
    await home.change((b"d/n", DIRECTORY), (b"d/n/second", home.file(b"2")))
    view = home.tree.open_view()
    assert home.tree.attr_at(view, b"d/n/first") is None
    assert home.tree.attr_at(view, b"d/n/second") is not None
    await home.change(*_padding(home, 40))
    (merged,) = home.stack
    assert b"d/n" in merged.opaque
    assert os.getxattr(home.path("d/n"), OPAQUE_XATTR) == b"y"
    assert os.listdir(home.path("d/n")) == ["second"], "no layer has the other name any more, so nothing hides it"
    assert home.path("d/n/second").read_bytes() == b"2"


async def test_a_layer_goes_when_it_is_not_in_the_stack_and_no_job_sees_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.change((b"d/f", home.file(b"1")))
    first = home.stack[0].name
    view = home.tree.open_view()
    await home.change((b"d/g", home.file(b"2")))
    assert len(home.stack) == 1
    assert first not in [layer.name for layer in home.tree.pop_unused_layers()]
    home.tree.close_view(view)
    assert [layer.name for layer in home.tree.pop_unused_layers()] == [first]


async def test_a_large_change_is_made_real_in_a_thread_while_other_jobs_go_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    number = 3 * MAX_NAMES_WITHOUT_THREAD
    home.tree.take_in([Changeset(1, tuple(Change(b"d/%d" % i, home.file(b"%d" % i)) for i in range(number)))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(home.layers.settle)
        await trio.testing.wait_all_tasks_blocked()
        await home.layers.settle()  # returns at once
        view = home.tree.open_view()
        assert view.delta is not None
        assert len(view.delta.listings[b"d"]) == number
        assert view.stack == ()
    assert home.tree.open_view().delta is None
    assert home.stack[0].names == number + 1


async def test_a_job_that_is_cancelled_while_a_layer_is_made_leaves_nothing_behind(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.take_in(*((b"d/n%d" % i, home.file(b"", 0o644)) for i in range(MAX_NAMES_WITHOUT_THREAD + 1)))
    with trio.CancelScope() as scope:
        scope.cancel()
        await home.layers.settle()
    assert not home.tree.moves.count()
    assert len(home.stack) == 1


async def test_a_symlink_with_several_names_stays_with_the_mirror(tmp_path: Path) -> None:
    home = Home(tmp_path)
    one = Attr(stat.S_IFLNK | 0o777, 1, NS, target=b"q")
    two = Attr(stat.S_IFLNK | 0o777, 1, NS, target=b"q", nlink=2, link_id=7)
    await home.change((b"d/one", one), (b"d/two", two))
    assert names(home.stack[0]) & {b"d/one", b"d/two"} == {b"d/one"}


async def test_a_disk_that_is_full_turns_layers_off_and_the_mirror_shows_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    os.rmdir(home.top)
    await home.change((b"d/f", home.file(b"1")))
    assert "layers-off" in caplog.text
    view = home.tree.open_view()
    assert view.delta is not None
    assert home.tree.attr_at(view, b"d/f") is not None
    home.take_in((b"d/news", Attr(stat.S_IFREG | 0o644, 4, NS)))
    home.tree.take_contents({b"d/news": b"text"}, 2)
    await home.layers.settle()
    assert not home.tree.moves.contents, "what nobody will use is not kept"


def _padding(home: Home, number: int) -> Iterable[tuple[bytes, Attr]]:
    return [(b"d/pad%d" % i, home.file(b"%d" % number)) for i in range(number)]
