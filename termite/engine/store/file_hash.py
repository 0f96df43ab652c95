"""Hash open files: the content of a blob, at once or in steps, from memory or from the disk.

A disk or a file system may notice by itself that bits are bad, and refuse to read. For the store
this is the same as another content.
"""

import errno
import os
from collections.abc import Iterator

from termite.engine.model import Digest
from termite.engine.sparse_content import ContentHash, Piece, pieces
from termite.engine.store import store_calls

BLOB_CHUNK_BYTES = 256 * 1024  # hashing dominates the cost, and ten files at a time need little memory
REREAD_STEP_BYTES = 1024 * 1024  # some 0.7 ms
BAD_BITS = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)


def file_pieces(fd: int, size_bytes: int) -> Iterator[Piece]:
    """Yield the content, data and holes, and at most one byte more than `size_bytes`.

    The additional byte shows that the file has grown.
    """
    return pieces(fd, size_bytes + 1, BLOB_CHUNK_BYTES, store_calls.pread)


def hash_file(fd: int, size_bytes: int) -> Digest:
    """Return the digest of a file that should have that many bytes."""
    state = ContentHash()
    for piece in file_pieces(fd, size_bytes):
        if isinstance(piece, int):
            state.skip(piece)
        else:
            state.update(piece)
    return state.digest()


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
        state = ContentHash()
        step_bytes = 0
        try:
            for piece in file_pieces(self._fd, self._digest.size):
                if isinstance(piece, int):
                    state.skip(piece)
                    continue
                state.update(piece)
                step_bytes += len(piece)
                if step_bytes >= REREAD_STEP_BYTES:
                    yield step_bytes
                    step_bytes = 0
        except OSError as error:
            if error.errno not in BAD_BITS:
                raise
        self.is_bad = state.digest() != self._digest
        self._drop_pages()  # nobody has asked for them
        yield step_bytes

    def _drop_pages(self) -> None:
        """Make the kernel forget the content, so that the next read comes from the disk."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
