"""Fetch the contents of a job's results to the master's machine.

All contents must be complete before the first file of the tree is changed.
"""

import errno
import hashlib
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import trio

from termite.engine.errors import FsError, Reason, RemoteProtocolError, Retryable, first_error
from termite.engine.fleet.lease import Lease
from termite.engine.loop.long_work import compute
from termite.engine.model import Change, Digest
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing.staging import StagedWriter
from termite.engine.wire.protocol.frames import parse_piece
from termite.engine.wire.protocol.messages import Ran

RESERVE_SHARE = 0.1  # of the free space on the user's disk that no result may take
MAX_FETCHES = 4  # of one job at a time: they fill a connection, and other jobs still get their share


class FetchedContents:
    """A context with every content that the changes of `ran` need, by SHA-256.

    Small contents are `bytes`, others are staged files. If the body fails, the staged files are
    removed. A generator would be shorter, but slower, and every job with results comes here.
    """

    __slots__ = ("_lease", "_ran", "_tree", "_writers")

    def __init__(self, lease: Lease, ran: Ran, tree: MasterTree) -> None:
        self._lease, self._ran, self._tree = lease, ran, tree
        self._writers: list[StagedWriter] = []

    async def __aenter__(self) -> Mapping[bytes, bytes | Path]:
        """Fetch them.

        Raise Retryable if the connection is lost or the worker's answer is wrong, and FsError if
        the disk refuses or has too little space.
        """
        ran = self._ran
        digests = await compute(len(ran.changes), lambda: _digests(ran.changes))
        contents, missing = _sort_inline(self._lease, ran, digests)
        if missing:
            try:
                await _fetch_all(self._lease, self._tree, missing, contents, self._writers)
            except BaseException:
                self._discard()
                raise
        return contents

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self._discard()

    def _discard(self) -> None:
        for writer in self._writers:
            writer.discard()


def _sort_inline(lease: Lease, ran: Ran, digests: Iterable[Digest]) -> tuple[dict[bytes, bytes | Path], list[Digest]]:
    """Return the contents that came with the answer, and the digests of the others."""
    contents: dict[bytes, bytes | Path] = {}
    missing: list[Digest] = []
    for digest in digests:
        inline = ran.inline.get(digest.sha256)
        if inline is None:
            missing.append(digest)
        elif len(inline) != digest.size or hashlib.sha256(inline).digest() != digest.sha256:
            raise Retryable(Reason.BAD_ANSWER, f"{lease.worker} sent contents that do not match their digest")
        else:
            contents[digest.sha256] = inline
    return contents, missing


async def _fetch_all(
    lease: Lease,
    tree: MasterTree,
    missing: Sequence[Digest],
    contents: dict[bytes, bytes | Path],
    writers: list[StagedWriter],
) -> None:
    room = trio.Semaphore(MAX_FETCHES)
    # A worker may send more than the disk has, and fill it while other programs need space. Nobody
    # knows beforehand how much of a content is holes.
    space = _Space(int((1 - RESERVE_SHARE) * tree.free_bytes()))

    async def fetch(digest: Digest) -> None:
        async with room:
            writer = tree.staging_file()
            writers.append(writer)
            contents[digest.sha256] = await _fetch(lease, digest, writer, space)

    with first_error():
        async with trio.open_nursery() as nursery:
            for digest in missing:
                nursery.start_soon(fetch, digest)


class _Space:
    """The bytes that the contents of one job may take on the user's disk."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes

    def take(self, size_bytes: int) -> None:
        """Take some of it. Raise FsError if it is not enough."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise FsError(errno.ENOSPC, b"")


async def _fetch(lease: Lease, digest: Digest, writer: StagedWriter, space: _Space) -> Path:
    received = 0

    async def write(chunk: bytes) -> None:
        nonlocal received
        piece = parse_piece(chunk)
        received += piece if isinstance(piece, int) else len(piece)
        if received > digest.size:  # it may never end, and would fill the user's disk
            raise Retryable(Reason.BAD_ANSWER, f"{lease.worker} sent more than the {digest.size} bytes it promised")
        if isinstance(piece, int):
            writer.skip(piece)
        else:
            space.take(len(piece))
            writer.write(piece)

    await lease.fetch(digest, write)
    try:
        return writer.finish(digest)
    except RemoteProtocolError as error:
        raise Retryable(Reason.BAD_ANSWER, f"{lease.worker}: {error}") from error


def _digests(changes: Iterable[Change]) -> list[Digest]:
    """Return the digests of all contents that the changes need, each once."""
    needed: dict[bytes, Digest] = {}
    for change in changes:
        attr = change.attr
        if attr is None or not change.content or change.link_to is not None or not stat.S_ISREG(attr.mode):
            continue
        if attr.digest is None:
            raise Retryable(Reason.BAD_ANSWER, f"a result has no digest: {change.path!r}")
        needed[attr.digest.sha256] = attr.digest
    return list(needed.values())
