"""A missing fact is fetched once at a time, however many jobs need it or give up."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import FsError, Reason, RemoteProtocolError, Retryable
from termite.engine.model import Attr, Digest
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.frames import pack_piece
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import Directory, Done, File, GetFile
from termite.engine.wire.silence_watch import Patience
from termite.fuse.content import fetch as fetch_module
from termite.fuse.content import local_copy
from termite.fuse.content.fetch import VERIFY_WITHOUT_THREAD_BYTES, Fetcher
from termite.fuse.content.local_copy import WORTH_BYTES, find_local_copy
from termite.fuse.view.inodes import Inodes, Node
from termite.fuse.view.view_tree import Tree

DIRECTORY = Directory(0, Attr(stat.S_IFDIR | 0o755, 0, 0), {})


class FakeConnection:
    """A connection that answers with `replies`, in order, when `go` is set."""

    def __init__(self, *replies: Message | Exception, chunks: tuple[bytes, ...] = ()) -> None:
        self.asked: list[Message] = []
        self.patience = Patience()
        self.go = trio.Event()
        self._replies = list(replies)
        self._chunks = chunks

    async def request(self, message: Message, on_chunk: Callable[[bytes], Awaitable[None]] | None = None) -> Message:
        self.asked.append(message)
        await self.go.wait()
        if on_chunk is not None:
            for chunk in self._chunks:
                await on_chunk(pack_piece(chunk))
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def fetcher(connection: FakeConnection, tmp_path: Path, root: bytes = b"") -> tuple[Fetcher, Tree, Cas]:
    tree, cas = Tree(root, 0), Cas(tmp_path)
    return Fetcher(connection, tree, cas), tree, cas  # type: ignore[arg-type]  # the fake has the functions that are used


def node(size: int) -> Node:
    return Inodes().file(b"d/f", Attr(stat.S_IFREG | 0o644, size, 7))


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


async def test_many_that_need_one_directory_ask_once(tmp_path: Path) -> None:
    connection = FakeConnection(DIRECTORY)
    fetch, tree, _ = fetcher(connection, tmp_path)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(fetch.directory, b"")
        await trio.testing.wait_all_tasks_blocked()
        connection.go.set()
    assert tree.is_known(b"")
    assert len(connection.asked) == 1


async def test_when_the_one_that_asked_gives_up_the_next_one_asks(tmp_path: Path) -> None:
    connection = FakeConnection(DIRECTORY)
    fetch, tree, _ = fetcher(connection, tmp_path)
    async with trio.open_nursery() as others:
        async with trio.open_nursery() as first:
            first.start_soon(fetch.directory, b"")
            await trio.testing.wait_all_tasks_blocked()
            others.start_soon(fetch.directory, b"")
            await trio.testing.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        connection.go.set()
    assert tree.is_known(b"")
    assert len(connection.asked) == 2


async def test_a_failure_is_everybodys_own_and_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = FakeConnection(FsError(5), DIRECTORY)
    connection.go.set()
    fetch, tree, _ = fetcher(connection, tmp_path)
    with pytest.raises(FsError):
        await fetch.directory(b"")
    await fetch.directory(b"")
    assert tree.is_known(b"")
    assert fetch.statistics()["fetching"] == 0


class SlowConnection:
    """A connection that takes `pause_s` for each chunk of a file, and never lists a directory."""

    def __init__(self, content: bytes, pause_s: float) -> None:
        self._content = content
        self._pause_s = pause_s
        self.patience = Patience()
        self.asked = 0

    async def request(self, message: Message, on_chunk: Callable[[bytes], Awaitable[None]] | None = None) -> Message:
        self.asked += 1
        if on_chunk is None:
            await trio.sleep_forever()
        assert on_chunk is not None
        for byte in self._content:
            await trio.sleep(self._pause_s)
            self.patience.note_piece()
            await on_chunk(pack_piece(bytes([byte])))
        return File(digest_of(self._content))


async def test_a_transfer_may_take_longer_than_the_silence_that_is_allowed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    content = b"a large file on a slow line"
    tree, cas = Tree(b"", 0), Cas(tmp_path)
    fetch = Fetcher(SlowConnection(content, 0.9), tree, cas, silence_s=1.0)  # type: ignore[arg-type]  # as above
    file = node(len(content))
    await fetch.content(file)
    assert trio.current_time() == pytest.approx(0.9 * len(content))
    path = cas.path(digest_of(content))
    assert path is not None
    assert path.read_bytes() == content


async def test_data_beyond_what_the_store_may_have_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is evicted later, and nobody knows how much of a file is holes."""
    monkeypatch.setattr(fetch_module, "LARGE_BYTES", 2000)
    cas = Cas(tmp_path, max_bytes=1000)
    chunks = (b"x" * 1500, b"y" * 1500, b"z" * 1500)
    connection = FakeConnection(File(digest_of(b"".join(chunks))), chunks=chunks)
    connection.go.set()
    fetch = Fetcher(connection, Tree(b"", 0), cas)  # type: ignore[arg-type]  # as above
    with pytest.raises(Retryable) as refused:
        await fetch.content(node(4500))
    assert refused.value.reason is Reason.DISK_FULL
    assert cas.statistics()["added"] == 0


