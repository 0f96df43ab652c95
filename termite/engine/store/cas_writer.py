"""Write one blob of the store in pieces, which may be holes."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from termite.engine.errors import Reason, RemoteProtocolError, Retryable
from termite.engine.model import Digest
from termite.engine.sparse_content import ContentHash
from termite.engine.store import store_calls


class CasWriter:
    """A blob that is being written. `finish` stores it, `discard` drops it.

    `discard` and `close`, which are the same, do nothing after `finish`.
    """

    def __init__(self, name: bytes, move_in: Callable[[bytes, Digest], None]) -> None:
        """Make the temporary file `name`. `move_in` moves it into the store when it is complete."""
        self._move_in = move_in
        self._name = name
        self._hash = ContentHash()
        self._has_holes = False
        with full_disk_is_retryable():
            self._fd = store_calls.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)

    def write(self, content: bytes | memoryview) -> None:
        """Append `content`. Raise Retryable if the disk is full."""
        self._hash.update(content)
        rest = memoryview(content)
        with full_disk_is_retryable():
            while rest:
                rest = rest[store_calls.write(self._fd, rest) :]

    def skip(self, length: int) -> None:
        """Append a hole of so many zeros. The caller has compared its length with the size."""
        self._hash.skip(length)
        self._has_holes = True
        with full_disk_is_retryable():
            os.lseek(self._fd, length, os.SEEK_CUR)

    def add(self, piece: bytes | memoryview | int) -> None:
        """Append data, or a hole of that length."""
        if isinstance(piece, int):
            self.skip(piece)
        else:
            self.write(piece)

    def finish(self, expected: Digest | None = None) -> Digest:
        """Store the complete blob, and return its digest.

        Raise RemoteProtocolError, upon which the peer is dropped, if the digest is not `expected`;
        then nothing is stored. None expects nothing.
        """
        digest = self._hash.digest()
        if expected is not None and digest != expected:
            self.discard()
            raise RemoteProtocolError(
                f"a blob does not match its digest: {digest.size} bytes, SHA-256 {digest.sha256.hex()}; "
                f"expected {expected.size} bytes, SHA-256 {expected.sha256.hex()}"
            )
        with full_disk_is_retryable():
            if self._has_holes:
                store_calls.ftruncate(self._fd, digest.size)
            self._move_in(self._name, digest)
        self._close()
        return digest

    def discard(self) -> None:
        """Drop the blob and its temporary file."""
        if self._fd >= 0:
            self._close()
            store_calls.unlink(self._name)

    close = discard  # for contextlib.closing

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


@contextlib.contextmanager
def full_disk_is_retryable() -> Iterator[None]:
    """Raise Retryable if the disk is full, or has no room for such a large file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Retryable(Reason.DISK_FULL, os.strerror(error.errno)) from error
        raise
