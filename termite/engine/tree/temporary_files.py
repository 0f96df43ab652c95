"""Decide what jobs see in the temporary directories, and what they may leave there.

Other users and programs work there too, and some are hostile. A job may make new names, and change
what earlier jobs of this master have made. If it changed anything else, its result is refused, and
the command runs on this machine. A name counts as ours only with the inode that it got from us.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress

from termite.engine import look_calls
from termite.engine.errors import Reason, ResultRefused, Retryable
from termite.engine.look_errors import is_answer
from termite.engine.model import Attr, Change
from termite.engine.paths import from_below_up, from_root_down, is_below, is_within, split
from termite.engine.tree.disk_follower import DiskFollower
from termite.engine.tree.logic.attrs import Events, Inode, Touch
from termite.engine.tree.logic.temporary_names import TEMPORARY, chosen_in, named_in, other_words, temporary_above
from termite.engine.tree.logic.visibility import Exports, Visibility, is_public
from termite.engine.tree.tools.programs import way_to
from termite.engine.tree.tree_disk import Disk, LookErrors

MOST_SHOWN = 4096  # private names that are there: each is an anchor, which stays as long as the master
NAMES_A_SEARCH = 64  # that are not shown: a search for those that are gone takes 10 ms
MOST_MADE = 20_000  # names of jobs, 200 bytes each; then those that are gone are forgotten
SPECIAL_BITS = 0o7000  # nothing in a directory of all users gets one from a worker


class TemporaryFiles:
    """The temporary directories of one master's machine. All methods block on the disk."""

    def __init__(self, disk: Disk, exports: Exports, follower: DiskFollower) -> None:
        self._disk = disk
        self._is_shown = follower.reader.is_shown
        self._exports = exports
        self._tree = follower.tree
        self._made: dict[bytes, Inode] = {}
        self._shown: set[bytes] = set()
        self._too_many = 0  # names that were not shown, because there were too many
        self._environment: tuple[bytes, ...] = ()
        self._chosen: list[bytes] = []
        self._of_environment: list[bytes] = []

    # -- what jobs see ------------------------------------------------------------------------------------------------

    def name(self, argv: Sequence[bytes], cwd: bytes, environment: tuple[bytes, ...]) -> Events:
        """Show the private names that a command mentions, and return the places to check.

        Most commands have the same environment, so it is searched only if it is another object.
        Raise Retryable if a look fails.
        """
        root = self._exports.writable_root
        if environment is not self._environment:
            self._environment = environment
            self._chosen = chosen_in(environment, root)
            self._of_environment = named_in(other_words(environment), root)
        events = Events()
        if self._chosen:
            self._chosen = [value for value in self._chosen if not self._choose(value, events)]
        if self._exports.temporary:
            for path in (*self._of_environment, *named_in((*argv, cwd), root)):
                self._show(path, events)
        return events

    def _choose(self, value: bytes, events: Events) -> bool:
        """Show a directory for temporary files, by whatever symlinks it is reached.

        Return False if it is not there yet. A directory that jobs see anyway stays as it is.
        """
        with LookErrors(value.strip(b"/")):
            return self._choose_way(*way_to(value), events)

    def _choose_way(self, links: Sequence[bytes], real: bytes, events: Events) -> bool:
        try:
            if not stat.S_ISDIR(look_calls.stat(real).st_mode):
                return False
        except OSError as error:
            if not is_answer(error):
                raise
            return False
        path, root = real.strip(b"/"), self._exports.writable_root
        if not is_within(path, root) and not is_within(root, path):
            is_new = (temporary_above(path) or not self._is_shown(path)) and self._exports.choose(path)
            if is_new:
                _touch(path, events)
        for link in (link.strip(b"/") for link in links):
            if not self._exports.is_live(link) and not self._is_shown(link):
                self._exports.lead_to(link)
                _touch(link, events)
        return True

    def _show(self, path: bytes, events: Events) -> None:
        """Show a path that exists, if it is private or below a private directory."""
        is_whole = self._exports.visibility(path) is Visibility.WHOLE
        if is_whole or self._tree.seen(path) is not None or not self._exports.is_shared(path):
            return
        places = [place for place in from_root_down(path) if temporary_above(place)]
        found = [self._look(place) for place in places]
        if any(status is None for status in found):
            link = next((place for place, status in zip(places, found, strict=True) if _is_link(status)), None)
            if link is None:
                return
            with LookErrors(path):
                real = look_calls.real_path(b"/" + path)
            if real is not None and temporary_above(aim := os.fsencode(real).strip(b"/")):
                self._show_place(link, events)
                self._show_place(aim, events)
            return
        if any(not is_public(status.st_mode) for status in found if status is not None):
            self._show_place(path, events)

    def _show_place(self, path: bytes, events: Events) -> None:
        if len(self._shown) >= MOST_SHOWN:
            if self._too_many % NAMES_A_SEARCH == 0:
                self._hide_gone()
            self._too_many += 1
        if len(self._shown) < MOST_SHOWN and self._exports.show(path):
            self._shown.add(path)
            _touch(path, events)

    def _hide_gone(self) -> None:
        """Take back the names that local commands have removed."""
        for path in sorted(self._shown):
            with suppress(Retryable):  # the next search tries it again
                if self._look(path) is None:
                    self._hide(path)

    def _hide(self, path: bytes) -> None:
        self._shown.discard(path)
        self._exports.hide(path)

    # -- what jobs leave ----------------------------------------------------------------------------------------------

    def admit(self, changes: Sequence[Change]) -> bool:
        """Return True if one of the changes concerns a place outside the tree.

        Raise ResultRefused if one of them may not come home, and Retryable if a look fails.
        """
        outside = [change for change in changes if not self._exports.is_live(change.path)]
        linked = [change for change in changes if change.link_to and not self._exports.is_live(change.link_to)]
        if not outside and not linked:
            return False
        new = {change.path for change in changes if change.attr is not None}
        refused = [change.path for change in outside if not self._is_admitted(change)]
        for change in linked:
            if change.link_to and change.link_to not in new and not self._is_ours(change.link_to):
                refused.append(change.path)
        if refused:
            places = [os.fsdecode(b"/" + path) for path in dict.fromkeys(refused)]
            raise ResultRefused(Reason.TEMPORARY_TAKEN, places)
        return True

    def expect(self, changes: Iterable[Change]) -> None:
        """Show what a job is about to leave, though it may be private: later jobs need it."""
        for change in changes:
            if change.attr is not None and not self._exports.is_live(change.path) and not is_public(change.attr.mode):
                self._show_place(change.path, Events())

    def note_made(self, changes: Iterable[Change]) -> None:
        """Note which names a job has made and removed. Call this when its changes are on disk."""
        for change in changes:
            if self._exports.is_live(change.path):
                continue
            self._made.pop(change.path, None)
            if change.attr is None and change.path in self._shown:
                self._hide(change.path)
            with suppress(Retryable):  # a name that nobody knows is not ours
                if change.attr is not None and (status := self._look(change.path)) is not None:
                    self._made[change.path] = status.st_dev, status.st_ino
        if len(self._made) > MOST_MADE:
            self._forget_gone()

    def _forget_gone(self) -> None:
        with suppress(Retryable):  # the next job tries it again
            self._made = {path: inode for path, inode in self._made.items() if self._has_inode(path, inode)}

    def _is_admitted(self, change: Change) -> bool:
        """Return whether a job may make this change outside the tree."""
        path, attr = change.path, change.attr
        if not self._exports.is_shared(path) or not self._is_safe_below(path):
            return False
        if attr is not None and change.link_to is None and not _may_stand_there(attr):
            return False
        return self._look(path) is None or self._is_ours(path)

    def _is_safe_below(self, path: bytes) -> bool:
        """Return whether we may write to the nearest directory, and trust all above it."""
        top = temporary_above(path)
        nearest = True
        for directory in list(from_below_up(split(path)[0])):
            if directory != top and not is_below(directory, top):
                break
            try:
                with LookErrors(directory):
                    fd = self._disk.open_directory(directory, os.O_PATH)
            except FileNotFoundError:
                continue
            except OSError:
                return False
            try:
                with LookErrors(directory):
                    if directory != top and look_calls.fstat(fd).st_uid not in (0, os.geteuid()):
                        return False
                    if nearest and not look_calls.has_right(b".", os.W_OK | os.X_OK, dir_fd=fd):
                        return False
                nearest = False
            finally:
                os.close(fd)
        return not nearest

    def _is_ours(self, path: bytes) -> bool:
        """Return whether a job of this master has made what stands there, or a directory above."""
        top = temporary_above(path)
        return any(
            (inode := self._made.get(place)) is not None and self._has_inode(place, inode)
            for place in from_below_up(path)
            if is_below(place, top)
        )

    def _has_inode(self, path: bytes, inode: Inode) -> bool:
        status = self._look(path)
        return status is not None and status.st_uid == os.geteuid() and (status.st_dev, status.st_ino) == inode

    def _look(self, path: bytes) -> os.stat_result | None:
        """Return the entry itself, or None if there is none or a symlink stands above it.

        Raise Retryable if the look fails.
        """
        parent, name = split(path)
        with suppress(OSError), LookErrors(path):  # there is nothing, which is an answer
            fd = self._disk.open_directory(parent, os.O_PATH)
            try:
                return look_calls.stat(name, dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        return None


def _touch(path: bytes, events: Events) -> None:
    """Note every name on the way to a path, but those that lead to a temporary directory."""
    for place in from_root_down(path):
        if place and not any(is_within(top, place) for top in TEMPORARY):
            events.touch(place, Touch.UNKNOWN)


def _is_link(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISLNK(status.st_mode)


def _may_stand_there(attr: Attr) -> bool:
    if stat.S_ISLNK(attr.mode):
        return not attr.target.startswith(b"/")
    return (stat.S_ISREG(attr.mode) or stat.S_ISDIR(attr.mode)) and not attr.mode & SPECIAL_BITS
