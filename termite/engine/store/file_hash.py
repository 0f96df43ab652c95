"""Hash open files: the content of a blob, at once or in steps, from memory or from the disk.

A disk or a file system may notice by itself that bits are bad, and refuse to read. For the store
this is the same as another content.
"""

import errno
import hashlib
import os
from collections.abc import Iterator

from termite.engine.model import Digest
from termite.engine.store import store_calls

BLOB_CHUNK_BYTES = 256 * 1024  # hashing dominates the cost, and ten files at a time need little memory
REREAD_STEP_BYTES = 1024 * 1024  # some 0.7 ms
BAD_BITS = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)


def file_chunks(fd: int, size_bytes: int) -> Iterator[bytes]:
    """Yield the content, and at most one byte more than `size_bytes`.

    The additional byte shows that the file has grown.
    """
    offset = 0
    while chunk := store_calls.pread(fd, min(BLOB_CHUNK_BYTES, size_bytes + 1 - offset), offset):
        yield chunk
        offset += len(chunk)


def hash_file(fd: int, size_bytes: int) -> Digest:
    """Return the digest of a file that should have that many bytes."""
    sha256 = hashlib.sha256()
    size = 0
    for chunk in file_chunks(fd, size_bytes):
        sha256.update(chunk)
        size += len(chunk)
    return Digest(sha256.digest(), size)


def has_content(fd: int, digest: Digest) -> bool:
    """Return whether the file has this content. A file that the disk cannot read has not."""
    try:
        return hash_file(fd, digest.size) == digest
    except OSError as error:
        if error.errno in BAD_BITS:
            return False
        raise


class RereadBlob:
    """A blob that is read again from the disk. `is_bad` holds when all `steps` were made."""

    def __init__(self, fd: int, digest: Digest) -> None:
        self.is_bad = False
        self._fd = fd
        self._digest = digest

    def steps(self) -> Iterator[int]:
        """Yield the number of bytes that each step has read."""
        self._drop_pages()  # else the content would come from memory
        sha256 = hashlib.sha256()
        step_bytes = 0
        try:
            for chunk in file_chunks(self._fd, self._digest.size):
                sha256.update(chunk)
                step_bytes += len(chunk)
                if step_bytes >= REREAD_STEP_BYTES:
                    yield step_bytes
                    step_bytes = 0
        except OSError as error:
            if error.errno not in BAD_BITS:
                raise
        self.is_bad = sha256.digest() != self._digest.sha256
        self._drop_pages()  # nobody has asked for them
        yield step_bytes

    def _drop_pages(self) -> None:
        """Make the kernel forget the content, so that the next read comes from the disk."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
