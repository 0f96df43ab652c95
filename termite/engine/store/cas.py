"""Store blobs by digest in files `ROOT/ab/cdef...`, each complete and hashed before it is named.

Several processes of one uid share a store without a lock. Each has a temporary directory of its own
in `ROOT/tmp`, locked as `private_directories` says. A blob is written there and then linked, so a
reader sees it whole or not at all. A second writer of the same content keeps the first file.
Another process may evict a blob between two calls: a caller that has a path must expect that the
file is gone, but an open descriptor stays valid.

A blob is hashed again before it is read, unless its inode says that this was done. The module
`verified_mark` describes how. A bad blob is removed, so for its reader it is one that was evicted.
"""

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from termite.engine.errors import NotAtRest
from termite.engine.model import DEFAULT_STORE_BYTES, DEFAULT_STORE_FILES, Digest, StoreLimits
from termite.engine.private_directories import locked_directory, remove_leftovers, remove_tree
from termite.engine.sparse_content import BLOCK_BYTES, SECTOR_BYTES, digest_of
from termite.engine.store import store_calls
from termite.engine.store.cas_writer import CasWriter, full_disk_is_retryable
from termite.engine.store.eviction import evict_in_steps, last_eviction
from termite.engine.store.file_hash import BAD_BITS, RereadBlob, file_pieces, has_content, hash_file
from termite.engine.store.proofs import ProofTable
from termite.engine.store.scrub import blobs_to_scrub
from termite.engine.store.verified_mark import is_marked, marked_mtime_ns, read_boot

TEMPORARY = b"tmp"  # has a private directory of each process that uses the store
USED_AGAIN_S = 600.0  # a blob's mtime is its last use; a finer one would cost an inode write per open
EVICT_S = 600.0  # between two evictions
GROWN_BY_SHARE = 0.05  # of a limit: if this process has added so much, an eviction is due

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _StoreCounters:
    """Counts of one process since it opened the store."""

    added: int = 0
    added_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evicted: int = 0
    verified: int = 0
    verified_bytes: int = 0
    scrubbed_bytes: int = 0
    bad: int = 0


