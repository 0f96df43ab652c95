"""Remember which master has proved that it has a content: it has sent it, or its jobs have made it.

A store is shared by the masters of a worker. A digest in a listing is no proof, because a master
may have learned the digest alone. Each master has a key, which no other master knows. The table
keeps a keyed hash of each content that the master has proved, so that the key is also the only way
to use or forge an entry. Contents that any user of their master's machine may read have entries
under a key that all masters know.

The table is a file of fixed size, which several processes may share. A full bucket loses an entry
at random. The master then sends a content once more.
"""

import contextlib
import os
from hashlib import blake2b
from pathlib import Path

from termite.engine.model import Digest
from termite.engine.store import store_calls

ENTRY_BYTES = 8  # a wrong entry matches once in 2**61 look-ups
BUCKET_BYTES = 8 * ENTRY_BYTES
BUCKETS = 2**17  # 8 MiB, of which a disk keeps what is written: room for a million contents
MAX_REMEMBERED = 20_000  # proved contents that this process need not look up again

_PUBLIC = b"any user may read it"
_FREE = bytes(ENTRY_BYTES)


class ProofTable:
    """The table in the file `path`, for the master with the key `owner`.

    If the file cannot be used, contents count as proved that were proved to this process.
    """

    def __init__(self, path: Path, owner: bytes) -> None:
        self._owner = owner
        self._known: set[bytes] = set()
        self._fd = -1
        with contextlib.suppress(OSError):  # no place on the disk: they are known to this process only
            self._fd = store_calls.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def has(self, digest: Digest) -> bool:
        """Return True if the master has proved this content, or any user may read it."""
        if digest.sha256 in self._known:
            return True
        if not (self._find(self._owner, digest) or self._find(_PUBLIC, digest)):
            return False
        self._remember(digest)
        return True

    def add(self, digest: Digest) -> None:
        """Note that the master has proved this content."""
        if digest.sha256 in self._known:
            return
        self._remember(digest)
        self._write(self._owner, digest)

    def add_public(self, digest: Digest) -> None:
        """Note that any user of the master's machine may read this content."""
        self._write(_PUBLIC, digest)

    def _remember(self, digest: Digest) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known.add(digest.sha256)

    def _find(self, key: bytes, digest: Digest) -> bool:
        entry, offset = _entry(key, digest)
        return _place(self._read(offset), entry) >= 0

    def _write(self, key: bytes, digest: Digest) -> None:
        entry, offset = _entry(key, digest)
        bucket = self._read(offset)
        if self._fd < 0 or _place(bucket, entry) >= 0:
            return
        free = _place(bucket, _FREE)
        place = free if free >= 0 else entry[0] % (BUCKET_BYTES // ENTRY_BYTES) * ENTRY_BYTES
        with contextlib.suppress(OSError):  # the disk is full: the content is sent once more
            store_calls.pwrite(self._fd, entry, offset + place)

    def _read(self, offset: int) -> bytes:
        try:
            return store_calls.pread(self._fd, BUCKET_BYTES, offset).ljust(BUCKET_BYTES, b"\0")
        except OSError:
            return bytes(BUCKET_BYTES)


def _entry(key: bytes, digest: Digest) -> tuple[bytes, int]:
    """Return the entry of a content, and the place of its bucket in the file."""
    mark = blake2b(digest.sha256, key=key, digest_size=16).digest()
    return mark[:ENTRY_BYTES], int.from_bytes(mark[ENTRY_BYTES:], "big") % BUCKETS * BUCKET_BYTES


def _place(bucket: bytes, entry: bytes) -> int:
    """Return where the entry stands in the bucket, or -1."""
    place = bucket.find(entry)
    while place % ENTRY_BYTES and place >= 0:
        place = bucket.find(entry, place + 1)
    return place
