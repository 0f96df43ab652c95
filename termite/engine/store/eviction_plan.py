"""Choose the blobs that are evicted, from their last uses and sizes.

The names of a million blobs would take 100 MB, so a store is walked twice: `UseHistogram` counts,
and `EvictionPlan` then says of each blob whether it goes. A blob that was used in between stays.
"""

from collections import Counter

from termite.engine.model import StoreLimits

EVICT_TO_SHARE = 0.9  # of a limit: evicting more than needed postpones the next eviction
MAX_BUCKETS = 20_000  # 4 MB; each is a second at first, and twice as long whenever there are too many


class EvictionPlan:
    """A decision for each blob: the least recently used ones go, until the rest fits.

    All blobs go whose bucket of last use is below `bucket`. Blobs of that one go until their sum
    is `files` and `size_bytes`.
    """

    def __init__(self, shift: int, bucket: int, files: int, size_bytes: int) -> None:
        self._shift = shift
        self._bucket = bucket
        self._files = files
        self._bytes = size_bytes

    def takes(self, last_use_s: float, size_bytes: int) -> bool:
        """Return whether this blob goes. Call this once for each blob."""
        bucket = int(last_use_s) >> self._shift
        if bucket != self._bucket:
            return bucket < self._bucket
        if self._files <= 0 and self._bytes <= 0:
            return False
        self._files -= 1
        self._bytes -= size_bytes
        return True


class UseHistogram:
    """The files and bytes of a store by their last use."""

    def __init__(self) -> None:
        self._shift = 0  # a bucket is 2**shift seconds long
        self._files: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()

    def add(self, last_use_s: float, size_bytes: int) -> None:
        """Count one blob; the last use is in seconds since 1970."""
        bucket = int(last_use_s) >> self._shift
        self._files[bucket] += 1
        self._bytes[bucket] += size_bytes
        if len(self._files) > MAX_BUCKETS:
            self._shift += 1
            self._files, self._bytes = _halved(self._files), _halved(self._bytes)

    def plan(self, limits: StoreLimits) -> EvictionPlan | None:
        """Return what to evict, or None if the store fits."""
        files, size_bytes = self._files.total(), self._bytes.total()
        if files <= limits.max_files and size_bytes <= limits.max_bytes:
            return None
        # A limit that is kept asks for nothing.
        files -= int(limits.max_files * EVICT_TO_SHARE) if files > limits.max_files else files
        size_bytes -= int(limits.max_bytes * EVICT_TO_SHARE) if size_bytes > limits.max_bytes else size_bytes
        for bucket in sorted(self._files):
            if self._files[bucket] >= files and self._bytes[bucket] >= size_bytes:
                return EvictionPlan(self._shift, bucket, files, size_bytes)
            files -= self._files[bucket]
            size_bytes -= self._bytes[bucket]
        raise AssertionError("the buckets hold more than the excess")


def _halved(buckets: Counter[int]) -> Counter[int]:
    halved: Counter[int] = Counter()
    for bucket, count in buckets.items():
        halved[bucket >> 1] += count
    return halved
