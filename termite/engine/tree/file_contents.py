"""Open, read and hash the versions of files that the AttrTree shows.

A version is named by path, size and mtime, as mirrors name it. If the disk has another version by
now, the journal gets the change before the request is refused.
"""

import errno
import os
import stat
import time

import msgspec
import trio

from termite.engine import look_calls
from termite.engine.errors import FsError, Reason, Retryable, Stale
from termite.engine.look_errors import GONE, REFUSED
from termite.engine.model import Attr, Digest
from termite.engine.paths import split
from termite.engine.tree.disk_follower import DiskFollower
from termite.engine.tree.hashes import Hashes, is_racy, stamp_of
from termite.engine.tree.logic.attrs import Events, Stamp, Touch
from termite.engine.tree.logic.journal import Journal
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.tree_disk import Disk, LookErrors, look_failed

CLOSED = (errno.EACCES, errno.EPERM)  # to us
# A file of this size is hashed in 50 us, which is less than it takes to have a thread do it.
HASH_AT_ONCE_BYTES = 64 * 1024


class FileContents:
    """The contents of one tree's files, each hashed once for however many requests."""

    def __init__(self, disk: Disk, exports: Exports, hashes: Hashes, follower: DiskFollower, journal: Journal) -> None:
        self._disk = disk
        self._exports = exports
        self._hashes = hashes
        self._follower = follower
        self._journal = journal
        self._hashing: dict[Stamp, trio.Event] = {}  # set when the thread that hashes this file has ended

    async def open_version(self, path: bytes, size: int, mtime_ns: int) -> tuple[int, Digest]:
        """Return an open fd of a file, for the caller to close, and the digest of its content.

        Raise Stale if the file is not, or no longer, this version; the journal then has the change.
        Raise FsError if it may not be opened, here either. Raise Retryable if a look at it or
        reading it fails, or if it is a sealed program, or our own file that we may not read. Large
        files are hashed in a thread.
        """
        parent, _ = split(path)
        self._journal.append(self._follower.serve(parent))
        seen = self._follower.tree.seen(path)
        if seen is None or not stat.S_ISREG(seen.attr.mode):
            raise Stale(path)
        if path in self._follower.reader.sealed:
            raise Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(path))
        fd, stamp = self._open(path, size, mtime_ns)
        try:
            return fd, await self._digest(fd, path, stamp)
        except OSError as e:
            os.close(fd)
            raise look_failed(path, e) from e
        except BaseException:
            os.close(fd)
            raise

    def unsent_since(self, number: int, most_bytes: int, total_bytes: int, most_files: int) -> dict[bytes, bytes]:
        """Return the contents, by path, of small files written here that no worker has.

        They are those of files changed after journal number `number` that are still as the journal
        says. A file of more than `most_bytes` is left out. All contents together have at most
        `total_bytes`, and at most `most_files` files are opened. A file that cannot be read is left
        out.
        """
        contents: dict[bytes, bytes] = {}
        room, files_left = total_bytes, most_files
        for changeset in self._journal.since(number):
            for change in changeset.changes:
                attr = change.attr
                if attr is None or attr.size > min(most_bytes, room) or not self._is_worth_sending(change.path, attr):
                    continue
                if files_left == 0:
                    return contents
                files_left -= 1
                content = self._read_version(change.path, attr)
                if content is not None:
                    contents[change.path] = content
                    room -= attr.size
        return contents

    # -- one version --------------------------------------------------------------------------------------------------

    def _open(self, path: bytes, size: int, mtime_ns: int) -> tuple[int, Stamp]:
        """Open a file in the version that the AttrTree shows.

        If the disk has a newer one, the journal gets it first.
        """
        try:
            fd = self._disk.open_file(path)
        except OSError as e:
            if e.errno in GONE:  # a symlink is no absence: a local open follows it
                self._check_way(path)
                raise Stale(path) from e
            if e.errno in REFUSED:
                if e.errno in CLOSED and self._exports.is_live(path) and self._is_ours(path):
                    raise Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(path)) from e
                raise FsError(e.errno, path) from e
            raise look_failed(path, e) from e
        try:
            with LookErrors(path):
                found = stamp_of(look_calls.fstat(fd))
            if not self._is_current(path, found):
                self._check_path(path)
            if not self._is_current(path, found) or (found.size, wire_ns(found.mtime_ns)) != (size, mtime_ns):
                raise Stale(path)
        except BaseException:
            os.close(fd)
            raise
        return fd, found

    def _is_ours(self, path: bytes) -> bool:
        """Return whether a file that we may not read is our own. Raise Retryable if the look fails.

        The kernel lets no job read such a file. If a job's request comes here nevertheless, the job
        moves, links or executes the file, or appends to it.
        """
        with LookErrors(path):
            there = self._disk.look(path)
        return there is not None and there.st_uid == os.geteuid()

    def _check_way(self, path: bytes) -> None:
        """Let the journal get what has changed at a path, or at a directory above it."""
        events = Events()
        events.touch_way(path)
        self._journal.append(self._follower.check(events))

    def _check_path(self, path: bytes) -> None:
        events = Events()
        events.touch(path, Touch.UNKNOWN)
        self._journal.append(self._follower.check(events))

    def _is_current(self, path: bytes, stamp: Stamp) -> bool:
        seen = self._follower.tree.seen(path)
        return seen is not None and seen.stamp == stamp

    def _is_worth_sending(self, path: bytes, attr: Attr) -> bool:
        """Return whether this version of a file is still shown, and no worker has its content."""
        if not _is_new_to_workers(attr) or not self._exports.is_live(path):
            return False
        seen = self._follower.tree.seen(path)
        return seen is not None and seen.attr is attr

    def _read_version(self, path: bytes, attr: Attr) -> bytes | None:
        """Return the content of this version, or None if it is gone or cannot be read.

        If there is another version by now, the next drain reports it.
        """
        seen = self._follower.tree.seen(path)
        assert seen is not None and seen.attr is attr, "only a version that is worth sending is read"
        try:
            fd = self._disk.open_file(path)
        except OSError:
            return None
        try:
            if stamp_of(look_calls.fstat(fd)) != seen.stamp:
                return None
            content = look_calls.read(fd, attr.size + 1)
            is_whole = len(content) == attr.size and stamp_of(look_calls.fstat(fd)) == seen.stamp
            return content if is_whole else None
        except OSError:
            return None
        finally:
            os.close(fd)

    # -- its digest ---------------------------------------------------------------------------------------------------

    async def _digest(self, fd: int, path: bytes, stamp: Stamp) -> Digest:
        """Return the known digest, or hash the file.

        Requests for a file that is being hashed wait for that.
        """
        while (known := self._hashes.find(stamp)) is None and stamp in self._hashing:
            await self._hashing[stamp].wait()
        if known is not None:
            return known
        started_ns = time.time_ns()
        if stamp.size <= HASH_AT_ONCE_BYTES:
            digest = self._hashes.hash_file(fd)
        else:
            digest = await self._hash_in_thread(fd, stamp)
        after = look_calls.fstat(fd)
        if stamp_of(after) != stamp or digest.size != stamp.size:
            self._check_path(path)
            raise Stale(path)
        if self._exports.is_live(path) or not is_racy(after, started_ns):
            self._keep_digest(path, stamp, digest)
        return digest

    async def _hash_in_thread(self, fd: int, stamp: Stamp) -> Digest:
        ended = self._hashing[stamp] = trio.Event()
        try:
            return await trio.to_thread.run_sync(self._hashes.hash_file, fd)
        finally:
            del self._hashing[stamp]
            ended.set()

    def _keep_digest(self, path: bytes, stamp: Stamp, digest: Digest) -> None:
        seen = self._follower.tree.seen(path)
        if seen is None or seen.stamp != stamp:
            self._hashes.remember(stamp, digest)
        else:
            # The tree and the hashes share one Stamp object, which saves 20 MB for 100,000 files.
            self._hashes.remember(seen.stamp, digest)
            self._follower.tree.put(path, seen._replace(attr=msgspec.structs.replace(seen.attr, digest=digest)))


def _is_new_to_workers(attr: Attr) -> bool:
    """Return whether no worker can have this content.

    A digest means that a worker has asked for the content or has made it. Files with several names
    and empty files are never sent along.
    """
    return attr.size > 0 and attr.digest is None and attr.nlink == 1 and stat.S_ISREG(attr.mode)
