"""Name the accesses of a job: the paths that its system calls named, and how they were used.

The tracer of the sandbox notes them. It sees the calls, but not their results: an `open` that has
failed looks like one that succeeded.
"""

import enum
from typing import NamedTuple


class AccessKind(enum.IntFlag):
    """A kind of use of a path. The values are those that the tracer writes.

    FOLLOW and NOFOLLOW concern a symlink at the end of the path; neither means FOLLOW.
    """

    READ = 1 << 0  # opened for its content
    WRITE = 1 << 1  # opened for writing, and the old content is kept
    CREATE = 1 << 2  # O_CREAT without O_EXCL
    EXCL = 1 << 3  # O_CREAT with O_EXCL, which says whether the path was there
    TRUNC = 1 << 4  # O_TRUNC
    STAT = 1 << 5  # size, mode, times or existence were asked for
    ACCESS = 1 << 6  # existence and permission were asked for
    READLINK = 1 << 7
    EXEC = 1 << 8  # executed; the kernel also opens the interpreter that the file's head names
    LIST = 1 << 9  # the names in a directory were read
    CHDIR = 1 << 10
    UNLINK = 1 << 11  # unlink, rmdir, or renamed away
    MAKE = 1 << 12  # mkdir, mknod, symlink, bind, or the new name of a link or a rename
    META = 1 << 13  # chmod, chown, utimens, setxattr, truncate
    OPATH = 1 << 14  # O_PATH
    NOFOLLOW = 1 << 15  # at least once a symlink at the end was not followed
    MOVED = 1 << 16  # the old name of a rename or a link: its content lives on under another name
    FOLLOW = 1 << 17  # at least once a symlink at the end was followed


class PathAccess(NamedTuple):
    """A path that a job named, with the kinds of its first use and of all its uses.

    `path` is absolute and as the job named it, so it may lead through symlinks. Empty and `.`
    components are gone, but `..` may be in it: `a/..` leads elsewhere if `a` is a symlink.
    """

    path: bytes
    first: AccessKind
    kinds: AccessKind


class JobTrace(NamedTuple):
    """The accesses of one job, in the order of their first use.

    `gaps` names what makes the trace useless, such as `mount`. `lost` counts the notifications that
    a signal interrupted; with one of them, the job may have seen an error that is not its own.
    `calls` counts the system calls that were noted.
    """

    accesses: tuple[PathAccess, ...]
    gaps: tuple[str, ...] = ()
    lost: int = 0
    calls: int = 0
