"""Stage results on the file system on which they will stand.

A rename cannot cross file systems. A job may write to another disk, a tmpfs or a bind mount that is
mounted below the writable root. Its results are staged there in a directory of their own, an
*area*, before the plan is written. Therefore a disk that is full refuses them while nothing is
changed.

An area exists only while a job is published, so that nobody is kept from unmounting it. It is
`.termite-staging-LABEL`, with the label of the master's plan file, at the top of the file system
or as near to it as the user may write. Each area that a master has made is recorded by a symlink in
`.termite-staging`, by which the next master finds what a killed one has left.
"""

import errno
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from termite.engine import look_calls
from termite.engine.look_errors import GONE
from termite.engine.paths import from_root_down, is_within, join, split
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.redo_plan import area_of, place_in_plan
from termite.engine.tree.logic.temporary_names import temporary_above
from termite.engine.tree.logic.visibility import AREA
from termite.engine.tree.publishing.kept_plans.plan_file import PREFIX, lock
from termite.engine.tree.publishing.staging import Staging, hide_from_git
from termite.engine.tree.publishing.target_directories import TargetDirectories
from termite.engine.tree.tree_disk import Disk, remove_beneath
from termite.engine.tree.volumes import Volume, volume_of

RECORD = b".area-"  # in the name of a symlink that leads to an area
OPEN_AREA = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Area:
    """A directory for staged entries: its parent and itself, open, and its path in the tree."""

    top: int
    fd: int
    path: bytes


class StagingAreas:
    """All directories in which one job's results are staged. Number 0 is `.termite-staging`.

    Methods block, and raise OSError if a disk refuses. `replaced` are paths that are removed before
    anything is placed.
    """

    def __init__(
        self, staging: Staging, directories: TargetDirectories, root: bytes, replaced: Collection[bytes] = ()
    ) -> None:
        self.staging = staging
        self._directories = directories
        self._root = root
        self._replaced = frozenset(replaced)
        self._areas: list[_Area] = []
        self._by_volume: dict[Volume, int] = {staging.volume: 0}
        self._by_directory: dict[bytes, int] = {}

    @property
    def paths(self) -> tuple[bytes, ...]:
        """Return the areas from number 1 on, as paths of a plan."""
        return tuple(place_in_plan(area.path, self._root) for area in self._areas)

    def reserve(self, path: bytes) -> bytes:
        """Return a new staged name for the entry that will stand at `path`."""
        return self.staging.reserve(self._number(split(path)[0]))

    def fd_of(self, staged: bytes) -> int:
        """Return the open directory in which a staged name stands."""
        number = area_of(staged)
        return self._areas[number - 1].fd if number else self.staging.fd

    def discard(self, staged: bytes) -> None:
        """Remove a staged entry. If the disk refuses, the removal of its directory does it."""
        self.staging.discard(staged, self.fd_of(staged))

    def close(self) -> None:
        """Remove the areas. If a disk refuses, the next master does it."""
        for area in self._areas:
            try:
                _remove_area(area.top, split(area.path)[1])
            except OSError as error:
                log.warning("staging-not-emptied name=%r reason=%s", area.path, error)
            os.close(area.fd)
            os.close(area.top)
        self._areas.clear()

    def _number(self, directory: bytes) -> int:
        number = self._by_directory.get(directory)
        if number is None:
            number = self._by_directory[directory] = self._find(directory)
        return number

    def _find(self, directory: bytes) -> int:
        """Return the area for entries of a directory.

        A directory that the job makes will stand where its parent is.
        """
        if self._replaced and not self._replaced.isdisjoint(from_root_down(directory)):
            return self._number(split(directory)[0])
        try:
            fd = self._directories.open(directory)
        except OSError as error:
            if error.errno not in GONE or directory in (b"", self._root):
                raise
            return self._number(split(directory)[0])
        volume = volume_of(fd)
        number = self._by_volume.get(volume)
        if number is None:
            self._areas.append(self._make(directory, volume))
            number = self._by_volume[volume] = len(self._areas)
        return number

    def _make(self, directory: bytes, volume: Volume) -> _Area:
        """Make an area in the topmost directory that allows it, from the mount point down."""
        places = [directory]
        top = self._root if is_within(directory, self._root) else temporary_above(join(directory, b"."))
        while places[-1] != top and volume_of(self._directories.open(split(places[-1])[0])) == volume:
            places.append(split(places[-1])[0])
        while True:
            place = places.pop()
            try:
                return self._make_at(place)
            except PermissionError:
                if not places:
                    raise

    def _make_at(self, place: bytes) -> _Area:
        path = join(place, AREA + self.staging.plan.label)
        top = look_calls.dup(self._directories.open(place))
        try:
            if place not in self.staging.recorded:
                self._record(place, path, top)
            return _Area(top, _open_new_area(top, split(path)[1]), path)
        except BaseException:
            os.close(top)
            raise

    def _record(self, place: bytes, path: bytes, top: int) -> None:
        """Record an area, once for each master, and remove what dead masters left beside it."""
        staging = self.staging
        name = b"%b%b%d" % (staging.plan.label, RECORD, len(staging.recorded))
        disk_calls.symlink(place_in_plan(path, self._root), name, dir_fd=staging.fd)
        staging.recorded.add(place)
        if is_within(place, self._root):  # a temporary directory has areas of other trees, too
            _remove_dead_areas(top, staging)


