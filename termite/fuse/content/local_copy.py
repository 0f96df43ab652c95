"""A file of this worker's own disk with the path of one of the master's: mostly the same toolchain.

Where its digest is the one that the master says, its content need not cross the network. Nothing else of it counts,
neither mode nor time, and no job ever sees it: the content is copied into the store, which verifies it once more.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from termite.engine.model import Digest
from termite.engine.store.cas import Cas

WORTH_BYTES = 64 * 1024  # a smaller file comes inside the answer
CHUNK_BYTES = 256 * 1024
NOT_OURS = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV)


@dataclass(frozen=True, slots=True)
class Twin:
    """An open file, to be closed by whoever asked for it."""

    fd: int
    digest: Digest

    def copy(self, cas: Cas) -> bool:
        """Into the store; False where it has changed meanwhile."""
        writer = cas.writer()
        try:
            for chunk in _chunks(self.fd):
                writer.write(chunk)
            return writer.finish() == self.digest
        finally:
            writer.discard()


def find_twin(path: bytes, size: int) -> Twin | None:
    """Reads all of it, so it is for a thread. None where there is no such file here, or none that we may read."""
    if size <= WORTH_BYTES:
        return None
    try:
        # Not blocking: a device or FIFO might have that name.
        fd = os.open(b"/" + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in NOT_OURS:
            return None
        raise
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            sha256 = hashlib.sha256()
            for chunk in _chunks(fd):
                sha256.update(chunk)
            return Twin(fd, Digest(sha256.digest(), size))
    except OSError:
        pass  # its disk is broken: the master's is not
    os.close(fd)
    return None


def _chunks(fd: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)
