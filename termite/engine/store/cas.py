"""Store blobs by digest in files `ROOT/ab/cdef...`, each complete and hashed before it is named.

Several processes of one uid share a store without a lock. A blob is written under a temporary name
and then linked, so a reader sees it whole or not at all. A second writer of the same content keeps
the first file. Another process may evict a blob between two calls: a caller that has a path must
expect that the file is gone, but an open descriptor stays valid.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from termite.engine.errors import NotAtRest, Reason, RemoteProtocolError, Retryable
from termite.engine.model import Digest

DEFAULT_MAX_BYTES = 20 * 1024**3
BLOB_CHUNK_BYTES = 256 * 1024  # hashing dominates the cost, and ten files at a time need little memory
USED_AGAIN_S = 600.0  # a blob's mtime is its last use; a finer one would cost an inode write per open
ABANDONED_S = 3600.0  # a temporary file that is older belongs to a process that was killed
EVICT_TO_SHARE = 0.9  # of the limit: evicting more than needed postpones the next eviction
DISK_BLOCK_BYTES = 512  # the unit of st_blocks on every file system


@dataclass(slots=True)
class _StoreCounters:
    """Counts of one process since it opened the store."""

    added: int = 0
    added_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evicted: int = 0


class Cas:
    """The store below `root`, which `evict` keeps below `max_bytes` on the disk.

    Every method blocks as far as the disk does, and may be called from any thread. Methods that
    write raise Retryable if the disk is full; other errors of the disk are raised as OSError.
    """

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._root = os.fsencode(root)
        self._temporary = os.path.join(self._root, b"tmp")
        self._max_bytes = max_bytes
        self._serial = itertools.count()
        self._counters = _StoreCounters()
        with _full_disk_is_retryable():
            os.makedirs(self._temporary, mode=0o700, exist_ok=True)

    def path(self, digest: Digest) -> Path | None:
        """Return the path of the blob, or None if the store does not have it."""
        name = self._name(digest)
        try:
            status = os.stat(name)
        except FileNotFoundError:
            self._counters.misses += 1
            return None
        return Path(os.fsdecode(name)) if self._is_sound(name, status, digest) else None

    def open(self, digest: Digest) -> int | None:
        """Open the blob for reading, and return a descriptor that the caller must close.

        Return None if the store does not have the blob.
        """
        name = self._name(digest)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._counters.misses += 1
            return None
        if self._is_sound(name, os.fstat(fd), digest):
            return fd
        os.close(fd)
        return None

    def put(self, content: bytes) -> Digest:
        """Store a small content, and return its digest."""
        digest = Digest(hashlib.sha256(content).digest(), len(content))
        if self.path(digest) is None:
            with contextlib.closing(self.writer()) as writer:
                writer.write(content)
                writer.finish(digest)
        return digest

    def copy_in(self, fd: int, size_bytes: int) -> Digest:
        """Store the content of the file that is open as `fd` and should have that many bytes.

        The file itself never becomes the blob, although a link would be cheaper. Somebody may have
        a descriptor of it, or of its directory in an overlay that is still mounted, and could write
        to a blob that was verified before. Raise NotAtRest, for the scheduler, if the file has
        another size or changes while it is read.
        """
        digest = copied = _hash(fd, size_bytes)
        if digest.size == size_bytes and self.path(digest) is None:
            with contextlib.closing(self.writer()) as writer:
                for chunk in _file_chunks(fd, size_bytes):
                    writer.write(chunk)
                copied = writer.finish()
        if digest.size != size_bytes or digest != copied:
            raise NotAtRest("a file changed while it was copied into the store")
        return digest

    def writer(self) -> "CasWriter":
        """Return a writer for a content that comes in pieces; the caller must close it."""
        return CasWriter(self, self._temporary_name())

    def evict(self) -> int:
        """Remove the least recently used blobs until the store fits, and return their number.

        This scans the whole store. It also removes temporary files of processes that were killed.
        """
        now = time.time()
        self._remove_abandoned(now)
        blobs = sorted(self._blobs())
        excess = sum(size for _, size, _ in blobs)
        if excess <= self._max_bytes:
            return 0
        excess -= int(self._max_bytes * EVICT_TO_SHARE)
        evicted = 0
        for _, size, name in blobs:
            if excess <= 0:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            excess -= size
            evicted += 1
        self._counters.evicted += evicted
        return evicted

    def rename_in(self, name: bytes, digest: Digest) -> None:
        """Move a complete file of this file system, which the caller has hashed, into the store.

        It is linked and unlinked, because a rename to another directory takes a lock of the whole
        file system. If jobs write to that file system, overlayfs holds the lock while it waits for
        the mirror, and the mirror might wait for the lock in this method.
        """
        final = self._name(digest)
        try:
            _link_unless_there(name, final)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
            _link_unless_there(name, final)
        os.unlink(name)
        self._counters.added += 1
        self._counters.added_bytes += digest.size

    def statistics(self) -> dict[str, int]:
        """Return the counters of this process since its start: blobs, `added_bytes` in bytes."""
        counters = self._counters
        return {
            "added": counters.added,
            "added_bytes": counters.added_bytes,
            "hits": counters.hits,
            "misses": counters.misses,
            "evicted": counters.evicted,
        }

    def _temporary_name(self) -> bytes:
        return b"%b/%d-%d-%d" % (self._temporary, os.getpid(), threading.get_ident(), next(self._serial))

    def _name(self, digest: Digest) -> bytes:
        text = digest.sha256.hex().encode()
        return b"%b/%b/%b" % (self._root, text[:2], text[2:])

    def _is_sound(self, name: bytes, status: os.stat_result, digest: Digest) -> bool:
        # Nothing is synced to the disk. A machine that lost power may have kept a name without its
        # content.
        if status.st_size != digest.size:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            self._counters.misses += 1
            return False
        if time.time() - status.st_mtime > USED_AGAIN_S:
            with contextlib.suppress(FileNotFoundError):
                os.utime(name)
        self._counters.hits += 1
        return True

    def _blobs(self) -> Iterator[tuple[float, int, bytes]]:
        """Yield the last use in seconds, the size on disk in bytes, and the name of each blob."""
        for shard in os.listdir(self._root):
            if len(shard) != 2:
                continue
            with os.scandir(os.path.join(self._root, shard)) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield status.st_mtime, status.st_blocks * DISK_BLOCK_BYTES, entry.path

    def _remove_abandoned(self, now: float) -> None:
        with os.scandir(self._temporary) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_S:
                        os.unlink(entry.path)


class CasWriter:
    """A blob that is being written. `finish` stores it, `discard` drops it.

    `discard` and `close`, which are the same, do nothing after `finish`.
    """

    def __init__(self, cas: Cas, name: bytes) -> None:
        self._cas = cas
        self._name = name
        self._hash = hashlib.sha256()
        self._size = 0
        with _full_disk_is_retryable():
            self._fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)

    def write(self, content: bytes | memoryview) -> None:
        """Append `content`. Raise Retryable if the disk is full."""
        self._hash.update(content)
        self._size += len(content)
        rest = memoryview(content)
        with _full_disk_is_retryable():
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def finish(self, expected: Digest | None = None) -> Digest:
        """Store the complete blob, and return its digest.

        Raise RemoteProtocolError, upon which the peer is dropped, if the digest is not `expected`;
        then nothing is stored. None expects nothing.
        """
        digest = Digest(self._hash.digest(), self._size)
        if expected is not None and digest != expected:
            self.discard()
            raise RemoteProtocolError(
                f"a blob does not match its digest: {digest.size} bytes, SHA-256 {digest.sha256.hex()}; "
                f"expected {expected.size} bytes, SHA-256 {expected.sha256.hex()}"
            )
        with _full_disk_is_retryable():
            self._cas.rename_in(self._name, digest)
        self._close()
        return digest

    def discard(self) -> None:
        """Drop the blob and its temporary file."""
        if self._fd >= 0:
            self._close()
            os.unlink(self._name)

    close = discard  # for contextlib.closing

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


def _hash(fd: int, size_bytes: int) -> Digest:
    sha256 = hashlib.sha256()
    size = 0
    for chunk in _file_chunks(fd, size_bytes):
        sha256.update(chunk)
        size += len(chunk)
    return Digest(sha256.digest(), size)


def _file_chunks(fd: int, size_bytes: int) -> Iterator[bytes]:
    """Yield the content, and at most one byte more than `size_bytes`.

    The additional byte shows that the file has grown.
    """
    offset = 0
    while chunk := os.pread(fd, min(BLOB_CHUNK_BYTES, size_bytes + 1 - offset), offset):
        yield chunk
        offset += len(chunk)


@contextlib.contextmanager
def _full_disk_is_retryable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Retryable(Reason.DISK_FULL, os.strerror(error.errno)) from error
        raise


def _link_unless_there(name: bytes, final: bytes) -> None:
    with contextlib.suppress(FileExistsError):  # another process has stored the same content already
        os.link(name, final)
