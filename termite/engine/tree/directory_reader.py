"""Read directories of the master's disk as far as they may be shown.

The order matters: a directory is watched before it is listed, so that a change between the two is
reported by the watch. Nothing here changes the AttrTree. An entry is absent only if the disk says
so: an error of the look itself is raised.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Collection, Mapping

from termite.engine import look_calls
from termite.engine.errors import TermiteError
from termite.engine.look_errors import GONE, REFUSED, is_answer
from termite.engine.model import UNKNOWN, Attr
from termite.engine.paths import NAME_BYTES, PATH_BYTES, components, from_root_down, is_below, is_within, join, split
from termite.engine.tree.hashes import Hashes, is_racy, stamp_of
from termite.engine.tree.logic.attrs import LinkIds, Seen
from termite.engine.tree.logic.temporary_names import TEMPORARY, temporary_above
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.logic.visibility import (
    STANDARD_DIRECTORIES,
    DirectoryRules,
    Exports,
    Visibility,
    is_public,
)
from termite.engine.tree.tools.entry_notes import EntryNotes
from termite.engine.tree.tools.hidden_entries import hidden_entry, place_of_one_machine
from termite.engine.tree.tools.programs import leads_away, seal_unless_refused, sealed_file, way_to
from termite.engine.tree.tools.refused_entries import refused_entry
from termite.engine.tree.tree_disk import Disk, LookErrors, look_failed
from termite.engine.tree.watch import Watches

# The mtime of a directory that termite makes up. make and ninja take 0 for "does not exist".
LONG_AGO_NS = 10**9
# The size of every directory. The real size depends on the file system, and on entries that are
# gone.
DIRECTORY_BYTES = 4096

# The shown entries of a directory, and its own stat_result (None if it is made up or was not
# opened).
Listed = tuple[dict[bytes, Seen], os.stat_result | None]

log = logging.getLogger(__name__)


class DirectoryClosed(TermiteError):
    """An error for the follower: our own directory of the tree may not be listed, by its mode."""


class DirectoryReader:
    """A reader that converts directories and entries of the disk to `Seen` values.

    Methods block as far as the disk does. `seen` returns the entry that the AttrTree has for a
    path, or None. `refused` has the names, by directory, that the disk has but refused to inspect.
    They must be inspected again, because the permission may come back. `sealed`
    has the paths of the sealed files. `link_ids` numbers the files with several names. `notes` are
    those on entries of the tree.
    """

    def __init__(
        self,
        disk: Disk,
        exports: Exports,
        hashes: Hashes,
        watches: Watches,
        seen: Callable[[bytes], Seen | None],
    ) -> None:
        self._disk = disk
        self._exports = exports
        self._hashes = hashes
        self._watches = watches
        self._seen = seen
        self.link_ids = LinkIds()
        self.refused: dict[bytes, set[bytes]] = {}
        self.sealed: set[bytes] = set()
        self.notes = EntryNotes(exports, self.is_shown)

    def read_root(self) -> Seen:
        """Return the root directory itself. Raise OSError if it cannot be read."""
        fd = self._disk.open_directory(b"", os.O_PATH)
        try:
            return self.to_seen(fd, b"", look_calls.fstat(fd))
        finally:
            os.close(fd)

    def read_directory(self, directory: bytes) -> Listed:
        """Watch a directory, then return its shown entries. Raise OSError if it cannot be listed.

        Raise Retryable if nobody knows whether it can, or what one of its entries is.
        A directory that shows only passages is not listed. Each passage is read by name. It is only
        watched below a temporary directory, where it shows names that commands mention. A directory
        that is too deep for the wire cannot be listed, so that no mirror is told of a longer path.
        """
        if len(directory) + 1 + NAME_BYTES > PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        rules = self._exports.rules(directory)
        is_whole = rules.visibility is Visibility.WHOLE or rules.has_programs
        if not is_whole and not (rules.visibility is Visibility.PUBLIC and self._is_open(directory)):
            self.notes.note_listing(directory, is_listed=False)
            return self._read_passages(directory, rules)
        self.notes.note_listing(directory, is_listed=True)
        with LookErrors(directory):
            try:
                fd = self._disk.open_directory(directory)
            except FileNotFoundError:
                if directory not in STANDARD_DIRECTORIES:
                    raise
                return _standard_directories(-1, directory, rules), None  # this machine does not have it
            try:
                self._watches.watch(directory, fd)
                found = self.read_entries(directory, fd, [*map(os.fsencode, look_calls.listdir(fd))])
                if directory in self.refused and not look_calls.has_right(b".", os.X_OK, dir_fd=fd):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # names without anything behind them
                return found, look_calls.fstat(fd)
            finally:
                os.close(fd)

    def read_directory_or_nothing(self, directory: bytes) -> Listed:
        """Do as `read_directory`, but return no entries if the directory cannot be listed.

        A volatile directory is then listed again at every drain. Raise Retryable if we may list it,
        and were refused all the same, as by a network file system whose ticket has expired, or if
        its FUSE mount is dead. Raise DirectoryClosed if it is of the tree, and our own, and its
        mode is against listing it.
        """
        try:
            return self.read_directory(directory)
        except OSError as e:
            own_mode = self._disk.own_mode(directory) if e.errno == errno.EACCES else None
            if e.errno == errno.ENOTCONN or (own_mode is not None and own_mode & 0o500 == 0o500):
                raise look_failed(directory, e) from e
            if own_mode is not None and self._exports.is_live(directory):
                raise DirectoryClosed from e
            log.debug("directory-unreadable path=%r reason=%s", directory, e)
            self._watches.list_always(directory)
            return {}, None

    def read_names(self, directory: bytes, names: Collection[bytes]) -> Listed:
        """Return the entries of these names as `read_entries` does, and the directory's status.

        Raise OSError if the directory is gone or refused.
        """
        with LookErrors(directory):
            fd = self._disk.open_directory(directory, os.O_PATH)
            try:
                return self.read_entries(directory, fd, names), look_calls.fstat(fd)
            finally:
                os.close(fd)

    def read_entries(self, directory: bytes, fd: int, names: Collection[bytes]) -> dict[bytes, Seen]:
        """Return the entries of these names that may be shown, and the standard directories.

        `fd` is the open directory; O_PATH is enough. An entry that is gone is left out. One that
        was refused is noted, and is left out or unknown. Raise Retryable at any other error.
        """
        rules = self._exports.rules(directory)
        is_open = rules.visibility is Visibility.PUBLIC and self._is_open(directory)
        found, hidden = _standard_directories(fd, directory, rules), dict[bytes, os.stat_result]()
        for name in names:
            if name in found:
                continue
            st = None
            try:
                st = look_calls.stat(name, dir_fd=fd, follow_symlinks=False)
                self.notes.note(directory, fd, name, st)
                is_shown = self._exports.shows(rules, is_open, directory, name, st.st_mode)
                if rules.has_programs or name in rules.sealed:
                    judge = self._judge_program if rules.has_programs else self._judge_settings
                    is_shown, seal = judge(directory, fd, name, st.st_mode, is_shown=is_shown)
                    if seal:
                        found[name] = seal
                if is_shown:
                    found[name] = self.to_seen(fd, name, st)
                elif name not in found:
                    hidden[name] = st
            except OSError as e:
                if e.errno in REFUSED:
                    self.refused.setdefault(directory, set()).add(name)
                    is_target = st is not None and (rules.has_programs or name in rules.sealed)
                    if found_so := refused_entry(self._exports, directory, fd, name, e, is_target, is_open=is_open):
                        found[name] = found_so
                elif e.errno in GONE or e.errno == errno.EINVAL:
                    # It is gone, or (EINVAL) no symlink any more. An event will report both.
                    self.refused.get(directory, set()).discard(name)
                else:
                    raise look_failed(join(directory, name), e) from e
        self.notes.note_hidden(directory, fd, names, hidden)
        self._forget_refused(directory, found)
        return found

    def _forget_refused(self, directory: bytes, found: Mapping[bytes, Seen]) -> None:
        if directory not in self.refused:
            return
        self.refused[directory] -= {name for name, seen in found.items() if seen.attr.mode != UNKNOWN}
        if not self.refused[directory]:
            del self.refused[directory]

    def _judge_program(
        self, directory: bytes, fd: int, name: bytes, mode: int, *, is_shown: bool
    ) -> tuple[bool, Seen | None]:
        """Return whether an entry of a directory of programs is shown, and what seals it.

        A symlink to a program that jobs see is shown, even where nothing else is.
        """
        path = join(directory, name)
        self.sealed.discard(path)
        if (is_shown or stat.S_ISLNK(mode)) and not leads_away(directory, name, mode, self.is_shown):
            return is_shown or look_calls.has_right(name, os.X_OK, dir_fd=fd), None
        seal = seal_unless_refused(fd, name, os.X_OK, is_shown=is_shown)
        if seal:
            self.sealed.add(path)
        return is_shown and not seal, seal

    def _judge_settings(
        self, directory: bytes, fd: int, name: bytes, mode: int, *, is_shown: bool
    ) -> tuple[bool, Seen | None]:
        """Return whether a file with settings is shown, and what seals it.

        A symlink is shown if jobs see its target.
        """
        path = join(directory, name)
        self.sealed.discard(path)
        if stat.S_ISLNK(mode):
            links, real = way_to(b"/" + path)
            is_shown = all(self.is_shown(step.strip(b"/")) for step in (*links[1:], real))
        seal = None if is_shown else sealed_file(fd, name, os.R_OK)  # refused, it is absent and checked again
        if seal:
            self.sealed.add(path)
        return is_shown, seal

    def is_shown(self, path: bytes) -> bool:
        """Return whether jobs see `path`, which has no symlink on its way, as the disk is now.

        Raise OSError if a look fails.
        """
        is_open = True
        for step in list(from_root_down(path))[1:]:
            parent, name = split(step)
            try:
                mode = look_calls.lstat(b"/" + step).st_mode
            except OSError as error:
                if not is_answer(error):
                    raise
                return False
            rules = self._exports.rules(parent)
            if not self._exports.shows(rules, is_open, parent, name, mode):
                return False
            is_open = is_open and (stat.S_ISLNK(mode) or is_public(mode))
        return True

    def find_suspects(self, directory: bytes, listing: Mapping[bytes, Seen]) -> set[bytes] | None:
        """Return the names in `listing` whose stamps differ from the disk.

        None means that the directory itself differs and must be listed again. Names that were
        refused are always suspects. This may run in any thread.
        """
        try:
            fd = self._disk.open_directory(directory, os.O_PATH)
        except OSError:  # it is gone or refused: listing it again says which
            return None
        try:
            own = self._seen(directory)
            if own is not None and own.stamp is not None and not _has_stamp(fd, own):
                return None
            if self._exports.is_crowded(directory):
                return None  # it has no stamp, as its time changes with every temporary file of others
            suspects = {name for name, seen in listing.items() if seen.stamp and not _is_as_seen(fd, name, seen)}
            return suspects | self.refused.get(directory, set())
        finally:
            os.close(fd)

    def find_private(self, path: bytes, *, is_spelled: bool = True, listed: bytes = b"") -> bytes:
        """Return the first directory or file on this path that jobs do not see, though it exists.

        A directory counts too if jobs see only what leads further, such as the user's home. Return
        b"" if jobs see the path, or if there is nothing. The path has no symlinks. Standard
        directories and excluded paths do not count: no job is meant to see them. `is_spelled`: the
        command has the path in its text, which shows it below a temporary directory. The entries of
        the directory that match the shell pattern `listed` count as well. Raise FsError if the path
        is malformed, and OSError if a look fails.
        """
        names = components(path)
        if self._exports.visibility(path) in (Visibility.WHOLE, Visibility.HIDDEN):
            return b""
        is_above_root = is_below(self._exports.writable_root, path)
        is_met = temporary_above(path) and (is_above_root or not is_spelled)
        if any(is_within(path, top) for top in STANDARD_DIRECTORIES) and not is_met:
            return place_of_one_machine(path, listed)
        directory, is_open, is_searchable = b"", True, True
        for name in names:
            entry = join(directory, name)
            try:
                mode = look_calls.lstat(b"/" + entry).st_mode
            except OSError as error:
                if not is_answer(error):
                    raise
                return b""
            if not self._exports.shows(self._exports.rules(directory), is_open, directory, name, mode):
                return entry
            if not stat.S_ISDIR(mode):
                return b""
            directory = entry
            is_searchable = self._exports.is_opened(entry) or (is_searchable and bool(mode & 0o001))
            is_open = self._exports.is_opened(entry) or (is_searchable and bool(mode & 0o004))
        return directory if not is_open else hidden_entry(self._exports, directory, listed) if listed else b""

    def to_seen(self, fd: int, name: bytes, st: os.stat_result) -> Seen:
        """Convert a stat_result of the entry `name` of the open directory `fd`.

        The digest is None unless the content was hashed before. Raise OSError if a symlink is gone.
        """
        stamp = stamp_of(st)
        if stat.S_ISDIR(st.st_mode):
            return Seen(Attr(st.st_mode, DIRECTORY_BYTES, wire_ns(st.st_mtime_ns)), stamp)
        target = look_calls.readlink(name, dir_fd=fd) if stat.S_ISLNK(st.st_mode) else b""
        is_file = stat.S_ISREG(st.st_mode)
        attr = Attr(
            mode=st.st_mode,
            size=st.st_size,
            mtime_ns=wire_ns(st.st_mtime_ns),
            digest=self._hashes.find(stamp) if is_file else None,
            target=target,
            nlink=st.st_nlink,
            link_id=self.link_ids.number(stamp) if st.st_nlink > 1 else 0,
        )
        return Seen(attr, stamp, is_racy(st, self._watches.read_at_ns))

    def _read_passages(self, directory: bytes, rules: DirectoryRules) -> Listed:
        if not rules.passages:
            return {}, None
        with LookErrors(directory):
            try:
                fd = self._disk.open_directory(directory, os.O_PATH)
            except FileNotFoundError:  # a standard directory that this machine does not have
                return _standard_directories(-1, directory, rules), None
            try:
                if temporary_above(directory):
                    self._watches.watch(directory, fd)
                return self.read_entries(directory, fd, rules.passages), look_calls.fstat(fd)
            finally:
                os.close(fd)

    def _is_open(self, directory: bytes) -> bool:
        """Return whether the AttrTree lets every user of this machine list the directory."""
        opened = self._exports.opened_above(directory)
        below = (d for d in from_root_down(directory) if not opened or is_below(d, opened))
        modes = [seen.attr.mode for d in below if (seen := self._seen(d)) is not None]
        return not modes or (all(mode & 0o001 for mode in modes) and bool(modes[-1] & 0o004))


def _standard_directories(fd: int, directory: bytes, rules: DirectoryRules) -> dict[bytes, Seen]:
    """Return the made-up entries of STANDARD_DIRECTORIES that stand in this directory.

    `fd` is the open directory, or -1 if there is none. A temporary directory has the mode that it
    has on the disk. If a symlink takes its place, nothing is made up.
    """
    found = {}
    for name in rules.passages:
        path = join(directory, name)
        if path in STANDARD_DIRECTORIES:
            mode = _mode_at(fd, name) if path in TEMPORARY else 0
            if not stat.S_ISLNK(mode):
                found[name] = _made_up(stat.S_IMODE(mode) if stat.S_ISDIR(mode) else STANDARD_DIRECTORIES[path])
    return found


def _mode_at(fd: int, name: bytes) -> int:
    """Return the st_mode of an entry, 0 if there is none. Raise OSError if the look fails."""
    try:
        return look_calls.stat(name, dir_fd=fd, follow_symlinks=False).st_mode if fd >= 0 else 0
    except OSError as error:
        if not is_answer(error):
            raise
        return 0


def _made_up(mode: int) -> Seen:
    return Seen(Attr(stat.S_IFDIR | mode, DIRECTORY_BYTES, LONG_AGO_NS))


def _has_stamp(fd: int, seen: Seen) -> bool:
    try:
        return stamp_of(look_calls.fstat(fd)) == seen.stamp
    except OSError:  # it counts as changed, and is listed again
        return False


def _is_as_seen(fd: int, name: bytes, seen: Seen) -> bool:
    try:
        return stamp_of(look_calls.stat(name, dir_fd=fd, follow_symlinks=False)) == seen.stamp
    except OSError:  # gone or refused, so it differs
        return False
