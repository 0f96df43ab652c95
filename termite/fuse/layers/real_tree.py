"""Write a part of the master's tree as real files on this worker's disk.

The master names the files, and it is not trusted. Therefore each name is checked, each directory is
reached from the top without a symlink, and no existing file is written to. Even if another check
was forgotten, nothing outside the tree is touched.
"""

import errno
import os
import stat

from termite.engine.beneath import DIRECTORY, FILE, open_beneath
from termite.engine.errors import FsError
from termite.engine.model import Attr, Digest
from termite.engine.paths import components, split
from termite.engine.sparse_content import copy_pieces, is_sparse_file
from termite.engine.store.cas import Cas, refuse_unreadable
from termite.fuse import mirror_calls

# The mode bits that a file keeps. A program that reached a setuid file on this disk could become
# the worker's user. A directory keeps all of its bits: setgid executes nothing there, and new
# entries of a job must get the directory's group.
FILE_MODE_BITS = 0o1777
MAX_NAME_BYTES = 255  # of tmpfs, ext4, xfs and btrfs
MAX_TARGET_BYTES = 4095  # of a symlink

# Marks of overlayfs. Every overlay of ours is mounted with `userxattr`, so they begin with `user.`.
OPAQUE_XATTR = "user.overlay.opaque"  # if "y", the directory hides that of the layers below
ORIGIN_XATTR = "user.overlay.origin"  # even if empty, the entry was copied up or may be merged

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def can_be_real(path: bytes, attr: Attr) -> bool:
    """Return whether this disk can hold the entry as a job must see it.

    Setuid and setgid files cannot be real, because these bits are never set on this disk. The
    mirror shows every entry that cannot be real.
    """
    if len(path) - path.rfind(b"/") - 1 > MAX_NAME_BYTES:
        return False
    if stat.S_ISLNK(attr.mode):
        return 0 < len(attr.target) <= MAX_TARGET_BYTES and b"\0" not in attr.target
    return not stat.S_ISREG(attr.mode) or attr.mode & (stat.S_ISUID | stat.S_ISGID) == 0


class RealTree:
    """A tree of files in the existing directory `top`, used in a `with` statement.

    Paths are relative to `top`. Every method blocks on the disk and raises OSError, also if a path
    would lead out of `top`; the caller then does without the layer.
    """

    def __init__(self, top: bytes) -> None:
        self._top = mirror_calls.open(top, os.O_PATH | DIRECTORY)
        self._parent: bytes | None = None  # the directory that is open as `_parent_fd`
        self._parent_fd = -1

    def __enter__(self) -> "RealTree":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        os.close(self._top)

    def make_directory(self, path: bytes) -> None:
        """Make an empty directory, open to the mirror alone until `set_directory_attributes`."""
        parent, name = self._enter(path)
        mirror_calls.mkdir(name, 0o700, dir_fd=parent)

    def make_whiteout(self, path: bytes) -> None:
        """Make a whiteout, which overlayfs takes for a name that is gone."""
        parent, name = self._enter(path)
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)

    def make_symlink(self, path: bytes, attr: Attr) -> None:
        """Make a symlink with its target and time."""
        parent, name = self._enter(path)
        mirror_calls.symlink(attr.target, name, dir_fd=parent)
        mirror_calls.utime(name, ns=(attr.mtime_ns, attr.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def make_file(self, path: bytes, content: bytes, attr: Attr) -> None:
        """Make a file from a content in memory, with its mode and time."""
        fd = self._new_file(path)
        try:
            if mirror_calls.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _set_file_attributes(fd, attr)
        finally:
            os.close(fd)

    def make_file_from_store(self, path: bytes, cas: Cas, digest: Digest | None, attr: Attr) -> bool:
        """Make a file from the store, with its mode and time. It is empty if `digest` is None.

        Return False, and make nothing, if the content is not in the store.
        """
        source = mirror_calls.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if digest is None else cas.open(digest)
        if source is None:
            return False
        try:
            self._copy_from(source, path, attr)
        except OSError as error:  # perhaps it is the other disk's: then a content is fetched in vain
            if digest is not None:
                refuse_unreadable(cas, digest, error)
            raise
        finally:
            os.close(source)
        return True

    def copy_file(self, path: bytes, other: "RealTree", attr: Attr) -> None:
        """Make a file with the content of the file at the same path of another tree."""
        source = open_beneath(other._top, _checked_path(path), FILE)
        try:
            self._copy_from(source, path, attr)
        finally:
            os.close(source)

    def link_file(self, path: bytes, other: "RealTree") -> None:
        """Give the file at the same path of another tree a name in this one too."""
        source, name = other._enter(path)
        parent, _ = self._enter(path)
        mirror_calls.link(name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def set_xattr(self, path: bytes, attribute: str, content: bytes) -> None:
        """Set an extended attribute of a directory, such as a mark of overlayfs."""
        fd = open_beneath(self._top, _checked_path(path), DIRECTORY)
        try:
            os.setxattr(fd, attribute, content)
        finally:
            os.close(fd)

    def set_directory_attributes(self, path: bytes, attr: Attr) -> None:
        """Give a directory its mode and time. Call this when nothing is added to it any more."""
        fd = open_beneath(self._top, _checked_path(path), DIRECTORY)
        try:
            os.fchmod(fd, stat.S_IMODE(attr.mode))
            mirror_calls.utime(fd, ns=(attr.mtime_ns, attr.mtime_ns))
        finally:
            os.close(fd)

    def _enter(self, path: bytes) -> tuple[int, bytes]:
        """Return the parent directory and the name of `path`.

        The directory stays open, because the next path is mostly in it too.
        """
        parent, name = split(_checked_path(path))
        if parent != self._parent:
            self._leave()
            self._parent_fd, self._parent = open_beneath(self._top, parent, DIRECTORY), parent
        return self._parent_fd, name

    def _leave(self) -> None:
        if self._parent is not None:
            os.close(self._parent_fd)
            self._parent = None

    def _new_file(self, path: bytes) -> int:
        parent, name = self._enter(path)
        return mirror_calls.open(name, _NEW_FILE, 0o600, dir_fd=parent)

    def _copy_from(self, source: int, path: bytes, attr: Attr) -> None:
        target = self._new_file(path)
        try:
            size = attr.size
            if is_sparse_file(mirror_calls.fstat(source)):
                copy_pieces(source, target, mirror_calls.write)
                size = 0
            while size > 0 and (copied := _copy_some(source, target, size)):
                size -= copied
            _set_file_attributes(target, attr)
        finally:
            os.close(target)


def _checked_path(path: bytes) -> bytes:
    """Return the path. Raise OSError if it could lead anywhere but down."""
    try:
        components(path)
    except FsError as error:
        raise OSError(error.errno, os.strerror(error.errno), path) from error
    return path


def _set_file_attributes(fd: int, attr: Attr) -> None:
    os.fchmod(fd, attr.mode & FILE_MODE_BITS)
    mirror_calls.utime(fd, ns=(attr.mtime_ns, attr.mtime_ns))


def _copy_some(source: int, target: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size)  # shares the blocks if the file system can
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        return os.sendfile(target, source, None, size)
