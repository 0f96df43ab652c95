"""Offer a file of this worker's own disk in place of the master's file at the same path.

Mostly these are files of the same toolchain. If the digest is the one that the master names, the
content need not cross the network. Nothing else of the file counts, neither mode nor time, and no
job ever sees it: the content is copied into the store, which verifies it once more.

A master could name any file of this worker, learn its digest, and have a job read its content.
Therefore a file is offered only if it is public here:

* it is a regular file that others may read, and the worker's own user does not own it;
* others may pass all directories on the way down, and no symlink is among them.

The master's toolchain paths are resolved (/usr/lib/..., never /lib/...), so no symlink has to be
followed.
"""

import contextlib
import functools
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from termite.engine.beneath import DIRECTORY, ITSELF
from termite.engine.model import Digest
from termite.engine.paths import components, is_within
from termite.engine.sparse_content import ContentHash
from termite.engine.store.cas import Cas

WORTH_BYTES = 64 * 1024  # a smaller file comes inside the answer
CHUNK_BYTES = 256 * 1024
# No honest master lists files of the first ones; in home directories people forget modes.
PERSONAL = (b"proc", b"sys", b"dev", b"run", b"tmp", b"var/tmp", b"home", b"root")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """An open file with its digest; the caller of `find_local_copy` closes `fd`."""

    fd: int
    digest: Digest

    def copy_into(self, cas: Cas) -> bool:
        """Copy the content into the store; return False if it has changed since.

        This blocks, so call it in a thread.
        """
        writer = cas.writer()
        try:
            for chunk in _chunks(self.fd):
                writer.write(chunk)
            return writer.finish() == self.digest
        finally:
            writer.discard()


def find_local_copy(path: bytes, size: int) -> LocalCopy | None:
    """Return the public file of `size` bytes at `path` of this disk, or None if there is none.

    This reads the whole file, so call it in a thread. Raise FsError if `path` is not valid; the
    request for the file then fails.
    """
    names = components(path)
    if size <= WORTH_BYTES or any(is_within(path, place) for place in PERSONAL):
        return None
    fd = -1
    try:
        fd = _open_public(names)
        if fd >= 0 and os.fstat(fd).st_size == size:
            state = ContentHash()
            for chunk in _chunks(fd):
                state.update(chunk)
            local, fd = LocalCopy(fd, state.digest()), -1
            return local
    except OSError as error:
        log.debug("local-copy-unreadable path=%r reason=%r", path, str(error))
    finally:
        if fd >= 0:
            os.close(fd)
    return None


def _open_public(names: list[bytes]) -> int:
    """Return a descriptor of the file, or -1 if it is not public.

    Each name is opened before it is judged, and the next one is opened below that descriptor, so
    nobody can exchange a file in between. Neither a FIFO nor a device is opened for reading. Raise
    OSError if a name is missing.
    """
    with contextlib.ExitStack() as way:
        fd = os.open(b"/", os.O_PATH | DIRECTORY)
        way.callback(os.close, fd)
        for name in names:
            if not os.fstat(fd).st_mode & stat.S_IXOTH:
                return -1
            fd = os.open(name, os.O_PATH | ITSELF, dir_fd=fd)
            way.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IROTH or status.st_uid == _own_uid():
            return -1
        return os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)


@functools.cache
def _own_uid() -> int:
    """Return the uid of the worker's own user, or -1 if that is root.

    Public files of root are everybody's. In the mirror's user namespace the worker's user has the
    uid 0, and the host's root is nobody, see user_namespaces(7).
    """
    inside, outside, _ = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
    return -1 if os.geteuid() - inside + outside == 0 else os.geteuid()


def _chunks(fd: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)
