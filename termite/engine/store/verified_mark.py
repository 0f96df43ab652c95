"""Remember in a blob's own modification time that its content was verified.

A verified blob gets the current time as its mtime, and a signature in the lowest bits of the
nanoseconds. The signature is made of the digest and of the machine's boot. The mark holds as long
as two things are true, which one `stat` shows:

* The lowest bits are the signature. A write sets the mtime to the time of the write, and so erases
  the mark, except once in four million times.
* mtime and ctime are at most WINDOW_NS apart. Nobody can set a ctime, so a write whose mtime was
  set back, a copy, and a file from a backup have no mark.

The mark needs no file of its own. Nothing can be half-written, and eviction removes it with the
blob. The mtime also is the last use, and a new one keeps the mark. A file system with coarser times
keeps no mark; each mirror then hashes a blob at each open.

After a reboot no mark holds: a machine that lost power may have kept an inode without its content.
A content that changes on the disk while its inode stays the same cannot be seen; the scrub is for
that.
"""

import hashlib
import os
from pathlib import Path

from termite.engine.model import Digest

SIGNATURE_BITS = 22  # 4 ms: fewer bits match by chance more often, more bits need a wider window
WINDOW_NS = 20_000_000  # the signature's 4 ms, a timer tick of 10 ms, and the time of a system call
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SIGNATURE_MASK = (1 << SIGNATURE_BITS) - 1


def read_boot() -> int:
    """Return a number for the machine's boot. If it has none, the number is random."""
    try:
        text = BOOT_ID.read_bytes()
    except OSError:
        text = os.urandom(16)  # no mark of another process holds then
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


def marked_mtime_ns(digest: Digest, boot: int, now_ns: int) -> int:
    """Return the mtime that marks the blob `digest` as verified at `now_ns` (time.time_ns)."""
    return now_ns & ~_SIGNATURE_MASK | _signature(digest, boot)


def is_marked(digest: Digest, boot: int, mtime_ns: int, ctime_ns: int) -> bool:
    """Return whether a file with these times is the blob `digest`, verified since this boot."""
    return mtime_ns & _SIGNATURE_MASK == _signature(digest, boot) and abs(ctime_ns - mtime_ns) < WINDOW_NS


def _signature(digest: Digest, boot: int) -> int:
    return (int.from_bytes(digest.sha256[:4], "big") ^ boot) & _SIGNATURE_MASK
