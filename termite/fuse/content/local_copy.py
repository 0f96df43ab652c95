"""A file of this worker's own disk with the path of one of the master's: mostly the same toolchain.

If its digest is the one that the master says, its content need not cross the network. Nothing else
of it counts, neither mode nor time, and no job ever sees it: the content is copied into the store,
which verifies it once more.

A master could name any file of this worker, learn its digest, and have a job read its content. So
a file is offered only if it is public here. It is regular, others may read it, others may pass all
directories on the way down, no symlink is among them, and the worker's own user does not own it.
Paths of the master's toolchains are resolved (/usr/lib/..., never /lib/...), so that no symlink
needs to be followed.
"""

import contextlib
import functools
import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from termite.engine.beneath import DIRECTORY, ITSELF
from termite.engine.model import Digest
from termite.engine.paths import components, is_within
from termite.engine.store.cas import Cas

WORTH_BYTES = 64 * 1024  # a smaller file comes inside the answer
CHUNK_BYTES = 256 * 1024
# No honest master lists what is in the first ones; in homes people forget modes.
PERSONAL = (b"proc", b"sys", b"dev", b"run", b"tmp", b"var/tmp", b"home", b"root")

log = logging.getLogger(__name__)


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
    """Read all of it, so this is for a thread. Return None if no public file of that size is here.

    Raises FsError if `path` is no path.
    """
    names = components(path)
    if size <= WORTH_BYTES or any(is_within(path, place) for place in PERSONAL):
        return None
    fd = -1
    try:
        fd = _open_public(names)
        if fd >= 0 and os.fstat(fd).st_size == size:
            sha256 = hashlib.sha256()
            for chunk in _chunks(fd):
                sha256.update(chunk)
            twin, fd = Twin(fd, Digest(sha256.digest(), size)), -1
            return twin
    except OSError as error:
        log.debug("local-copy-unreadable path=%r reason=%r", path, str(error))
    finally:
        if fd >= 0:
            os.close(fd)
    return None


def _open_public(names: list[bytes]) -> int:
    """Return a descriptor of the file, or -1 if it is not public.

    Each name is opened before it is judged, and the next one is opened below that descriptor:
    nobody can exchange anything between. Neither a FIFO nor a device is opened for reading. Raises
    OSError if a name is not there.
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
