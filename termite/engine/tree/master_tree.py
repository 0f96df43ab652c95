"""Serve the user's files to mirrors, and bring the results of jobs back to them.

This module joins the parts of the room: the journal numbers the changes of everything that was
served. `drain` gives each local edit its number, and a job that starts later sees the edit.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import FsError, Retryable
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.paths import components, from_root_down
from termite.engine.tree.directory_reader import DirectoryReader
from termite.engine.tree.disk_follower import DiskFollower
from termite.engine.tree.file_contents import FileContents
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.logic.attrs import Events, Seen, Touch
from termite.engine.tree.logic.journal import Journal
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.publishing.orphaned_plans import clear_staging
from termite.engine.tree.publishing.preparation import Contents
from termite.engine.tree.publishing.publication import (
    NOBODY,
    Publication,
    Published,
    Ticket,
    TreeParts,
    publish_in_turn,
)
from termite.engine.tree.publishing.staging import StagedWriter, Staging
from termite.engine.tree.temporary_files import TemporaryFiles
from termite.engine.tree.tools.entry_notes import EntryNotes
from termite.engine.tree.tools.hidden_entries import may_have_entry
from termite.engine.tree.tools.private_entries import PrivateEntries
from termite.engine.tree.tools.programs import way_to
from termite.engine.tree.tools.slow_mounts import WatchedMounts
from termite.engine.tree.tools.tool_homes import ToolPlace
from termite.engine.tree.tree_disk import Disk


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """The settings of one master's tree. Paths are of the tree, and contain no symlinks.

    `exports` are shown whole and are read-only. `excludes` and `hidden` never leave the master.
    `hash_cache` is the database of digests on our own disk; if it is None, digests are kept in
    memory only. `shares_temporary`: jobs see /tmp and /var/tmp, and may leave new files there.
    """

    writable_root: bytes
    exports: tuple[bytes, ...] = ()
    excludes: tuple[bytes, ...] = ()
    hidden: tuple[bytes, ...] = ()
    hash_cache: Path | None = None
    shares_temporary: bool = True


class MasterTree:
    """The tree of one master: its files on disk, and what mirrors know of them (`attrs`).

    Only `open_file`, `recheck_settled` and `publish` wait, each for a thread. All other methods
    block as far as the disk does.
    """

    def __init__(self, config: TreeConfig) -> None:
        """Raise UserError if the writable root cannot be written or inotify is not available."""
        self._exports = Exports(
            config.writable_root,
            config.exports,
            config.excludes,
            config.hidden,
            shares_temporary=config.shares_temporary,
        )
        self.is_public = self._exports.is_for_everybody  # of a path outside the tree
        self._disk = Disk(b"/")
        self._hashes = Hashes(config.hash_cache)
        self._follower = DiskFollower(self._disk, self._exports, self._hashes)
        self.attrs = self._follower.tree
        self._temporary = TemporaryFiles(self._disk, self._exports, self._follower)
        self._journal, self._mounts = Journal(), WatchedMounts(config.writable_root)
        self._private = PrivateEntries(self._disk, self._exports, self._mounts)
        self._staging = Staging(config.writable_root)
        self.discarded = self._staging.discarded  # lines that name what is missing of the results of killed masters
        staging = self._staging
        staging.earlier = clear_staging(staging.path.parent, staging.fd, staging.plan.label, self.discarded)
        self._contents = FileContents(self._disk, self._exports, self._hashes, self._follower, self._journal)
        self._emptying = 0  # threads that are removing trash now
        never_leaves = frozenset(config.excludes + config.hidden)
        disk, exports, follower = self._disk, self._exports, self._follower
        self._parts = TreeParts(
            disk, exports, self._temporary, self._hashes, follower, self._journal, self._staging, never_leaves
        )
        self._turn = trio.Lock()  # of the job that is published

    @property
    def number(self) -> int:
        """Return the number of the newest changeset, 0 if there is none."""
        return self._journal.number

    @property
    def temporary(self) -> tuple[bytes, ...]:
        """Return the directories outside the writable root in which jobs may leave something."""
        return self._exports.temporary

    @property
    def notes(self) -> EntryNotes:
        """The notes on entries of the tree, as far as it was read."""
        return self._follower.reader.notes

    # -- serving ------------------------------------------------------------------------------------------------------

    @property
    def outside_entries(self) -> int:
        """Return the number of entries of directories outside the tree that were served."""
        return self._follower.outside.total

    def load(self, path: bytes, asker: str) -> None:
        """Load a directory for a worker, so that `directory` or `open_file` serves from it.

        Raise Retryable if it is outside the tree, and too many entries were served already.
        Otherwise raise what `directory` raises. This blocks on the disk.
        """
        components(path)
        self._journal.append(self._follower.serve(path, asker))

    async def directory(self, path: bytes) -> tuple[int, Attr, dict[bytes, Attr]]:
        """Return the journal number, the directory's own Attr, and those of its children by name.

        The journal has its later changes from now on. Raise FsError, which is for the job, if it
        cannot be listed; Stale if there is no such directory; and Retryable if a look fails.
        """
        components(path)
        self._journal.append(self._follower.serve(path))
        tree = self._follower.tree
        own = tree.seen(path)
        assert own is not None, "a served directory has been seen"
        return self.number, own.attr, {name: seen.attr for name, seen in tree.listing(path).items()}

    async def private_entry(self, path: bytes) -> Attr | None:
        """Return an entry that was not listed, as `PrivateEntries.find` does."""
        return await self._private.find(path)

    async def open_file(self, path: bytes, size: int, mtime_ns: int) -> tuple[int, Digest]:
        """Return an open fd of this version of a file, for the caller to close, and its digest.

        Raise FsError if it may not be opened, and Stale if the file is not, or no longer, this
        version; the journal then has the change.
        """
        components(path)
        return await self._contents.open_version(path, size, mtime_ns)

    @property
    def fifos(self) -> int:
        """A number that grows when a FIFO appears in the tree."""
        return self._journal.fifos

    @property
    def misses_changes(self) -> bool:
        """True if changes outside the writable root may be noticed by a re-check only."""
        return self._follower.watches.is_limited

    def find_private(self, path: bytes, *, is_spelled: bool = True, listed: bytes = b"") -> bytes:
        """Return the first directory or file on a path without symlinks that is private.

        It exists, and jobs do not see it, or not all of it. Return b"" if there is none, or if no
        job is meant to see the path. The rest is as in `DirectoryReader.find_private`.
        """
        try:
            return self._follower.reader.find_private(path, is_spelled=is_spelled, listed=listed)
        except FsError:
            return b""

    def show_named(self, argv: Sequence[bytes], cwd: bytes, environment: tuple[bytes, ...]) -> None:
        """Show to jobs what a command names in /tmp or /var/tmp, though it is private.

        `environment` is the same object for most commands, which saves a search. Drain afterwards.
        """
        if events := self._temporary.name(argv, cwd, environment):
            self._journal.append(self._follower.check(events))

    def show_tools(
        self, tools: Collection[ToolPlace], directories: Collection[bytes], links: Collection[bytes] = ()
    ) -> None:
        """Show these tools and files from now on, symlinks, and the programs of these directories.

        Jobs that start later see them. All paths are absolute. Nothing is shown if a look at one of
        them fails, which raises OSError. This blocks on the disk.
        """
        for directory in sorted(_show_tools(self._exports, tools, directories, links)):
            self._journal.append(self._follower.check_directory(directory))

    # -- the journal --------------------------------------------------------------------------------------------------

    def drain(self) -> int:
        """Check everything that was done in volatile directories, and return the journal number.

        Everything done before the call is in the journal afterwards. Raise Retryable, for the
        scheduler, if nobody knows what is at one of the places; the next call checks it again.
        """
        number = self._journal.append(self._follower.drain(is_trash_left=self._emptying > 0 or self._turn.locked()))
        if self._hashes.is_flush_due:
            self._hashes.flush()
        return number

    def changesets_since(self, cursor: int) -> tuple[Changeset, ...]:
        """Return the changesets after number `cursor`, which must not have been forgotten."""
        return self._journal.since(cursor)

    def result_number(self, path: bytes) -> int:
        """Return which changeset completed the newest result at a path; 0 if none is known."""
        return self._journal.result_number(path)

    def contents_since(self, number: int, most_bytes: int, total_bytes: int, most_files: int) -> dict[bytes, bytes]:
        """Return the contents, by path, of small files written after `number` that no worker has.

        A file of more than `most_bytes` is left out. All contents together have at most
        `total_bytes`, and at most `most_files` files are opened.
        """
        return self._contents.unsent_since(number, most_bytes, total_bytes, most_files)

    def forget_before(self, number: int) -> None:
        """Forget older changesets.

        No lease's cursor and no running job's number may be below `number`.
        """
        self._journal.forget_before(number)

    async def recheck_settled(self) -> int:
        """Check everything that was served and is not volatile, and return the journal number.

        A thread compares the stamps; only places that differ are then read again.
        """
        tree = self._follower.tree
        served = [d for d in tree.served_within(b"") if not self._exports.is_volatile(d)]
        shown = {directory: dict(tree.listing(directory)) for directory in served}
        suspects = await trio.to_thread.run_sync(_find_suspects, self._follower.reader, shown)
        for directory, names in suspects.items():
            if names is None:
                self._journal.append(self._follower.check_directory(directory))
            elif names:
                self._journal.append(self._follower.check(Events({directory: dict.fromkeys(names, Touch.UNKNOWN)})))
        self.drain()
        self._hashes.flush()
        return self.number

    # -- bringing home ------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the file system's own time, for `Timing.dispatched_ns`."""
        return self._staging.now_ns()

    def free_bytes(self) -> int:
        """Return how much space the disk of staged contents has. Raise FsError if it refuses."""
        return self._staging.free_bytes()

    def staging_file(self) -> StagedWriter:
        """Start to stage a content that comes in pieces. Raise FsError if the disk refuses."""
        return StagedWriter(self._staging)

    async def publish(
        self, changes: Sequence[Change], contents: Contents, timing: Timing, ticket: Ticket = NOBODY
    ) -> Published:
        """Make a job's changes on the user's disk, and wait until removed directories are emptied.

        `contents` has the bytes or the staged file of every new content, by SHA-256. Staged files
        are used up, whatever happens. Jobs are published one after another.

        Nothing is changed before the plan is written, and a cancellation leaves no trace until
        then. Until then, FsError means that the disk refuses or a path must not be written: the job
        fails. ResultRefused means that the changes must not come home: the command runs here.
        RemoteProtocolError means that the changes are not well-formed: the worker's connection is
        dropped. Conflict means that files from which the changes derive have changed since, or are
        held: the job must run again. After that the changes are completed though the caller is
        cancelled, and the only error is HalfPublished. The journal always has whatever was done.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        publication = Publication(self._parts, timing, ticket)
        try:
            while (published := await publish_in_turn(self._turn, publication, changes, contents)) is None:
                await ticket.wait_for_reader()
                publication = Publication(self._parts, timing, ticket)
        finally:
            for content in contents.values():
                if isinstance(content, Path):
                    self._staging.discard(os.fsencode(content.name))
            if trash := publication.done.trash:
                self._emptying += 1
                try:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(_empty, self._staging, trash)
                finally:
                    self._emptying -= 1
                self._journal.append(self._follower.check_link_counts(is_more_trash_left=self._emptying > 0))
        return published

    def hold(self, paths: Collection[bytes]) -> Callable[[], None]:
        """Publish no result that derives from one of these paths, until the caller releases them.

        Return the function that releases them.

        A command of this machine may read and write the files meanwhile. Nobody sees when it is
        between the two, and a result that came in the midst of it would be lost. Results that are
        being written now may still come: see `finished`.
        """
        held = Counter(paths)
        self._parts.held += held

        def release() -> None:
            nonlocal held
            self._parts.held -= held
            held = Counter()

        return release

    @property
    def is_finishing(self) -> bool:
        """True while the results of a job are written whose launcher has gone."""
        return self._parts.ticket is not None and self._parts.ticket.is_left()

    async def finished(self) -> None:
        """Wait until all results that are being written now are complete."""
        async with self._turn:
            pass

    # -- life and statistics -----------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Return the counters of the tree for the master's status reply."""
        directories, entries = self._follower.tree.counts()
        return {
            "directories": directories,
            "entries": entries,
            "watches": len(self._follower.watches),
            "unwatched": len(self._follower.watches.unwatched),
            "rescans": self._follower.rescans,
            "hashed": self._hashes.hashed,
            "hashed_bytes": self._hashes.hashed_bytes,
            "known_digests": len(self._hashes),
            "linked_files": self._follower.tree.linked_files,
            "lost_links": len(self._follower.lost),
            **self._journal.statistics(),
        }

    def may_have(self, path: bytes) -> bool:
        """Return whether something is at a path of results, as `may_have_entry` does."""
        return may_have_entry(self._disk, self._exports, path)

    def close(self) -> None:
        """Save the digests, and remove the staging directory. This blocks for at most two ticks."""
        self._hashes.ripen()
        with contextlib.suppress(Retryable):  # nobody will ask any more what is there
            self.drain()
        self._hashes.close()
        self._follower.watches.close()
        self._mounts.close()
        self._disk.close()
        self._staging.close()


def _find_suspects(
    reader: DirectoryReader, shown: Mapping[bytes, Mapping[bytes, Seen]]
) -> dict[bytes, set[bytes] | None]:
    return {directory: reader.find_suspects(directory, listing) for directory, listing in shown.items()}


def _empty(staging: Staging, trash: list[bytes]) -> None:
    for name in trash:
        staging.discard(name)


def _show_tools(
    exports: Exports, tools: Collection[ToolPlace], directories: Collection[bytes], links: Collection[bytes]
) -> set[bytes]:
    """Let jobs see what `MasterTree.show_tools` gets. Return the directories to read again."""
    ways = {path: way_to(path) for path in (*(tool.place for tool in tools), *directories, *links)}
    for tool in tools:
        tool.show(exports, ways[tool.place][1].strip(b"/"))
    for directory in directories:
        exports.show_programs(ways[directory][1].strip(b"/"))
    touched = set(exports.programs) if not all(tool.is_sealed for tool in tools) else set()
    for steps, real in ways.values():
        for link in steps:
            exports.lead_to(link.strip(b"/"))
        touched.update(step for path in (*steps, real) for step in from_root_down(path.strip(b"/")))
    return touched
