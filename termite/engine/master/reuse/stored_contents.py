"""Get the contents of a stored result ready for publication."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio

from termite.engine.errors import Reason, RemoteProtocolError, Retryable
from termite.engine.model import Digest
from termite.engine.recall.result_store import ResultStore
from termite.engine.sparse_content import BLOCK_BYTES, digest_of, pieces
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing.staging import StagedWriter, discard_all

MOST_AT_ONCE_BYTES = 1024 * 1024  # of one file that is read in the event loop, in about a millisecond


class StoredContents:
    """A context with the contents of a result by SHA-256, as `FetchedContents` is.

    Every content is hashed again, because a damaged disk must not become a damaged build.
    """

    __slots__ = ("_digests", "_store", "_tree", "_writers")

    def __init__(self, store: ResultStore, digests: Iterable[Digest], tree: MasterTree) -> None:
        self._store, self._digests, self._tree = store, tuple(digests), tree
        self._writers: list[StagedWriter] = []

    async def __aenter__(self) -> Mapping[bytes, bytes | Path]:
        """Read or stage them.

        Raise Retryable if one is gone or damaged, and FsError if the disk refuses.
        """
        try:
            return {digest.sha256: await self._get(digest) for digest in self._digests}
        except BaseException:
            discard_all(self._writers)
            raise

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            discard_all(self._writers)

    async def _get(self, digest: Digest) -> bytes | Path:
        fd = self._store.open_content(digest)
        if fd is None:
            raise Retryable(Reason.LOOK_FAILED, f"content {digest.sha256.hex()} is gone")
        try:
            if digest.size <= MOST_AT_ONCE_BYTES:
                content = os.pread(fd, digest.size + 1, 0)
                if digest_of(content) == digest:
                    return content
            else:
                writer = self._tree.staging_file()
                self._writers.append(writer)
                return await trio.to_thread.run_sync(_copy, fd, writer, digest)
        except (OSError, RemoteProtocolError) as error:
            raise self._refused(digest) from error
        finally:
            os.close(fd)
        raise self._refused(digest)

    def _refused(self, digest: Digest) -> Retryable:
        self._store.remove_content(digest)
        return Retryable(Reason.LOOK_FAILED, f"content {digest.sha256.hex()} is damaged")


def _copy(fd: int, writer: StagedWriter, digest: Digest) -> Path:
    """Stage an open content. Raise RemoteProtocolError if it has another digest."""
    for piece in pieces(fd, digest.size, BLOCK_BYTES):
        if isinstance(piece, int):
            writer.skip(piece)
        else:
            writer.write(piece)
    return writer.finish(digest)
