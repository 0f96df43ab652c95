"""The user's files as the master knows them: what it serves to mirrors, and what it brings home from them.

The journal says what has changed in what was served. Between two awaits everything here is one step: a drain never sees
half of a result.
"""

import errno
import logging
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from termite.engine.errors import FsError, Stale
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.paths import split
from termite.engine.tree.directories import Directories
from termite.engine.tree.disk import Disk
from termite.engine.tree.hashes import Hashes, is_racy, stamp_of
from termite.engine.tree.logic.attrs import Events, Seen, Stamp, Touch
from termite.engine.tree.logic.exports import Exports
from termite.engine.tree.logic.journal import Journal
from termite.engine.tree.logic.plan import make_plan
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.replay import Contents, Replay, Replayed
from termite.engine.tree.staging import StagedWriter, Staging
from termite.engine.tree.truth import Truth

HASH_AT_ONCE_BYTES = 64 * 1024  # 50 us: less than asking a thread to do it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """Paths are of the tree (no leading slash) and without symlinks. `excludes` and `hidden` never leave the master.
    `watched` are exports that change in the midst of builds."""

    writable_root: bytes
    exports: tuple[bytes, ...] = ()
    excludes: tuple[bytes, ...] = ()
    hidden: tuple[bytes, ...] = ()
    watched: tuple[bytes, ...] = ()
    hash_cache: Path | None = None


@dataclass(frozen=True, slots=True)
class BroughtHome:
    """A job's results are on disk, and in the journal up to `number`. `conflicts`: paths that another job, which ran
    at the same time, had written differently."""

    number: int
    conflicts: tuple[bytes, ...]


class HomeTree:
    """One master's. Raises UserError where the writable root cannot be watched or written."""

    def __init__(self, config: TreeConfig) -> None:
        self._exports = Exports(config.writable_root, config.exports, config.excludes, config.hidden, config.watched)
        self._disk = Disk(b"/")
        self._hashes = Hashes(config.hash_cache)
        self._truth = Truth(self._disk, self._exports, self._hashes)
        self._journal = Journal()
        self._staging = Staging(config.writable_root)
        self._hashing: dict[Stamp, trio.Event] = {}
        self._emptying = 0  # threads that remove what jobs have thrown away
        self._never_leaves = frozenset(config.excludes + config.hidden)

    @property
    def number(self) -> int:
        return self._journal.number

    # -- serving ------------------------------------------------------------------------------------------------------

    async def directory(self, path: bytes) -> tuple[int, Attr, dict[bytes, Attr]]:
        """The journal number, the directory's own Attr, and those of its children."""
        self._journal.append(self._truth.serve(path))
        tree = self._truth.tree
        own = tree.seen(path)
        assert own is not None, "a served directory has been seen"
        return self.number, own.attr, {name: seen.attr for name, seen in tree.listing(path).items()}

    async def open_file(self, path: bytes, size: int, mtime_ns: int) -> tuple[int, Digest]:
        """An fd for the caller to close. Stale where it is not that version any more: then the journal says so."""
        parent, _ = split(path)
        self._journal.append(self._truth.serve(parent))
        seen = self._truth.tree.seen(path)
        if seen is None:
            raise Stale(path)
        if not stat.S_ISREG(seen.attr.mode):
            raise FsError(_errno_of(seen.attr.mode), path)
        fd, stamp = self._open(path, size, mtime_ns)
        try:
            return fd, await self._digest(fd, path, stamp)
        except BaseException:
            os.close(fd)
            raise

    # -- the journal --------------------------------------------------------------------------------------------------

    def drain(self) -> int:
        """Take in everything that was done in the live tree. Returns the journal number."""
        number = self._journal.append(self._truth.drain())
        if self._hashes.is_flush_due:
            self._hashes.flush()
        return number

    def changesets_since(self, cursor: int) -> tuple[Changeset, ...]:
        return self._journal.since(cursor)

    def contents_since(self, number: int, most_bytes: int, total_bytes: int, most_files: int) -> dict[bytes, bytes]:
        """Of files of up to `most_bytes` that were written here after `number`, and are still as the journal says; in
        all not more than `total_bytes`. Not more than `most_files` are opened."""
        contents: dict[bytes, bytes] = {}
        room, files_left = total_bytes, most_files
        for changeset in self._journal.since(number):
            for change in changeset.changes:
                attr = change.attr
                if attr is None or attr.size > min(most_bytes, room) or not self._is_worth_telling(change.path, attr):
                    continue
                if files_left == 0:
                    return contents
                files_left -= 1
                content = self._read_if_still(change.path, attr)
                if content is not None:
                    contents[change.path] = content
                    room -= attr.size
        return contents

    def forget_before(self, number: int) -> None:
        """No lease's cursor, and no running job's number, is below `number`."""
        self._journal.forget_before(number)

    async def recheck_settled(self) -> int:
        """Look at everything that was served and is not watched. Returns the journal number."""
        tree = self._truth.tree
        served = [d for d in tree.served_within(b"") if not self._exports.is_watched(d)]
        shown = {directory: dict(tree.listing(directory)) for directory in served}
        suspects = await trio.to_thread.run_sync(self._suspects, shown)
        for directory, names in suspects.items():
            if names is None:
                self._journal.append(self._truth.list_again(directory))
            elif names:
                self._journal.append(self._truth.take_in(Events({directory: dict.fromkeys(names, Touch.UNKNOWN)})))
        self.drain()
        self._hashes.flush()
        return self.number

    # -- bringing home ------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The file system's now, for `Timing.dispatched_ns`."""
        return self._staging.now_ns()

    def staging_file(self) -> StagedWriter:
        return StagedWriter(self._staging)

    async def bring_home(self, changes: Sequence[Change], contents: Contents, timing: Timing) -> BroughtHome:
        """Make a job's changes here. `contents` has all of them, by SHA-256; staged files are used up.

        FsError where the disk refuses; the journal then has what was done nevertheless.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        done = Replayed()
        try:
            return self._bring_home_now(changes, contents, timing, done)
        finally:
            for content in contents.values():
                if isinstance(content, Path):
                    self._staging.remove(os.fsencode(content.name))
            if done.trash:
                self._emptying += 1
                try:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(self._empty, done.trash)
                finally:
                    self._emptying -= 1
                self._journal.append(self._truth.look_at_links(are_more_going=self._emptying > 0))

    # -- and the rest -------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        directories, entries = self._truth.tree.counts()
        return {
            "directories": directories,
            "entries": entries,
            "watches": len(self._truth.watches),
            "unwatched": len(self._truth.watches.unwatched),
            "rescans": self._truth.rescans,
            "hashed": self._hashes.hashed,
            "hashed_bytes": self._hashes.hashed_bytes,
        }

    def close(self) -> None:
        self.drain()
        self._hashes.close()
        self._truth.watches.close()
        self._disk.close()
        self._staging.close()

    def _bring_home_now(
        self, changes: Sequence[Change], contents: Contents, timing: Timing, done: Replayed
    ) -> BroughtHome:
        self.drain()
        plan = make_plan(changes, self._exports.is_writable)
        conflicts = self._journal.conflicts(timing.number, changes)
        replay = Replay(
            Directories(self._disk),
            self._staging,
            timing,
            kept=lambda: self._journal.made_since(timing.number) | self._never_leaves,
            seen=self._truth.tree.seen,
            done=done,
        )
        try:
            replay.publish(replay.prepare(plan, contents))
        finally:
            replay.close()
            for stamp, digest in done.placed:
                self._hashes.remember(stamp, digest)
            number = self._journal.append(self._truth.take_in(done.events))
        self._journal.note_results(number, changes)
        return BroughtHome(number, conflicts)

    def _empty(self, trash: list[bytes]) -> None:
        for name in trash:
            try:
                self._staging.remove(name)
            except OSError as e:  # it is tried again when the master ends
                log.warning("staging-not-emptied name=%r reason=%s", name, e)

    def _suspects(self, shown: Mapping[bytes, Mapping[bytes, Seen]]) -> dict[bytes, set[bytes] | None]:
        return {directory: self._truth.suspects(directory, listing) for directory, listing in shown.items()}

    def _look_at(self, path: bytes) -> None:
        events = Events()
        events.touch(path, Touch.UNKNOWN)
        self._journal.append(self._truth.take_in(events))

    def _open(self, path: bytes, size: int, mtime_ns: int) -> tuple[int, Stamp]:
        """The file as the tree knows it; where the disk is newer, the journal gets that first."""
        try:
            fd = self._disk.open_file(path)
        except FileNotFoundError as e:
            self._look_at(path)
            raise Stale(path) from e
        except OSError as e:
            raise FsError(e.errno or errno.EIO, path) from e
        found = stamp_of(os.fstat(fd))
        if not self._is_current(path, found):
            self._look_at(path)
        if self._is_current(path, found) and (found.size, found.mtime_ns) == (size, mtime_ns):
            return fd, found
        os.close(fd)
        raise Stale(path)

    def _is_worth_telling(self, path: bytes, attr: Attr) -> bool:
        """Whether the tree shows that version of a file still, and no worker has its content."""
        if not _is_news(attr) or not self._exports.is_live(path):
            return False
        seen = self._truth.tree.seen(path)
        return seen is not None and seen.attr is attr

    def _read_if_still(self, path: bytes, attr: Attr) -> bytes | None:
        """The content of that version of a file. None where the disk has another one by now, of which the journal will
        hear."""
        seen = self._truth.tree.seen(path)
        assert seen is not None and seen.attr is attr, "it is worth telling"
        try:
            fd = self._disk.open_file(path)
        except OSError:
            return None
        try:
            if stamp_of(os.fstat(fd)) != seen.stamp:
                return None
            content = os.read(fd, attr.size + 1)
            is_whole = len(content) == attr.size and stamp_of(os.fstat(fd)) == seen.stamp
            return content if is_whole else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def _is_current(self, path: bytes, stamp: Stamp) -> bool:
        seen = self._truth.tree.seen(path)
        return seen is not None and seen.stamp == stamp

    async def _digest(self, fd: int, path: bytes, stamp: Stamp) -> Digest:
        """By what is known, else by reading it: once, however many ask."""
        while (known := self._hashes.find(stamp)) is None and stamp in self._hashing:
            await self._hashing[stamp].wait()
        if known is not None:
            return known
        started_ns = time.time_ns()
        if stamp.size <= HASH_AT_ONCE_BYTES:
            digest = self._hashes.hash_file(fd)
        else:
            digest = await self._hash_aside(fd, stamp)
        after = os.fstat(fd)
        if stamp_of(after) != stamp or digest.size != stamp.size:
            self._look_at(path)
            raise Stale(path)
        if self._exports.is_live(path) or not is_racy(after, started_ns):
            self._learn(path, stamp, digest)
        return digest

    async def _hash_aside(self, fd: int, stamp: Stamp) -> Digest:
        ended = self._hashing[stamp] = trio.Event()
        try:
            return await trio.to_thread.run_sync(self._hashes.hash_file, fd)
        finally:
            del self._hashing[stamp]
            ended.set()

    def _learn(self, path: bytes, stamp: Stamp, digest: Digest) -> None:
        seen = self._truth.tree.seen(path)
        if seen is None or seen.stamp != stamp:
            self._hashes.remember(stamp, digest)
        else:
            self._hashes.remember(seen.stamp, digest)  # one object for both: of 100,000 files, 20 MB
            self._truth.tree.put(path, seen._replace(attr=msgspec.structs.replace(seen.attr, digest=digest)))


def _is_news(attr: Attr) -> bool:
    """Of a file with a digest a worker may have the content: somebody has asked for it or made it."""
    return attr.size > 0 and attr.digest is None and attr.nlink == 1 and stat.S_ISREG(attr.mode)


def _errno_of(mode: int) -> int:
    """What reading something that is not a regular file fails with."""
    return errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