class Cas:
    """The store below `root`, which `evict` keeps below `max_bytes` of disk and `max_files` blobs.

    Every method blocks as far as the disk does, and may be called from any thread. Methods that
    write raise Retryable if the disk is full; other errors of the disk are raised as OSError.
    """

    def __init__(
        self,
        root: Path,
        max_bytes: int = DEFAULT_STORE_BYTES,
        max_files: int = DEFAULT_STORE_FILES,
        proofs: ProofTable | None = None,
    ) -> None:
        """Open the store. Blobs that `proofs` does not have are not shown; None: show all."""
        self._root, self._proofs = os.fsencode(root), proofs
        self.limits = StoreLimits(max_bytes, max_files)
        self._boot = read_boot()
        self._added_before = (0, 0)  # blobs and bytes that had been added when the last eviction began
        self._serial = itertools.count()
        self._counters = _StoreCounters()
        with full_disk_is_retryable():
            store_calls.makedirs(os.path.join(self._root, TEMPORARY), mode=0o700, exist_ok=True)
            self._remove_abandoned()
            made, self._lock = locked_directory(root / os.fsdecode(TEMPORARY), "", 0o700)
        self._temporary = os.fsencode(made)

    def close(self) -> None:
        """Remove the temporary directory of this process. Nothing may be written afterwards."""
        remove_tree(Path(os.fsdecode(self._temporary)))
        os.close(self._lock)
        if self._proofs is not None:
            self._proofs.close()

    def path(self, digest: Digest) -> Path | None:
        """Return the path of the blob, or None if the store does not have it.

        The content is not verified.
        """
        return None if self._look_up(digest) is None else Path(os.fsdecode(self._name(digest)))

    def disk_bytes(self, digest: Digest) -> int:
        """Return the space that a blob takes on the disk, 0 if the store does not have it."""
        try:
            return store_calls.stat(self._name(digest)).st_blocks * SECTOR_BYTES
        except FileNotFoundError:
            return 0

    def is_verified(self, digest: Digest) -> bool:
        """Return whether the store has the blob and need not read it to trust it."""
        return self._look_up(digest) is True

    def verify(self, digest: Digest) -> bool:
        """Return whether the store has the blob. If it was not verified yet, hash it first.

        Hashing 100 MB takes some 70 ms.
        """
        is_verified = self._look_up(digest)
        if is_verified is not False:
            return is_verified is True
        fd = self.open(digest)
        if fd is None:
            return False
        os.close(fd)
        return True

    def open(self, digest: Digest) -> int | None:
        """Open the blob for reading, and return a descriptor that the caller must close.

        Return None if the store does not have the blob. If the blob was not verified yet, it is
        hashed first, as by `verify`.
        """
        if not self._is_proved(digest):
            return None
        name = self._name(digest)
        try:
            fd = store_calls.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._counters.misses += 1
            return None
        try:
            is_sound = self._is_sound(name, fd, digest)
        except BaseException:
            os.close(fd)
            raise
        if is_sound:
            return fd
        os.close(fd)
        return None

    def refuse(self, digest: Digest) -> None:
        """Remove a blob in which a reader has found another content, whatever its mark says."""
        self._remove_bad(self._name(digest), digest, "content")

    def put(self, content: bytes) -> Digest:
        """Store a small content, and return its digest."""
        digest = digest_of(content)
        if not self.verify(digest):
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
        digest = copied = hash_file(fd, size_bytes)
        if digest.size == size_bytes and not self.verify(digest):
            with contextlib.closing(self.writer()) as writer:
                for piece in file_pieces(fd, size_bytes):
                    writer.add(piece)
                copied = writer.finish()
        if digest.size != size_bytes or digest != copied:
            raise NotAtRest("a file changed while it was copied into the store")
        return digest

    def writer(self) -> CasWriter:
        """Return a writer for a content that comes in pieces; the caller must close it."""
        return CasWriter(self._temporary_name(), self.rename_in)

    def evict(self) -> int:
        """Remove the least recently used blobs until the store fits, and return their number.

        This walks the whole store. It also removes temporary files of processes that were killed.
        """
        return sum(self.eviction())

    def eviction(self) -> Iterator[int]:
        """Do what `evict` does, in steps of some milliseconds. Yield the blobs that each evicts."""
        self._added_before = (self._counters.added, self._counters.added_bytes)
        self._remove_abandoned()
        for evicted in evict_in_steps(self._root, self.limits):
            self._counters.evicted += evicted
            yield evicted

    def is_eviction_due(self, now: float) -> bool:
        """Return whether the last eviction is long ago, or this process has added much since.

        `now` is in seconds since 1970.
        """
        blobs, size_bytes = self._added_before
        return (
            abs(now - last_eviction(self._root)) > EVICT_S
            or self._counters.added - blobs > GROWN_BY_SHARE * self.limits.max_files
            or self._counters.added_bytes - size_bytes > GROWN_BY_SHARE * self.limits.max_bytes
        )

    def scrub(self, now: float | None) -> Iterator[int]:
        """Read again from the disk what is due, and remove bad blobs.

        Yield the number of bytes that each step has read, and nothing if nothing is due. `now` is
        in seconds since 1970; None means that all blobs are due. Being scrubbed is no use of a
        blob.
        """
        for name, fd, digest in blobs_to_scrub(self._root, now):
            reading = RereadBlob(fd, digest)
            for step_bytes in reading.steps():
                self._counters.scrubbed_bytes += step_bytes
                yield step_bytes
            if reading.is_bad:
                self._remove_bad(name, digest, "content")

    def rename_in(self, name: bytes, digest: Digest) -> None:
        """Move a complete file of this file system, which the caller has hashed, into the store.

        It is linked and unlinked, because a rename to another directory takes a lock of the whole
        file system. If jobs write to that file system, overlayfs holds the lock while it waits for
        the mirror, and the mirror might wait for the lock in this method.
        """
        final = self._name(digest)
        if self._proofs is not None:  # whoever sent or made the content has it
            self._proofs.add(digest)
        # The mark comes first, because others see the blob at once. The links change its ctime, but
        # only by some microseconds.
        self._note_use(name, digest, is_verified=True)
        try:
            self._link(name, final, digest)
        except FileNotFoundError:
            store_calls.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
            self._link(name, final, digest)
        store_calls.unlink(name)
        self._counters.added += 1
        self._counters.added_bytes += digest.size if digest.size <= BLOCK_BYTES else self.disk_bytes(digest)

    def note_public(self, digest: Digest) -> None:
        """Let every master use this blob, because any user of its master's machine may read it."""
        if self._proofs is not None:
            self._proofs.add_public(digest)

    def statistics(self) -> dict[str, int]:
        """Return the counters of this process since its start: blobs, `added_bytes` in bytes."""
        return {field.name: getattr(self._counters, field.name) for field in fields(_StoreCounters)}

    def _temporary_name(self) -> bytes:
        return b"%b/%d" % (self._temporary, next(self._serial))

    def _name(self, digest: Digest) -> bytes:
        text = digest.sha256.hex().encode()
        return b"%b/%b/%b" % (self._root, text[:2], text[2:])

    def _look_up(self, digest: Digest) -> bool | None:
        """Return whether the blob is verified, or None if the store does not have it."""
        name = self._name(digest)
        if not self._is_proved(digest):
            return None
        try:
            status = store_calls.stat(name)
        except FileNotFoundError:
            self._counters.misses += 1
            return None
        if status.st_size != digest.size:
            self._remove_bad(name, digest, "size")
            return None
        self._counters.hits += 1
        is_verified = self._is_marked(status, digest)
        if time.time() - status.st_mtime > USED_AGAIN_S:
            self._note_use(name, digest, is_verified)
        return is_verified

    def _is_proved(self, digest: Digest) -> bool:
        is_proved = self._proofs is None or self._proofs.has(digest)
        self._counters.misses += not is_proved
        return is_proved

    def _is_sound(self, name: bytes, fd: int, digest: Digest) -> bool:
        """Return whether the open blob is what its name says, and remove it if not."""
        status = store_calls.fstat(fd)
        if status.st_size != digest.size:
            return self._remove_bad(name, digest, "size")
        if not self._is_marked(status, digest):
            if not has_content(fd, digest):
                return self._remove_bad(name, digest, "content")
            self._counters.verified += 1
            self._counters.verified_bytes += digest.size
            after = store_calls.fstat(fd)
            # A blob that was changed while it was read gets no mark.
            if (after.st_mtime_ns, after.st_ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns):
                self._note_use(fd, digest, is_verified=True)
        elif time.time() - status.st_mtime > USED_AGAIN_S:
            self._note_use(fd, digest, is_verified=True)
        self._counters.hits += 1
        return True

    def _remove_bad(self, name: bytes, digest: Digest, reason: str) -> bool:
        """Remove a blob that is not what its name says, and return False.

        Only the process that removes it says so.
        """
        self._counters.misses += 1
        with contextlib.suppress(FileNotFoundError):
            store_calls.unlink(name)
            self._counters.bad += 1
            log.warning("store-blob-bad digest=%s size=%d reason=%s", digest.sha256.hex(), digest.size, reason)
        return False

    def _is_marked(self, status: os.stat_result, digest: Digest) -> bool:
        return is_marked(digest, self._boot, status.st_mtime_ns, status.st_ctime_ns)

    def _note_use(self, file: bytes | int, digest: Digest, is_verified: bool) -> None:
        """Set the last use of a blob to now, and with it the mark of a verified blob."""
        mtime_ns = marked_mtime_ns(digest, self._boot, time.time_ns())
        if not is_verified:
            mtime_ns ^= 1  # surely no mark
        with contextlib.suppress(OSError):  # it is only evicted earlier, or hashed once more
            store_calls.utime(file, ns=(mtime_ns, mtime_ns))

    def _link(self, name: bytes, final: bytes, digest: Digest) -> None:
        """Give a complete blob its name, unless a verified one has it already."""
        try:
            store_calls.link(name, final)
        except FileExistsError:
            if self.is_verified(digest):
                return
            with contextlib.suppress(FileNotFoundError):
                store_calls.unlink(final)
            with contextlib.suppress(FileExistsError):  # another process has just stored the same content
                store_calls.link(name, final)

    def _remove_abandoned(self) -> None:
        """Remove what killed processes have left, also those of earlier versions."""
        top = os.path.join(self._root, TEMPORARY)
        remove_leftovers(Path(os.fsdecode(top)), "")
        with store_calls.scandir(top) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another mirror has removed it
                    if not entry.is_dir(follow_symlinks=False):
                        store_calls.unlink(entry.path)


def refuse_unreadable(cas: Cas, digest: Digest, error: OSError) -> None:
    """Remove a blob whose reader met an error that says its place on the disk is bad.

    Its mark only says that it could be read once. Whoever needs it next gets it anew.
    """
    if error.errno in BAD_BITS:
        with contextlib.suppress(OSError):  # the disk may be read-only by now
            cas.refuse(digest)
