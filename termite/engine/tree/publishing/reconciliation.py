"""Compare the bases of a job's results with the disk as it is now, before anything is published.

The journal knows which files changed since the job began, so only those are compared, and a digest
is computed only if nobody knows it. Where the job and somebody else have appended to one file, the
job's tail is staged behind the file of the disk.

A local program may still write between the last check and the rename. See `late_writes`.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from termite.engine import look_calls
from termite.engine.errors import Conflict, RemoteProtocolError
from termite.engine.model import BaseVersion, Change, Digest
from termite.engine.paths import split
from termite.engine.sparse_content import ContentHash
from termite.engine.tree.hashes import Hashes, stamp_of
from termite.engine.tree.late_writes import LateWrites, OldFile, is_being_written
from termite.engine.tree.logic.attrs import AttrTree, Seen
from termite.engine.tree.logic.bases import Judgement, judge, needs_base
from termite.engine.tree.logic.journal import Journal
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.publishing.preparation import Contents, digest_of_change
from termite.engine.tree.publishing.staging import BLOCK_BYTES, StagedWriter, Staging
from termite.engine.tree.tree_disk import Disk, FsErrors, LookErrors

T = TypeVar("T")

ROUNDS = 3  # if a file changes during each of them, the job runs again
READ_AT_ONCE_BYTES = 1024 * 1024  # of a file on disk: a larger one is read in a thread


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The parts of a master's tree that a reconciliation asks. `held` are the paths of local runs.

    A local run holds the paths over which its command had a conflict before.
    """

    disk: Disk
    hashes: Hashes
    tree: AttrTree
    journal: Journal
    staging: Staging
    held: Counter[bytes]


@dataclass(slots=True)
class Reconciled:
    """The results as they are published: changes, and contents by SHA-256."""

    changes: Sequence[Change]
    contents: Contents
    appended: list[bytes] = field(default_factory=list)


