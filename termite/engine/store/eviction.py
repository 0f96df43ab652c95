"""Evict the least recently used blobs of a store, in steps of some milliseconds each.

The caller decides when the next step is made, so that nothing waits for a walk over a million
files. Only one process at a time evicts from a store.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator

from termite.engine.model import StoreLimits
from termite.engine.store import store_calls
from termite.engine.store.eviction_plan import UseHistogram

STEP_BLOBS = 500  # some 2 ms: blobs that one step looks at
EVICTED = b"evicted"  # an empty file whose mtime says when the last eviction ended
DISK_BLOCK_BYTES = 512  # the unit of st_blocks on every file system


def evict_in_steps(root: bytes, limits: StoreLimits) -> Iterator[int]:
    """Yield the number of blobs that each step has evicted from the store at `root`.

    Do nothing while another process evicts from it.
    """
    with _alone_in(root) as is_alone:
        if not is_alone:
            return
        histogram = UseHistogram()
        for count, (last_use_s, size_bytes, _) in enumerate(_blobs(root)):
            histogram.add(last_use_s, size_bytes)
            if count % STEP_BLOBS == STEP_BLOBS - 1:
                yield 0
        plan = histogram.plan(limits)
        if plan is None:
            _note_eviction(root)
            return
        evicted = 0
        for count, (last_use_s, size_bytes, name) in enumerate(_blobs(root)):
            if plan.takes(last_use_s, size_bytes):
                with contextlib.suppress(FileNotFoundError):
                    store_calls.unlink(name)
                evicted += 1
            if count % STEP_BLOBS == STEP_BLOBS - 1:
                yield evicted
                evicted = 0
        _note_eviction(root)
        yield evicted


def last_eviction(root: bytes) -> float:
    """Return when an eviction of this store ended, in seconds since 1970; 0 if none did."""
    try:
        return store_calls.stat(os.path.join(root, EVICTED)).st_mtime
    except OSError:
        return 0.0


def blobs_of_shard(root: bytes, shard: bytes) -> Iterator[tuple[float, int, bytes]]:
    """Yield the last use in seconds, the size on disk in bytes, and the path of each blob.

    `shard` is the name of a directory of the store, two hexadecimal digits.
    """
    with contextlib.suppress(FileNotFoundError), store_calls.scandir(os.path.join(root, shard)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield status.st_mtime, status.st_blocks * DISK_BLOCK_BYTES, entry.path


def _note_eviction(root: bytes) -> None:
    fd = store_calls.open(os.path.join(root, EVICTED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        store_calls.utime(fd)
    finally:
        os.close(fd)


def _blobs(root: bytes) -> Iterator[tuple[float, int, bytes]]:
    for shard in store_calls.listdir(root):
        if len(shard) == 2:
            yield from blobs_of_shard(root, shard)


@contextlib.contextmanager
def _alone_in(root: bytes) -> Generator[bool, None, None]:
    """Yield whether nobody else is in this block for the same store."""
    fd = store_calls.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_alone = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_alone = False
        except OSError:  # a file system without locks: two evictions at once evict too much
            pass
        yield is_alone
    finally:
        os.close(fd)