async def test_a_line_that_is_busy_with_a_large_file_is_not_silent_for_others(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    content = b"12345"
    fetch = Fetcher(SlowConnection(content, 0.9), Tree(b"", 0), Cas(tmp_path), silence_s=1.0)  # type: ignore[arg-type]
    ended_s = []

    async def list_directory() -> None:
        with pytest.raises(Retryable):
            await fetch.directory(b"")
        ended_s.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(list_directory)
        await fetch.content(node(len(content)))
    assert ended_s == [pytest.approx(0.9 * len(content) + 1.0)]


async def test_a_silent_master_fails_everybody_who_waits_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    connection = SlowConnection(b"x", 99.0)
    fetch = Fetcher(connection, Tree(b"", 0), Cas(tmp_path), silence_s=1.0)  # type: ignore[arg-type]
    file = node(1)

    async def wait() -> None:
        with pytest.raises(Retryable) as caught:
            await fetch.content(file)
        assert caught.value.reason is Reason.NO_ANSWER
        assert trio.current_time() == pytest.approx(1.0)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert connection.asked == 1
    assert [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("inline", [True, False], ids=["in the message", "in chunks"])
async def test_a_content_is_in_the_store_afterwards_and_never_asked_for_again(tmp_path: Path, inline: bool) -> None:
    content = b"some content"
    reply = File(digest_of(content), content if inline else None)
    connection = FakeConnection(reply, chunks=() if inline else (content[:4], content[4:]))
    connection.go.set()
    fetch, tree, cas = fetcher(connection, tmp_path)
    file = node(len(content))
    await fetch.content(file)
    await fetch.content(file)
    path = cas.path(digest_of(content))
    assert path is not None
    assert path.read_bytes() == content
    assert connection.asked == [GetFile(b"d/f", len(content), 7)]
    assert tree.digest_of(file.attr) == digest_of(content)


@pytest.mark.logs("master-protocol-error")
@pytest.mark.parametrize("reply", [File(digest_of(b"other"), b"content"), File(digest_of(b"other")), Done()])
async def test_a_wrong_answer_breaks_the_lease(tmp_path: Path, reply: Message) -> None:
    connection = FakeConnection(reply, chunks=(b"content",))
    connection.go.set()
    fetch, _, cas = fetcher(connection, tmp_path)
    file = node(7)
    with pytest.raises(RemoteProtocolError):
        await fetch.content(file)
    assert fetch.broken.is_set()
    assert not file.is_present
    assert cas.path(digest_of(b"other")) is None


def settled(path: Path, size: int) -> Node:
    """Return a file of the master with the path of a file on this machine."""
    return Node(5, os.fsencode(path).lstrip(b"/"), Attr(stat.S_IFREG | 0o644, size, 7))


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a directory that counts as root's, which everybody may read."""
    monkeypatch.setattr(local_copy, "PERSONAL", ())
    monkeypatch.setattr(local_copy, "_own_uid", lambda: -1)
    path = Path(tempfile.mkdtemp(prefix="termite-public-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def test_a_content_that_this_machine_has_at_the_same_path_is_taken_from_there(
    tmp_path: Path, public: Path
) -> None:
    content = b"x" * (WORTH_BYTES + 1)
    (public / "cc1").write_bytes(content)
    connection = FakeConnection(File(digest_of(content)))
    connection.go.set()
    fetch, _, cas = fetcher(connection, tmp_path / "cas", root=b"home")
    wanted = settled(public / "cc1", len(content))
    await fetch.content(wanted)
    (asked,) = connection.asked
    assert isinstance(asked, GetFile)
    assert asked.candidate == digest_of(content)
    assert wanted.digest == digest_of(content)
    assert cas.path(digest_of(content)) is not None
    assert fetch.statistics()["file_bytes"] == 0


async def test_another_content_at_the_same_path_is_not_taken(tmp_path: Path, public: Path) -> None:
    content = b"x" * (WORTH_BYTES + 1)
    (public / "cc1").write_bytes(b"y" * len(content))
    connection = FakeConnection(File(digest_of(content)), chunks=(content,))
    connection.go.set()
    fetch, _, cas = fetcher(connection, tmp_path / "cas", root=b"home")
    wanted = settled(public / "cc1", len(content))
    await fetch.content(wanted)
    found = cas.path(digest_of(content))
    assert found is not None
    assert found.read_bytes() == content
    (asked,) = connection.asked
    assert isinstance(asked, GetFile)
    assert asked.candidate == digest_of(b"y" * len(content))
    assert fetch.statistics()["files_of_ours"] == 0


@pytest.mark.parametrize("kind", ["none", "directory", "fifo", "other size", "small"])
def test_what_is_no_such_file_here_is_no_local_copy(public: Path, kind: str) -> None:
    path, size = public / "f", WORTH_BYTES + 1
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "other size":
            path.write_bytes(b"x" * (size + 1))
        case "small":
            size = 10
            path.write_bytes(b"x" * size)
    assert find_local_copy(os.fsencode(path).lstrip(b"/"), size) is None


# -- contents that the store has already ----------------------------------------------------------------------------


def stored(cas: Cas, content: bytes) -> tuple[Node, Path]:
    """Return a file of the master whose content is in the store, but not verified; and its blob."""
    digest = cas.put(content)
    blob = cas.path(digest)
    assert blob is not None
    os.utime(blob)
    file = node(len(content))
    file.digest = digest
    return file, blob


@pytest.mark.parametrize("size", [7, VERIFY_WITHOUT_THREAD_BYTES + 1], ids=["at once", "in a thread"])
async def test_a_content_that_is_there_is_verified_and_not_fetched(tmp_path: Path, size: int) -> None:
    connection = FakeConnection()
    fetch, _, cas = fetcher(connection, tmp_path)
    file, _ = stored(cas, b"x" * size)
    for _ in range(2):
        await fetch.content(file)
    assert file.is_present
    assert file.digest is not None
    assert cas.is_verified(file.digest)
    assert cas.statistics()["verified"] == 1
    assert fetch.statistics()["files_known"] == 1
    assert connection.asked == []


@pytest.mark.logs("store-blob-bad")
@pytest.mark.parametrize("size", [7, VERIFY_WITHOUT_THREAD_BYTES + 1], ids=["at once", "in a thread"])
async def test_a_bad_content_is_fetched_again(tmp_path: Path, size: int) -> None:
    content = b"x" * size
    connection = FakeConnection(File(digest_of(content)), chunks=(content,))
    connection.go.set()
    fetch, _, cas = fetcher(connection, tmp_path)
    file, blob = stored(cas, content)
    blob.chmod(0o644)
    blob.write_bytes(b"y" + content[1:])
    async with trio.open_nursery() as nursery:
        for _ in range(3):  # jobs that open it at the same time
            nursery.start_soon(fetch.content, file)
    assert blob.read_bytes() == content
    assert len(connection.asked) == 1
    assert cas.statistics()["bad"] == 1
    assert fetch.statistics()["files_known"] == 0
