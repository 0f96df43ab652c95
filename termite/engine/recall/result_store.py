"""Store the results of commands on the master's machine, and find them again.

The directory belongs to one user, and only that user may enter it. Several masters share it without
waiting for each other. It holds the index (`result_index`) and the contents by digest (`cas/`).

Contents come first, then the row of the index. A process that is killed in between leaves contents
that nobody names, which are evicted as unused. The opposite, a row without its contents, is made by
an eviction; such a result is removed when it is found. No content is a hard link to a user's file:
somebody may write to that in place.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from termite.engine.errors import NotAtRest, RemoteProtocolError, Retryable
from termite.engine.model import Digest, StoreLimits
from termite.engine.recall import result_calls
from termite.engine.recall.logic.uses import PathSet
from termite.engine.recall.look_up.evidence import Shape
from termite.engine.recall.look_up.stored_rows import LastRun, OutputPiece, PathSetRow, ResultRow, StoredRows
from termite.engine.recall.result_index import ResultIndex
from termite.engine.sparse_content import digest_of
from termite.engine.store import store_calls
from termite.engine.store.cas import Cas

CONTENTS = "cas"
INDEX_SHARE = 0.1  # of the bytes of the store that the index may have
DISK_SHARE = 0.1  # of a disk that the store takes unless somebody says otherwise
INLINE_OUTPUT_BYTES = 16 * 1024  # a longer output is a blob, so that rows stay small

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_output = msgspec.msgpack.Decoder(tuple[OutputPiece, ...]).decode


class ResultStore:
    """The results below `root`, which `eviction` keeps within `limits`.

    Methods block as far as the disk does. They do not raise if the disk fails: then nothing is
    stored, or nothing is found. Times are in whole seconds since 1970.
    """

    def __init__(self, root: Path, limits: StoreLimits, now_s: int) -> None:
        """Open the store, and make it if there is none.

        Raise OSError or Retryable if this is impossible, and PermissionError if it is somebody
        else's.
        """
        _own_directory(root)
        self._cas = Cas(root / CONTENTS, limits.max_bytes, limits.max_files)
        self._index = ResultIndex(root, now_s)
        self._not_stored = 0
        self._has_failed = False

    def close(self) -> None:
        """Close the store. Nothing may be called afterwards."""
        self._index.close()
        self._cas.close()

    def follow(self, other: "ResultStore") -> None:
        """Use the index that another store of this directory uses, if that is a later one."""
        self._index.follow(other._index)

    def rows(self, weak: bytes) -> StoredRows:
        """Return what is stored for a command."""
        return self._index.rows(weak)

    def has_results(self, weak: bytes) -> bool:
        """Return whether a result of a command is stored. This takes some microseconds."""
        return self._index.has_results(weak)

    def last(self, name: bytes) -> tuple[LastRun, PathSet | None] | None:
        """Return the last run of the job of this name with its path set, if they are stored."""
        return self._index.last(name)

    def add(
        self, weak: bytes, path_set: PathSetRow, row: ResultRow, contents: Mapping[bytes, bytes | Path], now_s: int
    ) -> bool:
        """Store a result and its contents, by SHA-256. Return whether it is stored.

        A content that differs from its digest by now is not stored, nor is the result. Contents
        that the store has already may be missing.
        """
        try:
            for digest in row.result.blobs.values():
                self._add_content(digest, contents.get(digest.sha256))
            row = self._with_output_blob(row)
        except (OSError, Retryable, NotAtRest, RemoteProtocolError) as error:
            self._not_stored += 1
            if isinstance(error, NotAtRest | FileNotFoundError):  # its user has gone on, which is no fault of a disk
                log.debug("result-not-stored reason=%s", error)
            elif not self._has_failed:
                self._has_failed = True
                log.warning("result-not-stored reason=%s", error)
            return False
        return self._index.add(weak, path_set, row, now_s)

    def note_last(self, name: bytes, last: LastRun, now_s: int) -> None:
        """Store the last run of the job of this name, to explain its next miss."""
        self._index.note_last(name, last, now_s)

    def shape(self, identity: bytes) -> Shape:
        """Return what is known of the commands of a shape."""
        return self._index.shape(identity)

    def note_shape(self, identity: bytes, shape: Shape, now_s: int) -> None:
        """Add to what is known of a shape. If it is refused, remove all of its results."""
        self._index.note_shape(identity, shape, now_s)

    def has_contents(self, row: ResultRow) -> bool:
        """Return whether every content of a result is there, and remove the result if not.

        A content that was not verified is hashed first.
        """
        try:
            if all(self._cas.verify(digest) for digest in row.result.blobs.values()):
                return True
        except OSError:
            return False
        self._index.remove(row)
        return False

    def has_files(self, row: ResultRow) -> bool:
        """Return whether there is a file for every content, and remove the result if not.

        No content is hashed, so the event loop may ask. Whoever reads a content hashes it.
        """
        try:
            if all(self._cas.path(digest) is not None for digest in row.result.blobs.values()):
                return True
        except OSError:
            return False
        self._index.remove(row)
        return False

    def open_content(self, digest: Digest) -> int | None:
        """Return a descriptor of a content, for the caller to hash and to close, or None."""
        try:
            path = self._cas.path(digest)
            return None if path is None else store_calls.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def lacks(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return the contents that are not in the store, or damaged. Raise OSError."""
        return [digest for digest in digests if not self._cas.verify(digest)]

    def put_content(self, digest: Digest, pieces: Iterable[bytes]) -> None:
        """Store a content that comes in pieces.

        Raise RemoteProtocolError if it has another digest, and Retryable or OSError if the disk
        refuses.
        """
        with contextlib.closing(self._cas.writer()) as writer:
            left_bytes = digest.size
            for piece in pieces:
                left_bytes -= len(piece)
                if left_bytes < 0:
                    raise RemoteProtocolError(f"a content has more than {digest.size} bytes")
                writer.write(piece)
            writer.finish(digest)

    def remove_content(self, digest: Digest) -> None:
        """Remove a content that turned out to be damaged though it was verified."""
        try:
            self._cas.refuse(digest)
        except OSError as error:
            log.warning("results-not-evicted reason=%s", error)

    def output(self, row: ResultRow) -> tuple[OutputPiece, ...] | None:
        """Return the output of a result in its order, or None if it is gone or damaged."""
        blob = row.result.output_blob
        if blob is None:
            return row.result.output
        fd = self.open_content(blob)
        if fd is None:
            return None
        try:
            with open(fd, "rb") as file:
                packed = file.read()
            if digest_of(packed) == blob:
                return _decode_output(packed)
        except (OSError, msgspec.MsgspecError):
            return None
        self.remove_content(blob)
        return None

    def note_use(self, weak: bytes, row: ResultRow, now_s: int) -> None:
        """Note that a result was used, so that it is evicted later."""
        self._index.note_use(weak, row, now_s)

    # -- care ---------------------------------------------------------------------------------------------------------

    def is_eviction_due(self, now_s: float) -> bool:
        """Return whether the last eviction is long ago, or much was added since."""
        return self._cas.is_eviction_due(now_s)

    def eviction(self) -> Iterator[int]:
        """Remove what was not used for longest until the store fits, in steps of milliseconds.

        Yield the number of rows or blobs that each step removes.
        """
        yield from self._index.eviction(int(self._cas.limits.max_bytes * INDEX_SHARE))
        try:
            yield from self._cas.eviction()
        except OSError as error:
            log.warning("results-not-evicted reason=%s", error)

    def scrub(self, now_s: float | None) -> Iterator[int]:
        """Read what is due again from the disk, and remove what is damaged.

        None means that everything is due. Yield the bytes that each step has read.
        """
        try:
            yield from self._cas.scrub(now_s)
        except OSError as error:
            log.warning("results-not-scrubbed reason=%s", error)

    def check(self) -> int:
        """Read every row of the index, remove the damaged ones, and return their number."""
        return self._index.check()

    def clear(self) -> None:
        """Remove all results and contents."""
        self._index.clear()
        limits = self._cas.limits
        self._cas.limits = StoreLimits(0, 0)
        try:
            self._cas.evict()
        finally:
            self._cas.limits = limits

    def statistics(self) -> dict[str, int]:
        """Return the counters of this process, and the numbers of stored rows."""
        counts = self._index.count()
        return {**self._cas.statistics(), **counts, "failures": self._index.failures, "not_stored": self._not_stored}

    # -- contents -----------------------------------------------------------------------------------------------------

    def _add_content(self, digest: Digest, content: bytes | Path | None) -> None:
        if self._cas.verify(digest):
            return
        if content is None:
            raise NotAtRest("a content of a result is gone")
        if isinstance(content, bytes):
            stored = self._cas.put(content)
        else:
            fd = os.open(content, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                stored = self._cas.copy_in(fd, digest.size)
            finally:
                os.close(fd)
        if stored != digest:
            raise NotAtRest("a result changed before it was stored")

    def _with_output_blob(self, row: ResultRow) -> ResultRow:
        """Return the row with a long output moved to a blob."""
        if sum(len(piece.content) for piece in row.result.output) <= INLINE_OUTPUT_BYTES:
            return row
        blob = self._cas.put(_encode(row.result.output))
        result = msgspec.structs.replace(row.result, output=(), output_blob=blob)
        return msgspec.structs.replace(row, result=result)


def default_limits(disk_bytes: int) -> StoreLimits:
    """Return the limits of a store on a disk of this size."""
    limits = StoreLimits()
    return StoreLimits(min(limits.max_bytes, int(disk_bytes * DISK_SHARE)), limits.max_files)


def _own_directory(root: Path) -> None:
    """Make the directory of the store for its user alone.

    Raise PermissionError if it belongs to somebody else, and OSError if it cannot be made.
    """
    result_calls.makedirs(root, mode=0o700, exist_ok=True)
    found = result_calls.stat(root)
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{root} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        result_calls.chmod(root, 0o700)
