"""Keep the key by which workers tell the contents of one user's masters from those of others.

Everybody in a cluster has its secret, so a certificate does not tell one member from another. This
key never leaves the user's machine. Each worker gets a key that is derived from it, so that no
worker can use it at another one.
"""

import contextlib
import os
from hashlib import blake2b
from pathlib import Path

from termite.engine.wire.addresses import INPROC

OWNER_BYTES = 32


def read_owner(path: Path) -> bytes:
    """Return the key in the file `path`, which is made if it is missing.

    If the file is of no use, return a new key, which holds for this process only.
    """
    with contextlib.suppress(OSError):
        _make(path)
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            key = file.read(OWNER_BYTES + 1)
        if len(key) == OWNER_BYTES and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return key
    return os.urandom(OWNER_BYTES)


def _make(path: Path) -> None:
    """Make the file, complete, unless there is one."""
    if os.path.lexists(path):
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(os.urandom(OWNER_BYTES))
        with contextlib.suppress(FileExistsError):  # another master has just made it
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def owner_key(owner: bytes, address: str) -> bytes:
    """Return the key for the worker at an address.

    The worker inside a master has the same key under each name.
    """
    place = INPROC if address.startswith(INPROC) else address
    return blake2b(place.encode(), key=owner, digest_size=OWNER_BYTES).digest()
