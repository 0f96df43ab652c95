"""Read the blobs of a store again, shard by shard, and remove those that have changed on the disk.

Mirrors are short-lived, and a whole scrub takes longer. Therefore the store remembers in a file of
256 numbers when each shard was last scrubbed. The file may be lost or hold anything: a time that
cannot be right means that the shard is due.
"""

import contextlib
import os
import struct
from collections.abc import Iterator

from termite.engine.model import Digest
from termite.engine.store import store_calls
from termite.engine.store.eviction import blobs_of_shard

SHARDS = 256
SCRUB_S = 7 * 86400.0  # between two scrubs of a blob; disks are commonly scrubbed weekly to monthly
TIMES = b"scrubbed"  # the name of the file
_TIME = struct.Struct("<Q")  # seconds since 1970


def blobs_to_scrub(root: bytes, now: float | None) -> Iterator[tuple[bytes, int, Digest]]:
    """Yield the path, a descriptor and the digest of each blob in each shard that is due.

    A descriptor is closed after its turn. `now` is in seconds since 1970; None means that every
    shard is due. Raise OSError if the disk refuses.
    """
    if now is None:
        for every in range(SHARDS):
            yield from _blobs_to_scrub(root, b"%02x" % every)
        return
    while (shard := _claim_due_shard(os.path.join(root, TIMES), now)) is not None:
        yield from _blobs_to_scrub(root, b"%02x" % shard)


def _blobs_to_scrub(root: bytes, shard_name: bytes) -> Iterator[tuple[bytes, int, Digest]]:
    for _, _, path in blobs_of_shard(root, shard_name):
        with contextlib.ExitStack() as stack:
            try:
                sha256 = bytes.fromhex((shard_name + os.path.basename(path)).decode())
                fd = store_calls.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (ValueError, FileNotFoundError):
                continue  # it is no blob, or was evicted
            stack.callback(os.close, fd)
            yield path, fd, Digest(sha256, store_calls.fstat(fd).st_size)


def due_shard(times: bytes, now: float) -> int | None:
    """Return the shard that was scrubbed longest ago, or None if none is due.

    `times` is the content of the file, and `now` is in seconds since 1970.
    """
    whole = times[: SHARDS * _TIME.size].ljust(SHARDS * _TIME.size, b"\0")
    scrubbed = [time if time <= now else 0 for (time,) in _TIME.iter_unpack(whole)]
    shard = min(range(SHARDS), key=scrubbed.__getitem__)
    return shard if now - scrubbed[shard] > SCRUB_S else None


def _claim_due_shard(path: bytes, now: float) -> int | None:
    """Return the shard to scrub now, or None. It counts as scrubbed at once.

    A shard that takes longer than a mirror lives does not keep the others from their turn. Two
    mirrors at once may scrub the same shard, which does no harm. Raise OSError if the file cannot
    be read or written.
    """
    fd = store_calls.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        shard = due_shard(store_calls.pread(fd, SHARDS * _TIME.size, 0), now)
        if shard is not None:
            store_calls.pwrite(fd, _TIME.pack(int(now)), shard * _TIME.size)
        return shard
    finally:
        os.close(fd)
