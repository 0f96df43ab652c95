"""Carry out the steps of a plan on the user's disk. No other code of termite changes these files.

The master that has written a plan does this, and so does whoever finishes the plan of a master that
was killed. Each step may therefore be repeated: it finds out from the disk what is left to do.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from termite.engine import look_calls
from termite.engine.look_errors import GONE
from termite.engine.model import Digest
from termite.engine.paths import is_within, split
from termite.engine.tree import disk_calls
from termite.engine.tree.hashes import stamp_of
from termite.engine.tree.logic.attrs import Events, Stamp, Touch
from termite.engine.tree.logic.redo_plan import (
    MakeDirectory,
    PlaceEntry,
    SetAttributes,
    SetDirectory,
    Step,
    Trash,
    Unlock,
)
from termite.engine.tree.logic.visibility import AREA
from termite.engine.tree.publishing.staging import NEW, copy_content
from termite.engine.tree.publishing.target_directories import TargetDirectories
from termite.engine.tree.tree_disk import remove_beneath, set_attributes, set_attributes_of


class StagedFile(NamedTuple):
    """A staged file with the content of a job, as it was when it was staged."""

    digest: Digest
    st: os.stat_result


@dataclass(slots=True)
class ReplayRecord:
    """The record of what was done, valid even if a step has failed.

    `events` are the places that were changed. `placed` are files that have the job's content for
    certain. `trash` are names in the staging directory that must still be emptied.
    """

    events: Events = field(default_factory=Events)
    placed: list[tuple[Stamp, Digest]] = field(default_factory=list)
    trash: list[bytes] = field(default_factory=list)


class StepRunner:
    """The steps of one plan. `done` is filled in as the steps go on.

    `fd_of` returns the open directory in which a staged name stands. `files` are the staged files
    whose content is known, and `now_ns` is the file system's time when they were staged. `late`
    returns paths that came into the tree after the plan, and are kept like those that a Trash
    names.
    """

    def __init__(
        self,
        directories: TargetDirectories,
        fd_of: Callable[[bytes], int],
        done: ReplayRecord,
        files: Mapping[bytes, StagedFile],
        now_ns: int = 0,
        late: Callable[[], Collection[bytes]] = tuple,
    ) -> None:
        self._directories = directories
        self._fd_of = fd_of
        self._done = done
        self._files = files
        self._now_ns = now_ns
        self._late = late
        self._new: set[bytes] = set()
        self._kept: dict[bytes, set[bytes]] = {}

    def run(self, step: Step) -> None:
        """Carry out one step. Do nothing if that was done before. Raise OSError."""
        match step:
            case PlaceEntry():
                self._place(step)
            case MakeDirectory():
                self._make_directory(step)
            case Trash():
                self._remove(step)
            case SetAttributes() | SetDirectory():
                self._set(step)
            case Unlock():
                self._directories.unlock(step.path)

    # -- making things ------------------------------------------------------------------------------------------------

    def _make_directory(self, step: MakeDirectory) -> None:
        if not step.staged and self._directories.stands(step.path):
            return  # as for most jobs
        self._done.events.touch(step.path, Touch.UNKNOWN)
        parent, name = self._directories.parent(step.path)
        try:
            there = look_calls.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass  # nothing stands there: it is made below
        else:
            if stat.S_ISDIR(there.st_mode) and not (step.is_new and there.st_uid != os.geteuid()):
                if step.staged:  # the directory that is there stays with everything in it
                    remove_beneath(self._fd_of(step.staged), step.staged)
                return
            if step.is_new:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            disk_calls.unlink(name, dir_fd=parent)
        try:
            self._rename(step.staged, parent, name, is_new=step.is_new)
        except FileNotFoundError:  # it is not staged, because a directory stood there
            disk_calls.mkdir(name, 0o700, dir_fd=parent)
        self._new.add(step.path)

    def _place(self, step: PlaceEntry) -> None:
        try:
            parent, name = self._directories.parent(step.path)
            self._done.events.touch(step.path, Touch.UNKNOWN)
            try:
                self._rename(step.staged, parent, name, is_new=step.is_new)
            except IsADirectoryError:
                self._remove_directory(parent, name, step.path, ())
                self._rename(step.staged, parent, name)
        except FileExistsError:
            if not self._is_copied(step.staged, parent, name):
                raise
            self._unlink_staged(step.staged)
        except OSError as e:
            if e.errno in GONE and self._is_placed(step.staged):
                return
            raise
        if step.linked is not None:
            self._unlink_staged(step.staged)  # rename does nothing if both are names of one file
            self._done.events.touch(step.linked, Touch.ATTRIBUTES)
        elif file := self._files.get(step.staged):
            self._note_placed(step.path, file, parent, name)

    def _is_placed(self, staged: bytes) -> bool:
        try:
            look_calls.stat(staged, dir_fd=self._fd_of(staged), follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _is_copied(self, staged: bytes, parent: int, name: bytes) -> bool:
        """Return whether our own file has the name already, and only the staged one was left."""
        ours = look_calls.stat(staged, dir_fd=self._fd_of(staged), follow_symlinks=False)
        there = look_calls.stat(name, dir_fd=parent, follow_symlinks=False)
        if os.path.samestat(ours, there):
            return True
        return _facts(ours) == _facts(there)

    def _unlink_staged(self, staged: bytes) -> None:
        with suppress(FileNotFoundError):
            disk_calls.unlink(staged, dir_fd=self._fd_of(staged))

    def _note_placed(self, path: bytes, file: StagedFile, parent: int, name: bytes) -> None:
        """Note a file as placed, unless it may have been written to meanwhile.

        A write in the same tick leaves the times as they were. The watch of the directory reports
        it, but a new directory is not watched yet; there only an older mtime is proof.
        """
        now = stamp_of(look_calls.stat(name, dir_fd=parent, follow_symlinks=False))
        is_watched = split(path)[0] not in self._new
        if now[:4] == stamp_of(file.st)[:4] and (is_watched or now.mtime_ns < self._now_ns):
            self._done.placed.append((now, file.digest))

    def _rename(self, staged: bytes, parent: int, name: bytes, *, is_new: bool = False) -> None:
        """Give a staged entry its name. `is_new`: raise FileExistsError if it is taken."""
        rename = disk_calls.rename_new if is_new else disk_calls.rename
        try:
            rename(staged, name, src_dir_fd=self._fd_of(staged), dst_dir_fd=parent)
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
            self._place_across(staged, parent, name, rename)

    def _place_across(self, staged: bytes, parent: int, name: bytes, rename: Callable[..., None]) -> None:
        """Place an entry where rename refuses, though it is the same file system and mount.

        A project quota does that (ext4, xfs), and a mount that is a moment old. The entry is staged
        once more beside its place.
        """
        area = self._fd_of(staged)
        st = look_calls.stat(staged, dir_fd=area, follow_symlinks=False)
        near = near_name(staged)
        remove_beneath(parent, near)  # left by a master that was killed
        try:
            if stat.S_ISLNK(st.st_mode):
                disk_calls.symlink(look_calls.readlink(staged, dir_fd=area), near, dir_fd=parent)
            elif stat.S_ISFIFO(st.st_mode):
                disk_calls.mkfifo(near, 0o600, dir_fd=parent)
            elif stat.S_ISDIR(st.st_mode):
                disk_calls.mkdir(near, 0o700, dir_fd=parent)
            else:
                self._copy_across(staged, parent, near)
            set_attributes(near, parent, st.st_mode, st.st_mtime_ns)
            rename(near, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            remove_beneath(parent, near)
            raise
        remove_beneath(area, staged)

    def _copy_across(self, staged: bytes, parent: int, near: bytes) -> None:
        source = look_calls.open(staged, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd_of(staged))
        try:
            target = disk_calls.open(near, NEW, 0o600, dir_fd=parent)
            try:
                copy_content(source, target)
            finally:
                disk_calls.close(target)
        finally:
            os.close(source)

    def _set(self, step: SetAttributes | SetDirectory) -> None:
        """Set the mode and mtime of an entry. If it is gone meanwhile, do nothing."""
        try:
            if isinstance(step, SetDirectory) and (fd := self._directories.opened(step.path)) is not None:
                set_attributes_of(fd, self._directories.itself(step.path), step.mode, step.mtime_ns)
            else:
                parent, name = self._directories.parent(step.path)
                set_attributes(name, parent, step.mode, step.mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            return
        self._done.events.touch(step.path, Touch.ATTRIBUTES)

    # -- removing things ----------------------------------------------------------------------------------------------

    def _remove(self, step: Trash) -> None:
        try:
            parent, name = self._directories.parent(step.path)
            there = look_calls.stat(name, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        if (there.st_dev, there.st_ino) != (step.stood.dev, step.stood.ino):
            return  # removed before, and something else has the name now
        self._done.events.replaced.add(step.path)
        if stat.S_ISDIR(there.st_mode):
            self._remove_directory(parent, name, step.path, step.kept, step.staged)
        else:
            remove_beneath(parent, name)

    def _remove_directory(
        self, parent: int, name: bytes, path: bytes, kept: Collection[bytes], staged: bytes = b""
    ) -> None:
        self._directories.forget(path)
        # When a removal is repeated, what is left of the directory counts as new in the journal.
        if path not in self._kept:
            self._kept[path] = {*kept, *(late for late in self._late() if is_within(late, path))}
        kept = self._kept[path]
        if kept or not staged or not self._move_to_trash(parent, name, staged):
            remove_beneath(parent, name, path, kept)

    def _move_to_trash(self, parent: int, name: bytes, staged: bytes) -> bool:
        """Move a directory to the trash, which is emptied later. Return False if that fails."""
        try:
            disk_calls.rename(name, staged, src_dir_fd=parent, dst_dir_fd=self._fd_of(staged))
        except OSError:  # not ours to move, or on another file system: removing it entry by entry finds the errno
            return False
        self._done.trash.append(staged)
        return True


def _facts(st: os.stat_result) -> tuple[int, int, int, int]:
    return st.st_uid, st.st_mode, st.st_size, st.st_mtime_ns


def near_name(staged: bytes) -> bytes:
    """Return the name of a copy that is staged beside its place."""
    return AREA + staged
