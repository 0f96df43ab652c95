"""Make the directory in which one mirror process keeps its warm files; remove those of killed ones.

A process locks its directory as long as it runs. The kernel takes the lock away when the process
ends, however it ends. So a directory without a lock is a leftover, unless it is very young.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_GRACE_S = 60.0  # a directory this young may belong to a process that has not locked it yet

log = logging.getLogger(__name__)


@contextmanager
def private_directory(parent: Path) -> Iterator[Path]:
    """Make a directory in `parent` for this process, and remove it with all its content at the end.

    Also remove what killed processes have left in `parent`. This blocks on the disk.
    Raises OSError if the directory cannot be made; the process cannot work then.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in parent.iterdir():
        with suppress(OSError), _held_lock(leftover):  # in use, or gone: the next start tries again
            if time.time() - leftover.stat().st_mtime > LOCK_GRACE_S:
                remove_warm_files(os.fsencode(leftover))
    path = Path(tempfile.mkdtemp(dir=parent))
    with _held_lock(path):
        try:
            yield path
        finally:
            remove_warm_files(os.fsencode(path))


@contextmanager
def _held_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a directory. Raise OSError if another process has it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def remove_warm_files(path: bytes) -> None:
    """Remove a directory with all its content, and log what cannot be removed."""
    shutil.rmtree(os.fsdecode(path), onerror=_log_leftover)


def _log_leftover(_function: object, path: str, _error: object) -> None:
    log.warning("warm-layer-not-removed path=%r", path)
