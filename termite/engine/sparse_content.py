"""Read, hash and copy contents whose holes cost nothing: a disk image may be 20 GiB of zeros.

The *digest* of a content is its SHA-256, unless a whole aligned block of BLOCK_BYTES is zero. Such
a content has the BLAKE2b of these fields, each a little-endian u64, with 32 bytes and the
personalization PERSON:

    for each run of zero blocks: the number of its first block, and the number of blocks
    the SHA-256 of all other bytes, one after the other (32 bytes, not a u64)
    the size of the content

A digest therefore depends on the bytes alone, and not on how a file system keeps them. Another hash
function makes it impossible to find a content whose SHA-256 is such a digest. A content that is
smaller than a block always has its SHA-256.
"""

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator

from termite.engine.model import Digest

BLOCK_BYTES = 256 * 1024  # larger than any content that is sent inside a message
PERSON = b"termite-sparse-1"
SECTOR_BYTES = 512  # the unit of st_blocks
NO_DATA = (errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # of SEEK_DATA: no more, or no such call
_ZEROS = bytes(BLOCK_BYTES)
_RUN = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")

Piece = bytes | int  # data, or the length of a hole in bytes


class ContentHash:
    """The digest of a content that comes in pieces of any length."""

    def __init__(self) -> None:
        self.size = 0
        self._state = hashlib.sha256()
        self._runs: list[tuple[int, int]] = []
        self._zeros = 0  # that the present block begins with; -1 if it has other bytes, too

    def update(self, content: bytes | memoryview) -> None:
        """Append `content`."""
        view = memoryview(content)
        while view:
            length = min(len(view), BLOCK_BYTES - self.size % BLOCK_BYTES)
            self._add(view[:length])
            view = view[length:]

    def skip(self, length: int) -> None:
        """Append `length` zeros, at no cost."""
        head = min(length, -self.size % BLOCK_BYTES)
        self.update(_ZEROS[:head])
        blocks, tail = divmod(length - head, BLOCK_BYTES)
        if blocks:
            self._note_run(self.size // BLOCK_BYTES, blocks)
            self.size += blocks * BLOCK_BYTES
        self.update(_ZEROS[:tail])

    def digest(self) -> Digest:
        """Return the digest of everything so far. More may be appended afterwards."""
        state = self._state
        if self._zeros > 0:
            state = state.copy()
            state.update(_ZEROS[: self._zeros])
        if not self._runs:
            return Digest(state.digest(), self.size)
        whole = hashlib.blake2b(digest_size=32, person=PERSON)
        whole.update(b"".join(_RUN.pack(*run) for run in self._runs))
        whole.update(state.digest() + _SIZE.pack(self.size))
        return Digest(whole.digest(), self.size)

    def _add(self, part: memoryview) -> None:
        """Append what does not reach beyond the present block."""
        if self._zeros >= 0 and part[0] == part[-1] == 0 and part.tobytes() == _ZEROS[: len(part)]:
            self._zeros += len(part)
        else:
            if self._zeros > 0:
                self._state.update(_ZEROS[: self._zeros])
            self._zeros = -1
            self._state.update(part)
        self.size += len(part)
        if self.size % BLOCK_BYTES == 0:
            if self._zeros > 0:
                self._note_run(self.size // BLOCK_BYTES - 1, 1)
            self._zeros = 0

    def _note_run(self, first: int, blocks: int) -> None:
        """Note so many zero blocks from number `first` on."""
        if self._runs and sum(self._runs[-1]) == first:
            self._runs[-1] = self._runs[-1][0], self._runs[-1][1] + blocks
        else:
            self._runs.append((first, blocks))


def digest_of(content: bytes) -> Digest:
    """Return the digest of a content in memory."""
    state = ContentHash()
    state.update(content)
    return state.digest()


def pieces(fd: int, end: int, chunk_bytes: int, pread: Callable[[int, int, int], bytes] = os.pread) -> Iterator[Piece]:
    """Yield what a file has up to the position `end`: data of at most `chunk_bytes`, and holes.

    The last piece ends where the file ends, if that is before `end`. The offset of the fd moves
    during a step only. Raise OSError.
    """
    offset = 0
    status = os.fstat(fd)
    is_sparse = is_sparse_file(status)
    while offset < end:
        limit = end
        if is_sparse and offset < status.st_size:
            data, limit = _extent(fd, offset, min(status.st_size, end))
            if data > offset:
                yield data - offset
                offset = data
                continue
        chunk = pread(fd, min(chunk_bytes, limit - offset), offset)
        if not chunk:
            return
        yield chunk
        offset += len(chunk)


def is_sparse_file(status: os.stat_result) -> bool:
    """Return whether a file takes less space than its size, so that it may have holes."""
    return status.st_size > BLOCK_BYTES and status.st_blocks * SECTOR_BYTES < status.st_size


def copy_pieces(source: int, target: int, write: Callable[[int, memoryview], int] = os.write) -> None:
    """Copy a file to an empty one, without its holes. Raise OSError."""
    status = os.fstat(source)
    for piece in pieces(source, status.st_size, BLOCK_BYTES):
        if isinstance(piece, int):
            os.lseek(target, piece, os.SEEK_CUR)
            continue
        rest = memoryview(piece)
        while rest:
            rest = rest[write(target, rest) :]
    os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))


def _extent(fd: int, offset: int, end: int) -> tuple[int, int]:
    """Return where the next data begin, at `offset` or later, and where they end."""
    before = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        data = min(os.lseek(fd, offset, os.SEEK_DATA), end)
        return data, min(os.lseek(fd, data, os.SEEK_HOLE), end) if data < end else end
    except OSError as error:  # there are no more data, or the file system has no holes
        if error.errno not in NO_DATA:
            raise
        return (end, end) if _has_holes(fd, offset) else (offset, end)
    finally:
        os.lseek(fd, before, os.SEEK_SET)


def _has_holes(fd: int, offset: int) -> bool:
    """Return whether the file system finds a hole at `offset`."""
    try:
        return os.lseek(fd, offset, os.SEEK_HOLE) == offset
    except OSError as error:
        if error.errno not in NO_DATA:
            raise
        return False
