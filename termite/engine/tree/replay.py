"""Make a job's changes on the user's disk. No other code of termite changes the user's files.

Steps that can fail for lack of space or permission come first, in the staging directory; renames
follow. Everything is synchronous, so that no other task of this process sees half of a result or
interrupts it.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Attr, Change, Digest
from termite.engine.paths import from_root_down, is_within, split
from termite.engine.tree.disk import NOT_A_FILE, fs_errors, remove_beneath, set_attributes
from termite.engine.tree.hashes import stamp_of
from termite.engine.tree.logic.attrs import Events, Seen, Stamp, Touch
from termite.engine.tree.logic.plan import Plan
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.staging import NEW, Staging, copy_content
from termite.engine.tree.target_directories import TargetDirectories

# The content of each new file by SHA-256: its bytes, or the path of a staged file.
Contents = Mapping[bytes, bytes | Path]


@dataclass(slots=True)
class ReplayRecord:
    """The record of a replay, valid even if a later step has failed.

    `events` are the places that were changed. `placed` are files that have the job's content for
    certain. `trash` are names in the staging directory that must still be emptied.
    """

    events: Events = field(default_factory=Events)
    placed: list[tuple[Stamp, Digest]] = field(default_factory=list)
    trash: list[bytes] = field(default_factory=list)


class Replay:
    """The replay of one job: call `prepare`, then `commit`, and `close` in any case.

    Paths that `kept` returns are kept if a directory above them is removed. `seen` returns the
    entry that the AttrTree has for a path, or None. `done` is filled in as the replay goes on. All
    methods block; those that fail raise FsError, with which the job fails.
    """

    def __init__(
        self,
        directories: TargetDirectories,
        staging: Staging,
        timing: Timing,
        kept: Callable[[], frozenset[bytes]],
        seen: Callable[[bytes], Seen | None],
        done: ReplayRecord,
    ) -> None:
        self._directories = directories
        self._staging = staging
        self._timing = timing
        self._kept = kept
        self._seen = seen
        self._done = done
        self._now_ns = staging.now_ns()
        self._staged: dict[bytes, tuple[bytes, os.stat_result]] = {}

    def prepare(self, plan: Plan, contents: Contents) -> Plan:
        """Stage all new contents, and return the rest of the plan for `commit`.

        Nothing that the user sees is changed, but for directories that are made writable until
        `close`. A file that has its new content already is not staged: it gets its attributes only.
        Raise RemoteProtocolError if the worker has not sent a content.
        """
        new = {change.path for change in plan.directories}
        for path in sorted(plan.parents - new):
            with fs_errors(path):
                self._directories.open(path)
        same, files = self._divide(plan)
        uses = Counter(_digest(change).sha256 for change in files)
        for change in files:
            digest = _digest(change)
            uses[digest.sha256] -= 1
            with fs_errors(change.path):
                self._staged[change.path] = self._stage(change, contents, is_last=not uses[digest.sha256])
        return replace(plan, files=tuple(files), attributes=(*plan.attributes, *same))

    def commit(self, plan: Plan) -> None:
        """Make the changes on the user's disk.

        A new file is renamed over the old one, so that a reader finds one of them. Removals come
        last, so that a renamed file is found under at least one of its names. Only what stands in
        `plan.replaced` is missing for a moment.
        """
        steps: tuple[tuple[Callable[[Change], None], tuple[Change, ...]], ...] = (
            (self._make_directory, plan.directories),
            (self._place_file, plan.files),
            (self._make_symlink, plan.symlinks),
            (self._make_link, plan.links),
            (self._make_fifo, plan.fifos),
            (self._set_attributes, plan.attributes),
        )
        for path in plan.replaced:
            self._remove(path)
        for make, changes in steps:
            for change in changes:
                with fs_errors(change.path):
                    make(change)
        for path in plan.removed:
            self._remove(path)
        with fs_errors(b""):
            self._directories.finish()

    def close(self) -> None:
        """Set the final attributes of directories, and remove staged files that were not placed."""
        self._directories.close()
        for name, _ in self._staged.values():
            self._staging.remove(name)

    # -- before anything is changed -----------------------------------------------------------------------------------

    def _divide(self, plan: Plan) -> tuple[list[Change], list[Change]]:
        """Return the files that have their content already, and the others."""
        same: list[Change] = []
        files: list[Change] = []
        replaced = frozenset(plan.replaced)
        for change in plan.files:
            stays = self._has_content(change) and replaced.isdisjoint(from_root_down(change.path))
            (same if stays else files).append(change)
        return same, files

    def _has_content(self, change: Change) -> bool:
        seen = self._seen(change.path)
        return seen is not None and stat.S_ISREG(seen.attr.mode) and seen.attr.digest == _digest(change)

    def _stage(self, change: Change, contents: Contents, *, is_last: bool) -> tuple[bytes, os.stat_result]:
        """Stage a file with its mode and times, and return its name and its stat_result.

        `is_last`: no other file of the job needs this content, so a staged one need not be copied.
        """
        attr = _attr(change)
        digest = _digest(change)
        content = contents.get(digest.sha256, b"" if digest.size == 0 else None)
        if content is None:
            raise RemoteProtocolError(f"no content of {change.path!r}")
        times_ns = self._now_ns, self._master_ns(attr)
        if isinstance(content, bytes):
            return self._staging.write(content, stat.S_IMODE(attr.mode), times_ns)
        name = os.fsencode(content.name) if is_last else self._copy(os.fsencode(content.name))
        os.chmod(name, stat.S_IMODE(attr.mode), dir_fd=self._staging.fd)
        os.utime(name, ns=times_ns, dir_fd=self._staging.fd)
        return name, os.stat(name, dir_fd=self._staging.fd)

    def _copy(self, name: bytes, dir_fd: int | None = None) -> bytes:
        """Stage a copy of the file `name` of an open directory, or of the staging directory."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._staging.fd if dir_fd is None else dir_fd)
        try:
            return self._staging.copy(fd)
        finally:
            os.close(fd)

    # -- making things ------------------------------------------------------------------------------------------------

    def _make_directory(self, change: Change) -> None:
        self._done.events.touch(change.path, Touch.UNKNOWN)
        self._directories.make(change.path)
        self._set_directory_at_end(change)

    def _set_directory_at_end(self, change: Change) -> None:
        attr = _attr(change)
        mtime_ns = self._master_ns(attr)
        if self._timing.is_made_in_job(attr.mtime_ns):  # another job may have changed its entries since
            mtime_ns = max(mtime_ns, self._directories.mtime_ns(change.path))
        self._directories.set_at_end(change.path, attr.mode, mtime_ns)

    def _place_file(self, change: Change) -> None:
        name, st = self._staged[change.path]
        self._place(change.path, name)
        del self._staged[change.path]
        parent, there = self._directories.parent(change.path)
        now = os.stat(there, dir_fd=parent, follow_symlinks=False)
        if self._is_as_staged(change.path, stamp_of(now), stamp_of(st)):
            self._done.placed.append((stamp_of(now), _digest(change)))

    def _is_as_staged(self, path: bytes, now: Stamp, staged: Stamp) -> bool:
        """Return whether nothing has been written to a placed file for certain.

        A write in the same tick leaves the times as they were. The watch of the directory reports
        it, but a new directory is not watched yet; there only an older mtime is proof.
        """
        is_watched = not self._directories.is_new(split(path)[0])
        return now[:4] == staged[:4] and (is_watched or now.mtime_ns < self._now_ns)

    def _make_symlink(self, change: Change) -> None:
        attr = _attr(change)
        name = self._staging.reserve()
        os.symlink(attr.target, name, dir_fd=self._staging.fd)
        os.utime(name, ns=(self._now_ns, self._master_ns(attr)), dir_fd=self._staging.fd, follow_symlinks=False)
        self._place(change.path, name)

    def _make_fifo(self, change: Change) -> None:
        attr = _attr(change)
        name = self._staging.reserve()
        os.mkfifo(name, 0o600, dir_fd=self._staging.fd)
        set_attributes(name, self._staging.fd, attr.mode, self._master_ns(attr))
        self._place(change.path, name)

    def _make_link(self, change: Change) -> None:
        assert change.link_to is not None
        parent, target = self._directories.parent(change.link_to)
        name = self._staging.reserve()
        try:
            os.link(target, name, src_dir_fd=parent, dst_dir_fd=self._staging.fd, follow_symlinks=False)
        except OSError as e:
            if e.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            name = self._copy(target, parent)
            attr = _attr(change)
            set_attributes(name, self._staging.fd, attr.mode, self._master_ns(attr))
        self._place(change.path, name)
        self._staging.remove(name)  # rename does nothing if both are names of one file
        self._done.events.touch(change.link_to, Touch.ATTRIBUTES)

    def _place(self, path: bytes, staged: bytes) -> None:
        """Rename a staged entry to its place, over anything that stands there.

        If that fails, remove the staged entry.
        """
        try:
            parent, name = self._directories.parent(path)
            self._done.events.touch(path, Touch.UNKNOWN)
            self._rename(path, staged, parent, name)
        except BaseException:
            self._staging.remove(staged)
            raise

    def _rename(self, path: bytes, staged: bytes, parent: int, name: bytes) -> None:
        try:
            os.rename(staged, name, src_dir_fd=self._staging.fd, dst_dir_fd=parent)
        except IsADirectoryError:
            self._remove(path)
            os.rename(staged, name, src_dir_fd=self._staging.fd, dst_dir_fd=parent)
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
            self._place_across(staged, parent, name)

    def _place_across(self, staged: bytes, parent: int, name: bytes) -> None:
        """Place an entry on another file system, which is mounted below the writable root.

        The entry is staged once more beside its place, because rename cannot cross file systems.
        """
        st = os.stat(staged, dir_fd=self._staging.fd, follow_symlinks=False)
        near = b".termite-" + staged
        if stat.S_ISLNK(st.st_mode):
            os.symlink(os.readlink(staged, dir_fd=self._staging.fd), near, dir_fd=parent)
        elif stat.S_ISFIFO(st.st_mode):
            os.mkfifo(near, 0o600, dir_fd=parent)
        else:
            self._copy_across(staged, parent, near)
        try:
            set_attributes(near, parent, st.st_mode, st.st_mtime_ns)
            os.rename(near, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            os.unlink(near, dir_fd=parent)
            raise
        self._staging.remove(staged)

    def _copy_across(self, staged: bytes, parent: int, near: bytes) -> None:
        source = os.open(staged, os.O_RDONLY, dir_fd=self._staging.fd)
        target = os.open(near, NEW, 0o600, dir_fd=parent)
        try:
            copy_content(source, target)
        except OSError:
            os.unlink(near, dir_fd=parent)
            raise
        finally:
            os.close(source)
            os.close(target)

    def _set_attributes(self, change: Change) -> None:
        """Set the mode and mtime of an entry. If it is gone meanwhile, do nothing."""
        attr = _attr(change)
        try:
            if stat.S_ISDIR(attr.mode):
                self._directories.open(change.path)
                self._set_directory_at_end(change)
            else:
                parent, name = self._directories.parent(change.path)
                set_attributes(name, parent, attr.mode, self._master_ns(attr))
        except (FileNotFoundError, NotADirectoryError):
            return
        self._done.events.touch(change.path, Touch.ATTRIBUTES)

    # -- removing things ----------------------------------------------------------------------------------------------

    def _remove(self, path: bytes) -> None:
        """Remove an entry with everything below it, but for `kept` paths.

        They include everything that came into a directory after the job had seen it.
        """
        with fs_errors(path):
            try:
                parent, name = self._directories.parent(path)
            except (FileNotFoundError, NotADirectoryError):
                return
            self._done.events.replaced.add(path)
            try:
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return
            except OSError as e:
                if e.errno not in NOT_A_FILE:
                    raise
                self._remove_directory(parent, name, path)

    def _remove_directory(self, parent: int, name: bytes, path: bytes) -> None:
        self._directories.forget(path)
        kept = self._kept()
        if any(is_within(other, path) for other in kept) or not self._move_to_trash(parent, name):
            remove_beneath(parent, name, path, kept)

    def _move_to_trash(self, parent: int, name: bytes) -> bool:
        """Move a directory to the trash, which is emptied later. Return False if that fails."""
        trash = self._staging.reserve()
        try:
            os.rename(name, trash, src_dir_fd=parent, dst_dir_fd=self._staging.fd)
        except OSError:  # not ours to move, or on another file system: removing it entry by entry finds the errno
            return False
        self._done.trash.append(trash)
        return True

    def _master_ns(self, attr: Attr) -> int:
        return self._timing.master_ns(attr.mtime_ns, self._now_ns)


def _attr(change: Change) -> Attr:
    assert change.attr is not None, "the plan has sorted deletions out"
    return change.attr


def _digest(change: Change) -> Digest:
    digest = _attr(change).digest
    assert digest is not None, "the plan has checked it"
    return digest
