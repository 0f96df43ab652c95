"""Prepare a job's changes: stage everything that needs space, and name the steps that publish it.

Nothing that the user sees is changed here. The steps only rename, remove, and set attributes, so
that they hardly ever fail (steps.py).
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from termite.engine import look_calls
from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.look_errors import GONE
from termite.engine.model import Attr, Change, Digest
from termite.engine.paths import from_root_down, is_within, split
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.attrs import AttrTree
from termite.engine.tree.logic.plan import Plan
from termite.engine.tree.logic.redo_plan import (
    MakeDirectory,
    PlaceEntry,
    SetAttributes,
    SetDirectory,
    Step,
    Stood,
    Trash,
    Unlock,
)
from termite.engine.tree.logic.times import Timing, wire_ns
from termite.engine.tree.publishing.areas import StagingAreas
from termite.engine.tree.publishing.staging import stage_content, stage_copy_of
from termite.engine.tree.publishing.steps import StagedFile
from termite.engine.tree.publishing.target_directories import InheritedAccess, TargetDirectories
from termite.engine.tree.tree_disk import FsErrors, set_attributes
from termite.engine.tree.volumes import mount_points

# The content of each new file by SHA-256: its bytes, or the path of a staged file.
Contents = Mapping[bytes, bytes | Path]


class KnownFiles(NamedTuple):
    """The facts about the tree that a preparation needs.

    `kept` returns the paths that stay if a directory above them is removed. `umask` is that of the
    job, and `may_set_modes` returns whether its command may set modes itself. `root` is the
    writable root: the tree does not know everything outside of it. If the tree `is_mixed`, it has
    files of other users or groups.
    """

    tree: AttrTree
    kept: Callable[[], frozenset[bytes]]
    umask: int
    may_set_modes: Callable[[], bool]
    root: bytes
    is_mixed: bool = False


class Preparation:
    """The preparation of one job's changes.

    Exhaust `prepare`, and then `find_steps`. Call `close` in any case.

    All methods block; those that fail raise FsError, after which the command runs here.
    """

    def __init__(
        self, directories: TargetDirectories, areas: StagingAreas, timing: Timing, known: KnownFiles, plan: Plan
    ) -> None:
        self._directories = directories
        self._areas = areas
        self._timing = timing
        self._known = known
        self._plan = plan
        self.now_ns = areas.staging.now_ns()
        self.files: dict[bytes, StagedFile] = {}  # by staged name
        self._staged: dict[bytes, bytes] = {}  # staged name by path
        self._same: list[Change] = []
        self._replaced = frozenset(plan.replaced)
        self._inherited = InheritedAccess(
            directories, plan.replaced, known.umask, known.may_set_modes, is_mixed=known.is_mixed
        )
        self._made: set[bytes] = set()  # directories that are staged
        self.steps: tuple[Step, ...] = ()
        self._kept_paths: frozenset[bytes] | None = None
        self._mount_points: list[bytes] | None = None

    def prepare(self, contents: Contents) -> Iterator[None]:
        """Stage all that is new, and yield after each entry.

        A file that has its new content already is not staged: it gets its attributes only. Raise
        RemoteProtocolError if the worker has not sent a content.
        """
        plan = self._plan
        new = {change.path for change in plan.directories}
        for path in sorted(plan.parents(self._standing()) - new):
            with FsErrors(path):
                self._directories.open(path)
        if plan.removed and (plan.files or plan.directories or plan.symlinks):
            with FsErrors(plan.removed[0]):
                self._inherited.check_moved(plan.removed, (*plan.files, *plan.directories))
        files: list[Change] = []
        for change in plan.files:
            (self._same if self._is_same(change) else files).append(change)
            yield
        last = {digest_of_change(change).sha256: change for change in files}  # that needs each content
        for change in files:
            with FsErrors(change.path):
                self._stage_file(change, contents, is_last=last[digest_of_change(change).sha256] is change)
            yield
        for changes, stage in (
            (plan.directories, self._stage_directory),
            (plan.symlinks, self._stage_symlink),
            (plan.fifos, self._stage_fifo),
            (plan.links, self._stage_link),
        ):
            for change in changes:
                if self._stands(change):
                    continue  # most jobs only make files in one: to make and remove a directory would cost 50 us
                with FsErrors(change.path):
                    name = self._staged[change.path] = self._areas.reserve(change.path)
                    stage(change, name, self._areas.fd_of(name))
                yield

    def find_steps(self, contents: Contents) -> Iterator[None]:
        """Find the steps, and yield after each change. `steps` has them afterwards, in their order.

        Call it again if others have touched the places of the changes meanwhile.

        A new file is renamed over the old one, so that a reader finds one of them. Removals come
        last, so that a renamed file is found under at least one of its names. Only what stands in
        `plan.replaced` is missing for a moment. The attributes of directories come at the end,
        because each entry changes a directory's mtime, and its final mode may forbid to make
        entries. The deepest directory is the first of them, because a mode may forbid access to all
        below.
        """
        plan = self._plan
        self._kept_paths = self._mount_points = None
        yield from self._stage_changed(contents)
        replaced: list[Step] = []
        made: list[Step] = []
        attributes: list[Step] = []
        removed: list[Step] = []
        for path in plan.replaced:
            replaced += self._trash(path)
            yield
        for change in plan.directories:
            made.append(self._make_directory(change))
            yield
        for change in (*plan.files, *plan.symlinks, *plan.links, *plan.fifos):
            if change.path in self._staged:
                made += self._place(change)
            yield
        changed = [*plan.attributes, *self._same]
        for change in changed:
            if not stat.S_ISDIR(_attr(change).mode):
                attributes.append(self._set(change))
            yield
        for path in plan.removed:
            removed += self._trash(path)
            yield
        unlocked, directories = self._directory_steps(changed)
        self.steps = (*unlocked, *replaced, *made, *attributes, *removed, *directories)

    def close(self, needed: Collection[bytes] = ()) -> None:
        """Remove staged entries that were not placed, but for those that are `needed` again."""
        for name in set(self._staged.values()).difference(needed):
            self._areas.discard(name)

    def note_published(self) -> None:
        """Note that all steps were carried out, so that nothing is staged any more."""
        self._staged.clear()

    # -- staging ------------------------------------------------------------------------------------------------------

    def _is_same(self, change: Change) -> bool:
        """Return whether a file has its content already, and is not removed before it is made."""
        seen = self._known.tree.seen(change.path)
        if seen is None or not stat.S_ISREG(seen.attr.mode) or seen.attr.digest != digest_of_change(change):
            return False
        if seen.attr.nlink > 1:
            return False  # the job has made it anew: it is no longer the file of the other names
        return not self._is_replaced(change.path)

    def _standing(self) -> frozenset[bytes]:
        """Return the directories that the job names, and that stand. Nothing is made above them."""
        return frozenset(change.path for change in self._plan.directories if self._stands(change))

    def _stands(self, change: Change) -> bool:
        """Return whether a change only says that a directory is there, and it is."""
        if change.content or not stat.S_ISDIR(_attr(change).mode):
            return False
        seen = self._known.tree.seen(change.path)
        return seen is not None and seen.is_directory and change.path not in self._replaced

    def _is_replaced(self, path: bytes) -> bool:
        """Return whether an entry, or a directory above it, is removed before it is made."""
        return bool(self._replaced) and not self._replaced.isdisjoint(from_root_down(path))

    def _stage_file(self, change: Change, contents: Contents, *, is_last: bool) -> None:
        """Stage a file with its mode and times.

        `is_last`: no other file of the job needs this content, so a staged one need not be copied.
        """
        attr = _attr(change)
        digest = digest_of_change(change)
        content = contents.get(digest.sha256, b"" if digest.size == 0 else None)
        if content is None:
            raise RemoteProtocolError(f"no content of {change.path!r}")
        mode, times_ns = stat.S_IMODE(attr.mode), (self.now_ns, self._master_ns(attr))
        name = self._staged[change.path] = self._areas.reserve(change.path)
        area = self._areas.fd_of(name)
        if isinstance(content, bytes):
            st = stage_content(area, name, content, mode, times_ns)
        else:
            fetched, main = os.fsencode(content.name), self._areas.staging.fd
            if is_last and area == main:
                name = self._staged[change.path] = fetched
            else:
                stage_copy_of(area, name, fetched, main)
            disk_calls.chmod(name, mode, dir_fd=area)
            disk_calls.utime(name, ns=times_ns, dir_fd=area)
            st = look_calls.stat(name, dir_fd=area)
        if self._inherited.apply(change, attr, name, area):
            st = look_calls.stat(name, dir_fd=area)
        self.files[name] = StagedFile(digest, st)

    def _stage_directory(self, change: Change, name: bytes, area: int) -> None:
        disk_calls.mkdir(name, 0o700, dir_fd=area)
        self._made.add(change.path)
        self._inherited.apply(change, _attr(change), name, area)

    def _stage_symlink(self, change: Change, name: bytes, area: int) -> None:
        attr = _attr(change)
        disk_calls.symlink(attr.target, name, dir_fd=area)
        disk_calls.utime(name, ns=(self.now_ns, self._master_ns(attr)), dir_fd=area, follow_symlinks=False)
        self._inherited.apply(change, attr, name, area)

    def _stage_fifo(self, change: Change, name: bytes, area: int) -> None:
        attr = _attr(change)
        disk_calls.mkfifo(name, 0o600, dir_fd=area)
        set_attributes(name, area, attr.mode, self._master_ns(attr))
        self._inherited.apply(change, attr, name, area)

    def _stage_link(self, change: Change, name: bytes, area: int) -> None:
        """Stage another name of a file, which may itself be staged."""
        assert change.link_to is not None
        staged = self._staged.get(change.link_to)
        parent, target = (self._areas.fd_of(staged), staged) if staged else self._directories.parent(change.link_to)
        try:
            disk_calls.link(target, name, src_dir_fd=parent, dst_dir_fd=area, follow_symlinks=False)
        except OSError as e:
            if e.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            attr = _attr(change)
            if stat.S_ISFIFO(attr.mode):
                self._stage_fifo(change, name, area)
            elif stat.S_ISLNK(attr.mode):
                self._stage_symlink(change, name, area)
            else:
                stage_copy_of(area, name, target, parent)
                set_attributes(name, area, attr.mode, self._master_ns(attr))

    def _stage_changed(self, contents: Contents) -> Iterator[None]:
        """Stage the files that had their contents already, and that others have changed since."""
        for change in self._same.copy() if self._same else ():
            if not self._is_same(change):
                self._same.remove(change)
                with FsErrors(change.path):
                    self._stage_file(change, contents, is_last=False)
            yield

    # -- steps --------------------------------------------------------------------------------------------------------

    def _make_directory(self, change: Change) -> MakeDirectory:
        stood = _stood_at(change.path, self._known, self._directories)
        is_new = stood is None and not is_within(change.path, self._known.root)
        return MakeDirectory(change.path, self._staged.get(change.path, b""), stood, is_new)

    def _place(self, change: Change) -> Iterator[Step]:
        seen = self._known.tree.seen(change.path)
        stood = _stood_at(change.path, self._known, self._directories)
        if seen is not None and seen.is_directory and change.path not in self._replaced:
            if any(is_within(kept, change.path) for kept in self._kept()):
                raise FsError(errno.EISDIR, change.path)
            yield from self._trash(change.path)
        is_new = stood is None and not is_within(change.path, self._known.root)
        yield PlaceEntry(change.path, self._staged[change.path], stood, change.link_to, is_new)

    def _kept(self) -> frozenset[bytes]:
        if self._kept_paths is None:
            self._kept_paths = self._known.kept()
        return self._kept_paths

    def _set(self, change: Change) -> SetAttributes:
        attr = _attr(change)
        mode = self._inherited.mode_of(change, attr) if change.content else attr.mode
        return SetAttributes(
            change.path, mode, self._master_ns(attr), _stood_at(change.path, self._known, self._directories)
        )

    def _trash(self, path: bytes) -> Iterator[Trash]:
        """Yield the step that removes an entry, unless there is none.

        Everything that came into a directory after the job had seen it is kept. A mount point
        cannot be removed, and a directory above one must not be moved to the trash with it.
        """
        with FsErrors(path):
            there = self._directories.look(path)
        if there is not None:
            kept: tuple[bytes, ...] = ()
            if stat.S_ISDIR(there.st_mode):
                if any(is_within(mount, path) for mount in self._mounts()):
                    raise FsError(errno.EBUSY, path)
                kept = tuple(other for other in self._kept() if is_within(other, path))
            yield Trash(path, self._areas.staging.reserve(), _stood(there), kept)

    def _mounts(self) -> list[bytes]:
        if self._mount_points is None:
            with FsErrors(b""):
                self._mount_points = mount_points()
        return self._mount_points

    def _directory_steps(self, changed: list[Change]) -> tuple[list[Step], list[Step]]:
        """Return the steps that unlock directories, and those that set them at the end."""
        plan = self._plan
        final: dict[bytes, SetDirectory] = {}
        unlocked: list[Step] = []
        parents = plan.parents(self._standing())
        if plan.replaced or plan.removed:
            parents |= {split(path)[0] for path in (*plan.replaced, *plan.removed)}
        for path in sorted(parents):
            try:
                if not self._is_replaced(path) and self._directories.is_locked(path):
                    found = self._directories.found(path)
                    unlocked.append(Unlock(path))
                    final[path] = SetDirectory(path, found.st_mode, wire_ns(found.st_mtime_ns))
            except OSError as e:
                if e.errno not in GONE:
                    raise FsError(e.errno or errno.EIO, path) from e
        for change in (*plan.directories, *changed):
            if stat.S_ISDIR(_attr(change).mode):
                final[change.path] = self._set_directory(change)
        return unlocked, sorted(final.values(), key=lambda step: -step.path.count(b"/"))

    def _set_directory(self, change: Change) -> SetDirectory:
        attr = _attr(change)
        mtime_ns = self._master_ns(attr)
        if self._timing.is_made_in_job(attr.mtime_ns):  # another job may have changed its entries since
            there = None if self._is_replaced(change.path) else self._directories.look_at_directory(change.path)
            if there is not None and stat.S_ISDIR(there.st_mode):
                mtime_ns = max(mtime_ns, wire_ns(there.st_mtime_ns))
        mode = self._inherited.mode_of(change, attr) if change.path in self._made else attr.mode
        return SetDirectory(change.path, mode, mtime_ns)

    def _master_ns(self, attr: Attr) -> int:
        return self._timing.master_ns(attr.mtime_ns, self.now_ns)


def _stood_at(path: bytes, known: KnownFiles, directories: TargetDirectories) -> Stood | None:
    """Return what stands at a path. The watches know it for served directories of the tree."""
    if is_within(path, known.root):
        seen = known.tree.seen(path)
        if seen is not None and seen.stamp is not None:
            stamp = seen.stamp
            return Stood(stamp.dev, stamp.ino, wire_ns(stamp.mtime_ns), stamp.ctime_ns)
        if known.tree.is_served(split(path)[0]):
            return None
    with FsErrors(path):
        there = directories.look(path)
    return _stood(there) if there is not None else None


def _stood(st: os.stat_result) -> Stood:
    return Stood(st.st_dev, st.st_ino, wire_ns(st.st_mtime_ns), st.st_ctime_ns)


def _attr(change: Change) -> Attr:
    assert change.attr is not None, "the plan has sorted deletions out"
    return change.attr


def digest_of_change(change: Change) -> Digest:
    """Return the digest of a file's new content; the change has been checked."""
    digest = _attr(change).digest
    assert digest is not None, "the plan has checked it"
    return digest