class FoundAreas:
    """The directories with the entries that an earlier master has staged for a plan.

    `missing` is the directory that should have contained an area that is not there, because its
    file system was unmounted. It is None if all are there.
    """

    def __init__(self, disk: Disk, staging: int, paths: Sequence[bytes]) -> None:
        """Open the directories below the writable root `disk`, and lock them."""
        self._disk = disk
        self._paths = paths
        self._fds = [staging]
        self.missing: bytes | None = None
        for path in paths:
            try:
                fd = disk.open_directory(path)
            except OSError:  # whatever it is, the staged entries cannot be reached
                self.missing = split(path)[0]
                continue
            self._fds.append(fd)
            if not lock(fd, wait=False):  # a master of another tree is removing it
                self.missing = split(path)[0]

    def fd_of(self, staged: bytes) -> int:
        """Return the open directory in which a staged name stands. No area may be missing."""
        return self._fds[area_of(staged)]

    def remove(self) -> None:
        """Remove all directories but `.termite-staging`. Errors are logged."""
        for path in self._paths:
            remove_recorded(self._disk, path)

    def close(self) -> None:
        """Close the directories."""
        for fd in self._fds[1:]:
            os.close(fd)


def remove_recorded(disk: Disk, path: bytes) -> None:
    """Remove an area below the writable root `disk`. Errors are logged: nothing depends on it.

    If its file system is not mounted now, the next master that stages there removes it.
    """
    parent, name = split(path)
    try:
        top = disk.open_directory(parent, os.O_PATH)
        try:
            if name.startswith(AREA):
                _remove_area(top, name)
        finally:
            os.close(top)
    except FileNotFoundError:
        pass  # it was removed, or is not mounted
    except OSError as error:
        log.warning("staging-not-emptied name=%r reason=%s", path, error)


def _open_new_area(top: int, name: bytes) -> int:
    """Make a directory that is locked for as long as it is open, and return its fd."""
    with _kept_times(top), suppress(FileExistsError):  # it may be left of an earlier job of this master
        disk_calls.mkdir(name, 0o700, dir_fd=top)
    fd = look_calls.open(name, OPEN_AREA, dir_fd=top)
    try:
        if look_calls.fstat(fd).st_uid != os.geteuid() or not lock(fd, wait=False):
            raise PermissionError(errno.EACCES, "another process has made or locked it")
    except OSError:
        os.close(fd)
        raise
    with suppress(OSError):  # a disk that is full may still take the results
        hide_from_git(fd)
    return fd


def _remove_area(top: int, name: bytes) -> None:
    with suppress(FileNotFoundError), _kept_times(top):
        look_calls.stat(name, dir_fd=top, follow_symlinks=False)
        remove_beneath(top, name)


def _remove_dead_areas(top: int, staging: Staging) -> None:
    """Remove the areas in an open directory whose masters have ended.

    They are left if the file system was unmounted when their next master started. An area is locked
    while it is used. A plan in our own `.termite-staging` may still need its area.
    """
    names: list[bytes] = []
    with suppress(OSError):  # a directory that we cannot list keeps what is in it
        fd = look_calls.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        try:
            names = [name for name in map(os.fsencode, look_calls.listdir(fd)) if name.startswith(AREA)]
        finally:
            os.close(fd)
    for name in names:
        if _exists(PREFIX + name.removeprefix(AREA), staging.fd):
            continue
        with suppress(OSError):  # a file, another user's, or removed by another master meanwhile
            fd = look_calls.open(name, OPEN_AREA, dir_fd=top)
            try:
                if look_calls.fstat(fd).st_uid == os.geteuid() and lock(fd, wait=False):
                    _remove_area(top, name)
            finally:
                os.close(fd)


def _exists(name: bytes, dir_fd: int) -> bool:
    try:
        look_calls.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _kept_times(top: int) -> Iterator[None]:
    """Give a directory its times back after the block, so that no build tool sees us in it."""
    st = look_calls.fstat(top)
    yield
    with suppress(OSError):  # another user's directory, in which the user may write: it shows the new time
        disk_calls.utime(b"/proc/self/fd/%d" % top, ns=(st.st_atime_ns, st.st_mtime_ns))