class Reconciliation:
    """The reconciliation of one job's results. `close` it after they are published."""

    def __init__(self, neighbours: Neighbours, timing: Timing, drain: Callable[[], None]) -> None:
        """`drain` brings everything that was done on disk so far into the journal."""
        self._near = neighbours
        self._timing = timing
        self._drain = drain
        self._number = neighbours.journal.number
        self._based: list[tuple[Change, BaseVersion]] = []
        self._staged: list[Path] = []
        self._has_waited = False
        self.late = LateWrites(neighbours.disk)

    async def run(self, changes: Sequence[Change], contents: Contents) -> Reconciled:
        """Return the results that may be published now. Drain before.

        Raise Conflict if the job must run again, and FsError if the disk refuses.
        """
        self._based = [(change, base) for change in changes if (base := needs_base(change)) is not None]
        for _ in range(ROUNDS if self._based else 0):
            self._has_waited = False
            self._number = self._near.journal.number
            reconciled = await self._reconcile(changes, contents)
            if not self._has_waited:
                return reconciled
            self._drain()
            if not self._moved():
                return reconciled
        if self._based:
            raise self._conflict(self._moved())
        return Reconciled(changes, contents)

    def check(self) -> None:
        """Check that `run` still holds. Raise Conflict if a file has changed."""
        if not self._based:
            return
        self._drain()
        if moved := self._moved():
            raise self._conflict(moved)
        self._check_held()

    def look_at_files(self) -> Iterator[None]:
        """Look at each file that is replaced, and yield. Raise Conflict if one is being written.

        Call `check` before, and after other tasks have run.
        """
        for change, base in self._based:
            yield
            if change.attr is None or base.is_absence:
                continue
            seen = self._near.tree.seen(change.path)
            if seen is None or (fd := self._open_old(change.path)) < 0:
                continue
            # The next write of such a program would go to the file that a rename will remove. A
            # name that the file has got since the job began would keep the old content.
            if is_being_written(fd) or (change.link_to is None and seen.attr.nlink > 1):
                os.close(fd)
                raise self._conflict((change.path,))
            begin = seen.attr.digest or base.digest
            ctime_ns = _status(fd).st_ctime_ns
            old = OldFile(fd, seen.attr.size, seen.attr.mtime_ns, begin, seen.attr.nlink, ctime_ns)
            self.late.keep(change.path, old)

    def close(self) -> None:
        """Remove what was staged and not placed."""
        self.late.close()
        for path in self._staged:
            self._near.staging.discard(os.fsencode(path.name))

    async def _reconcile(self, changes: Sequence[Change], contents: Contents) -> Reconciled:
        self._check_held()
        tails: dict[bytes, Change] = {}
        staged: dict[bytes, bytes | Path] = {}
        conflicts: list[bytes] = []
        changed = self._changed_since(self._timing.number)
        for change, base in self._based if changed else ():
            if change.path not in changed:
                continue
            verdict = await self._judge(change, base)
            if verdict is Judgement.APPEND and (tail := await self._append(change, base, contents)):
                path, tails[change.path] = tail
                staged[digest_of_change(tails[change.path]).sha256] = path
            elif verdict is not Judgement.PLACE:
                conflicts.append(change.path)
        if conflicts:
            raise self._conflict(tuple(conflicts))
        if not tails:
            return Reconciled(changes, contents)
        return Reconciled([tails.get(change.path, change) for change in changes], {**contents, **staged}, [*tails])

    def _check_held(self) -> None:
        if self._near.held and (held := tuple(c.path for c, _ in self._based if c.path in self._near.held)):
            raise self._conflict(held, is_held=True)

    def _conflict(self, paths: tuple[bytes, ...], *, is_held: bool = False) -> Conflict:
        return Conflict(paths, tuple(change.path for change, _ in self._based), is_held=is_held)

    def _moved(self) -> tuple[bytes, ...]:
        """Return the judged paths that have changed since they were judged."""
        return tuple(sorted(self._changed_since(self._number)))

    def _changed_since(self, number: int) -> frozenset[bytes]:
        return self._near.journal.changed_since(number, (change.path for change, _ in self._based))

    # -- the disk -----------------------------------------------------------------------------------------------------

    async def _judge(self, change: Change, base: BaseVersion) -> Judgement:
        seen = self._near.tree.seen(change.path)
        if seen is None and not self._near.tree.is_served(split(change.path)[0]):
            return Judgement.PLACE if base.is_absence else Judgement.CONFLICT  # its directory is gone
        there = seen.attr if seen is not None else None
        verdict = judge(change, base, there)
        if verdict is not Judgement.UNKNOWN:
            return verdict
        assert seen is not None and there is not None, "the digest of a file is unknown"
        digest = await self._read(there.size, lambda: self._hash(change.path, seen))
        if digest is None:
            return Judgement.CONFLICT
        return judge(change, base, msgspec.structs.replace(there, digest=digest))

    def _hash(self, path: bytes, seen: Seen) -> Digest | None:
        """Return the digest of the version that was seen, or None if it is no longer there."""
        with self._opened(path, seen) as fd, FsErrors(path):
            if fd is None:
                return None
            digest = self._near.hashes.hash_file(fd)
            return digest if stamp_of(look_calls.fstat(fd)) == seen.stamp else None

    async def _append(self, change: Change, base: BaseVersion, contents: Contents) -> tuple[Path, Change] | None:
        """Stage the file of the disk with the tail of the job's version.

        Return its path and its change, or None if one of them does not begin with the base.
        """
        seen = self._near.tree.seen(change.path)
        assert seen is not None and change.attr is not None, "both are files"
        content = contents.get(digest_of_change(change).sha256)
        if content is None:
            raise RemoteProtocolError(f"no content of {change.path!r}")
        staged = await self._read(seen.attr.size, lambda: self._join(change.path, seen, base, content))
        if staged is None:
            return None
        path, digest = staged
        written_ns = self._timing.master_ns(change.attr.mtime_ns, self._near.staging.now_ns())
        attr = msgspec.structs.replace(
            change.attr, size=digest.size, digest=digest, mtime_ns=max(written_ns, seen.attr.mtime_ns)
        )
        return path, msgspec.structs.replace(change, attr=attr)

    def _join(self, path: bytes, seen: Seen, base: BaseVersion, content: bytes | Path) -> tuple[Path, Digest] | None:
        with self._opened(path, seen) as fd, FsErrors(path):
            if fd is None:
                return None
            writer = StagedWriter(self._near.staging)
            try:
                staged, digest = writer.end() if self._write_joined(writer, fd, base, content) else (None, None)
                is_good = staged is not None and stamp_of(look_calls.fstat(fd)) == seen.stamp
            except BaseException:
                writer.discard()
                raise
            if not is_good or staged is None or digest is None:
                writer.discard()
                return None
            self._staged.append(staged)
            return staged, digest

    def _write_joined(self, writer: StagedWriter, fd: int, base: BaseVersion, content: bytes | Path) -> bool:
        """Write the disk's file and the tail. Return False if one does not begin with the base."""
        begin = _Beginning(base)
        for block in _blocks_of_file(fd):
            begin.feed(block)
            writer.write(block)
        if not begin.is_base:
            return False
        begin = _Beginning(base)
        for block in self._blocks(content):
            writer.write(begin.feed(block))
        return begin.is_base

    def _blocks(self, content: bytes | Path) -> Iterator[bytes]:
        if isinstance(content, bytes):
            yield content
            return
        fd = look_calls.open(os.fsencode(content.name), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._near.staging.fd)
        try:
            yield from _blocks_of_file(fd)
        finally:
            os.close(fd)

    @contextmanager
    def _opened(self, path: bytes, seen: Seen) -> Iterator[int | None]:
        """Open the version of a file that was seen, or yield None if it is no longer there."""
        try:
            fd = self._near.disk.open_file(path)
        except OSError:
            yield None
            return
        try:
            yield fd if stamp_of(look_calls.fstat(fd)) == seen.stamp else None
        finally:
            os.close(fd)

    async def _read(self, size: int, read: Callable[[], T]) -> T:
        if size <= READ_AT_ONCE_BYTES:
            return read()
        self._has_waited = True
        return await trio.to_thread.run_sync(read)

    def _open_old(self, path: bytes) -> int:
        """Return an fd of the regular file that a result is about to replace, or -1.

        Raise Retryable if nobody knows what stands there, because a program may write to it.
        """
        try:
            with LookErrors(path):
                fd = self._near.disk.open_file(path)
        except OSError:
            return -1
        if stat.S_ISREG(_status(fd).st_mode):
            return fd
        os.close(fd)
        return -1


def _status(fd: int) -> os.stat_result:
    """Return the status of an open file, or close it and raise OSError."""
    try:
        return look_calls.fstat(fd)
    except OSError:
        os.close(fd)
        raise


class _Beginning:
    """The beginning of a content, which is compared with a base as the content is read."""

    def __init__(self, base: BaseVersion) -> None:
        self._base = base
        self._left = base.size
        self._state = ContentHash()

    def feed(self, block: bytes) -> bytes:
        """Return the part of the block that comes after the base."""
        self._state.update(block[: self._left])
        tail = block[self._left :]
        self._left = max(self._left - len(block), 0)
        return tail

    @property
    def is_base(self) -> bool:
        """Return whether everything before the tail is the base."""
        digest = self._base.digest
        return self._left == 0 and digest is not None and self._state.digest() == digest


def _blocks_of_file(fd: int) -> Iterator[bytes]:
    offset = 0
    while block := look_calls.pread(fd, BLOCK_BYTES, offset):
        yield block
        offset += len(block)
