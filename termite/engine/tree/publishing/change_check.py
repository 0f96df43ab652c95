"""Find out whether other programs have changed what an interrupted plan was about to change."""

import os
import stat
from pathlib import Path

from termite.engine import look_calls
from termite.engine.look_errors import GONE
from termite.engine.paths import join
from termite.engine.tree.logic.redo_plan import MakeDirectory, PlaceEntry, Record, SetAttributes, Step, Stood, Trash
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.publishing.areas import FoundAreas
from termite.engine.tree.publishing.target_directories import TargetDirectories
from termite.engine.tree.tree_disk import PlanDisk


def find_changed(record: Record, root: Path, staging: int, written_ns: int) -> bytes | None:
    """Return a path that has changed since the plan was written, or None if there is none.

    If a directory with staged entries is not there, return None: finishing the plan reports that.
    Raise OSError, with the path as its file name, if nobody knows whether one has changed.
    """
    steps = record.plan.steps
    disk = PlanDisk(os.fsencode(root))
    directories = TargetDirectories(disk)
    areas = FoundAreas(disk, staging, record.plan.areas)
    try:
        if areas.missing is not None:
            return None
        check = _ChangeCheck(directories, areas, steps, written_ns)
        return next((step.path for step in steps if check.is_changed_or_raises(step)), None)
    finally:
        areas.close()
        directories.close()
        disk.close()


class _ChangeCheck:
    """A comparison of a plan's places with their state when the plan was written.

    The plan's own steps change link counts and directories, so a ctime alone proves little there.
    """

    def __init__(
        self, directories: TargetDirectories, areas: FoundAreas, steps: tuple[Step, ...], written_ns: int
    ) -> None:
        self._directories = directories
        self._areas = areas
        self._written_ns = written_ns
        self._own = {step.path for step in steps}
        self._trashed = {step.path for step in steps if isinstance(step, Trash)}
        inodes = [step.stood.ino for step in steps if isinstance(step, Trash | SetAttributes) and step.stood]
        self._shared = {inode for inode in inodes if inodes.count(inode) > 1} if len(inodes) < 1000 else set(inodes)

    def is_changed_or_raises(self, step: Step) -> bool:
        """Do as `is_changed`. An OSError names the place of the step."""
        try:
            return self.is_changed(step)
        except OSError as error:
            raise OSError(error.errno, error.strerror, step.path) from error

    def is_changed(self, step: Step) -> bool:
        """Return whether another program has changed the place of a step that is not done yet."""
        there = self._look(step.path)
        match step:
            case PlaceEntry() | MakeDirectory():
                staged = self._look_at(self._areas.fd_of(step.staged), step.staged)
                if staged is None or (there is not None and there.st_ino == staged.st_ino):
                    return False
                if there is None:
                    return step.stood is not None and step.path not in self._trashed
                if isinstance(step, MakeDirectory) and stat.S_ISDIR(there.st_mode):
                    return False
                return not self._is_same(there, step.stood)
            case Trash():
                if there is None or there.st_ino != step.stood.ino:
                    return False
                if stat.S_ISDIR(there.st_mode):
                    return self._is_new_below(step.path, with_directories=not step.kept)
                return not self._is_same(there, step.stood)
            case SetAttributes():
                if there is None or self._is_set(there, step):
                    return False
                return not self._is_same(there, step.stood)
        return False

    def _is_set(self, there: os.stat_result, step: SetAttributes) -> bool:
        """Return whether the mode was set, and perhaps the mtime."""
        times_ns = {step.mtime_ns, step.stood.mtime_ns if step.stood else step.mtime_ns}
        is_same_file = step.stood is None or there.st_ino == step.stood.ino
        return is_same_file and there.st_mode == step.mode and wire_ns(there.st_mtime_ns) in times_ns

    def _is_same(self, there: os.stat_result, stood: Stood | None) -> bool:
        if stood is None or (there.st_dev, there.st_ino) != (stood.dev, stood.ino):
            return False
        if wire_ns(there.st_mtime_ns) != stood.mtime_ns:
            return False
        is_old = there.st_ctime_ns in (stood.ctime_ns, min(there.st_ctime_ns, self._written_ns))
        return is_old or there.st_ino in self._shared

    def _is_new_below(self, directory: bytes, *, with_directories: bool) -> bool:
        """Return whether anything below a directory is newer than the plan.

        Without `with_directories` they may be newer, because a removal entry by entry has begun.
        """
        try:
            names = look_calls.listdir(b"/proc/self/fd/%d" % self._directories.open(directory))
        except OSError:  # unknown counts as changed: then nothing is removed
            return True
        for name in names:
            path = join(directory, os.fsencode(name))
            there = self._look(path)
            if there is None or path in self._own:
                continue
            is_directory = stat.S_ISDIR(there.st_mode)
            if there.st_ctime_ns > self._written_ns and (with_directories or not is_directory):
                return True
            if is_directory and self._is_new_below(path, with_directories=with_directories):
                return True
        return False

    def _look(self, path: bytes) -> os.stat_result | None:
        try:
            return self._look_at(*self._directories.parent(path))
        except OSError as error:
            if error.errno not in GONE:
                raise
            return None

    def _look_at(self, parent: int, name: bytes) -> os.stat_result | None:
        try:
            return look_calls.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
