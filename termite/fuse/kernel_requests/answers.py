"""Make the answers about inodes and names, nearly all of which the kernel caches forever."""

import os
import stat
from typing import Any

import pyfuse3

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Attr
from termite.engine.paths import join
from termite.fuse.view.inodes import Node

FOREVER_S = 1e8  # three years; libfuse needs a number of seconds that fits into an integer
BLOCK_BYTES = 4096  # of most file systems


def absence(known_s: float) -> Any:
    """Return the answer that there is no such name. The kernel asks again after so many seconds."""
    answer = pyfuse3.EntryAttributes()
    answer.st_ino = 0
    answer.entry_timeout = known_s
    return answer


def unknown(parent: bytes, name: bytes, attr: Attr) -> Retryable:
    """Return the error for a job that touches a name whose kind nobody knows."""
    path = os.fsdecode(b"/" + join(parent, name))
    return Retryable(Reason.LOOK_FAILED, f"{path!r}: {os.strerror(attr.size)}")


def boundless() -> pyfuse3.StatvfsData:
    """Return the statistics of a file system that is never full."""
    answer = pyfuse3.StatvfsData()
    answer.f_bsize = answer.f_frsize = BLOCK_BYTES
    answer.f_blocks = answer.f_bfree = answer.f_bavail = 1 << 30
    answer.f_files = answer.f_ffree = answer.f_favail = 1 << 30
    answer.f_namemax = 255
    return answer


def entry_of(node: Node) -> Any:
    """Return the answer to the kernel about an inode.

    Everything belongs to the mirror's own user: overlay and the job's user namespace turn that into
    the submitter. A directory has one link: find(1) then does not count subdirectories.
    """
    attr = node.attr
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = node.inode
    entry.generation = 0
    # The master may have another private entry for the next job. The answer to that look brings its
    # attributes, too.
    entry.entry_timeout = 0 if node.job is not None or node.is_private else FOREVER_S
    entry.attr_timeout = FOREVER_S
    entry.st_mode = attr.mode
    entry.st_nlink = 1 if stat.S_ISDIR(attr.mode) else attr.nlink
    entry.st_uid = entry.st_gid = 0
    entry.st_rdev = 0
    entry.st_size = attr.size
    entry.st_blksize = node.block_bytes
    # `du` and `ls -l` show whole blocks, and none for a symlink.
    blocks = 0 if stat.S_ISLNK(attr.mode) else -(-attr.size // BLOCK_BYTES)
    entry.st_blocks = blocks * (BLOCK_BYTES // 512)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attr.mtime_ns
    return entry
