"""If the answer to a request of the kernel is an error of ours, its job is given back."""

import os
import stat
from collections.abc import Callable
from errno import EIO, ENOTCONN
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Attr, Digest
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.messages import GetBlob
from termite.fuse import mirror_calls
from termite.fuse.actions import Actions
from termite.fuse.kernel_requests.ops import KEPT_BYTES, MirrorOperations
from termite.fuse.layers.real_tree import RealTree
from termite.fuse.view.inodes import DirectoryNode, Node
from termite.fuse.view.view_tree import Tree

DIRECTORY = Attr(stat.S_IFDIR | 0o755, 0, 1)


class FakeJobs:
    """The jobs, of which the given back ones are noted."""

    def __init__(self) -> None:
        self.given_back: list[tuple[int, Exception]] = []

    def give_back(self, thread: int, error: Exception) -> None:
        self.given_back.append((thread, error))


class FakeFetcher:
    """The master, which has one content."""

    def __init__(self, cas: Cas, content: bytes) -> None:
        self.cas, self.content_bytes = cas, content

    async def content(self, node: Node) -> None:
        node.digest = self.cas.put(self.content_bytes)


def operations(cas: Cas, content: bytes = b"") -> tuple[MirrorOperations, FakeJobs]:
    jobs: Any = FakeJobs()
    files: Any = SimpleNamespace(tree=Tree(b"", 0), cas=cas, fetcher=FakeFetcher(cas, content))
    nobody: Any = None
    return MirrorOperations(files, jobs, nobody, nobody), jobs


def refuse(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def unreadable(*_: object) -> bytes:
        raise OSError(EIO, os.strerror(EIO))

    monkeypatch.setattr(mirror_calls, call, unreadable)


@pytest.mark.logs("fuse-request-failed")
async def test_a_job_that_touches_a_name_of_which_nobody_knows_what_it_is_is_given_back(tmp_path: Path) -> None:
    mirror, jobs = operations(Cas(tmp_path))
    parent = mirror._inodes.directory(Tree(b"", 0).bases, b"d", DIRECTORY)  # type: ignore[arg-type]  # any view
    assert isinstance(parent, DirectoryNode)
    parent.listing = {b"inc1": Attr(0, ENOTCONN, 0)}
    with pytest.raises(pyfuse3.FUSEError):
        await mirror.lookup(parent.inode, b"inc1", SimpleNamespace(pid=7))
    ((thread, error),) = jobs.given_back
    assert thread == 7
    assert isinstance(error, Retryable) and error.reason is Reason.LOOK_FAILED
    assert error.detail == f"'/d/inc1': {os.strerror(ENOTCONN)}"


@pytest.mark.logs("store-blob-bad", "fuse-request-crashed")
@pytest.mark.parametrize(("size", "call"), [(100, "read"), (KEPT_BYTES + 1, "pread")])
async def test_a_blob_with_an_unreadable_sector_leaves_the_store_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, call: str
) -> None:
    cas, content = Cas(tmp_path), os.urandom(size)
    digest = cas.put(content)
    mirror, jobs = operations(cas, content)
    node = mirror._inodes.file(b"f", Attr(stat.S_IFREG | 0o644, size, 1, digest))
    with monkeypatch.context() as broken:
        refuse(broken, call)
        with pytest.raises(pyfuse3.FUSEError):
            await mirror.read(node.inode, 0, size)
    assert [thread for thread, _ in jobs.given_back] == [0]
    assert cas.path(digest) is None, "the retry would meet the same sector"
    assert await mirror.read(node.inode, 0, size) == content


@pytest.mark.logs("store-blob-bad")
@pytest.mark.parametrize("use", ["layer", "result"])
async def test_other_readers_of_such_a_blob_remove_it_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    (tmp_path / "top").mkdir()
    cas = Cas(tmp_path / "cas")
    digest = cas.put(b"content")
    if use == "layer":
        monkeypatch.setattr("termite.fuse.layers.real_tree.os.copy_file_range", _unreadable)
        with RealTree(os.fsencode(tmp_path / "top")) as real, pytest.raises(OSError, match=os.strerror(EIO)):
            real.make_file_from_store(b"f", cas, digest, Attr(stat.S_IFREG | 0o644, 7, 1))
    else:
        refuse(monkeypatch, "pread")
        with pytest.raises(Retryable) as lost:
            await _send(cas, digest)
        assert lost.value.reason is Reason.RESULT_LOST
    assert cas.path(digest) is None


def _unreadable(*_: object) -> int:
    raise OSError(EIO, os.strerror(EIO))


async def _send(cas: Cas, digest: Digest) -> None:
    async def send_chunk(chunk: bytes) -> None:
        pass

    send: Callable[..., Any] = Actions.send_blob
    await send(SimpleNamespace(_made=[{digest}], _files=SimpleNamespace(cas=cas)), GetBlob(digest), send_chunk)
