"""Note entries of the tree that jobs would see otherwise than local commands do.

They are those of other users, private ones, and symlinks to files that jobs must not see. A job
would take such a file for absent, and a shell would run another program of that name.
"""

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from termite.engine import look_calls
from termite.engine.errors import Retryable
from termite.engine.look_errors import is_answer
from termite.engine.paths import from_root_down, join, split
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.tools.code_links import CodeLinks
from termite.engine.tree.tools.fresh_names import FreshNames
from termite.engine.tree.tools.private_entries import is_asked_for, is_within_reach
from termite.engine.tree.tools.programs import IsShown, way_to
from termite.engine.tree.tools.slow_mounts import SlowMounts, slow_mounts
from termite.engine.tree.tree_disk import look_failed

MOST_SEALS = 4096  # each is a name that stays shown as long as the master
MOST_FOLLOWED = 1000  # symlinks of one check: each costs some 30 system calls
MOST_JUDGED = 20_000  # targets, 200 bytes each; then all are forgotten
MOST_OUT_OF_REACH = 100  # entries of other users in one listing: each costs two system calls
MOST_DIRECTORIES = 20_000  # with symlinks to sealed files; then each counts as one of them

Target = tuple[bytes, bytes]  # the directory from which it counts (b"" if it is absolute), and its text


class EntryNotes:
    """The notes on the entries of one tree.

    If the tree `is_mixed`, it has an entry of another user or group. `seals` counts the files that
    were sealed because a symlink leads to them. `is_shown` returns whether jobs see a path.
    `partial` has the directories with entries that jobs do not see. `unlisted` has those of which
    only what leads further was looked at. `turns` counts how often a directory became one of these
    after mirrors had been told that it was not. `code_links` are symlinks that lead to later code.
    `fresh` are the private names in temporary directories.
    """

    def __init__(self, exports: Exports, is_shown: IsShown) -> None:
        """Look at the owners of the entries of the writable root. This blocks on the disk."""
        self._exports = exports
        self._is_shown = is_shown
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._waiting: dict[bytes, Target] = {}  # by symlink
        self._judged: dict[Target, bytes] = {}  # the sealed file, b"" if there is none
        self._numbers: dict[bytes, int] = {}  # of sealed files, in their order
        self._newest: dict[bytes, int] = {}  # of all to which symlinks of a directory lead
        self._newest_elsewhere = 0  # of directories that were forgotten
        self.partial: set[bytes] = set()
        self.unlisted: set[bytes] = set()
        self._told: set[bytes] = set()  # directories outside the tree that were listed for mirrors
        self.turns = 0
        self.is_mixed = False
        self.seals = 0
        self.code_links = CodeLinks(exports.writable_root)
        self.fresh = FreshNames(time.time_ns())
        try:
            with look_calls.scandir(b"/" + exports.writable_root) as found:
                self.is_mixed = any(self._is_foreign(entry.stat(follow_symlinks=False)) for entry in found)
        except OSError as error:  # the first job meets the same error; until then nobody knows
            self.is_mixed = not is_answer(error)

    def note(self, directory: bytes, fd: int, name: bytes, st: os.stat_result) -> None:
        """Note an entry of a directory that is open as `fd`. Raise OSError if a symlink is gone."""
        is_foreign, is_link = self._is_foreign(st), stat.S_ISLNK(st.st_mode)
        if not (is_foreign or is_link) or not self._exports.is_live(directory):
            return
        self.is_mixed |= is_foreign
        if is_link:
            self.code_links.note(join(directory, name))
        target = look_calls.readlink(name, dir_fd=fd) if is_link else b""
        if target.startswith(b"/") or b".." in target.split(b"/"):
            nominal = os.path.normpath(os.path.join(b"/", directory, target))
            if not self._exports.is_live(nominal.strip(b"/")):
                self._note_link(directory, name, target)

    def note_hidden(
        self, directory: bytes, fd: int, names: Collection[bytes], hidden: Mapping[bytes, os.stat_result]
    ) -> None:
        """Note which of these names jobs do not see. Raise OSError if a look fails.

        Entries that this user cannot use do not count, unless there are very many.
        """
        if self._exports.is_crowded(directory):
            self.fresh.note(directory, names, hidden)
        if not hidden or directory in self.partial or not is_asked_for(self._exports, directory):
            return
        if len(hidden) > MOST_OUT_OF_REACH or any(is_within_reach(fd, name, st.st_mode) for name, st in hidden.items()):
            self.partial.add(directory)
            self.turns += directory in self._told

    def note_listing(self, directory: bytes, *, is_listed: bool) -> None:
        """Note whether a directory is listed, or only what leads further is looked at in it."""
        if is_listed:
            self.unlisted.discard(directory)
        elif directory not in self.unlisted:
            self.unlisted.add(directory)
            self.turns += directory in self._told and is_asked_for(self._exports, directory)

    def hides(self, directory: bytes) -> tuple[bool, bool]:
        """Return whether a directory has entries that jobs do not see, and whether it is unlisted.

        A mirror is told so once, and then asks for each entry that it lacks. If this turns later,
        see `turns`, it needs a new lease.
        """
        if not self._exports.is_live(directory):
            self._told.add(directory)
        is_unlisted = directory in self.unlisted
        if not (is_unlisted or directory in self.partial) or not is_asked_for(self._exports, directory):
            return False, False
        return True, is_unlisted

    def seal(self, note_failure: Callable[[Retryable], None]) -> Iterable[bytes]:
        """Seal the files to which noted symlinks lead, and return the directories to list again.

        A way that comes to a place where a look may hang is not followed. If a look fails,
        `note_failure` gets the error, and the next call follows the symlink again.
        """
        if not self._waiting:  # as nearly always
            return ()
        waiting, self._waiting = self._waiting, {}
        touched: set[bytes] = set()
        mounts: SlowMounts | None = None
        for link, target in waiting.items():
            try:
                mounts = mounts if mounts is not None else slow_mounts(self._exports.writable_root)
                touched.update(self._follow(link, target, mounts))
            except OSError as error:
                self._waiting[link] = target
                note_failure(look_failed(link, error))
        return sorted(touched)

    def _follow(self, link: bytes, target: Target, mounts: SlowMounts) -> list[bytes]:
        links, real = way_to(b"/" + link, lambda step: mounts.may_hang(step.strip(b"/")))
        return self._judge(link, target, [step.strip(b"/") for step in (*links[1:], real)]) if real else []

    def newest_seal(self, directory: bytes) -> int:
        """Return the number of the newest seal to which a symlink of this directory leads, or 0.

        The first seal has the number 1. A mirror that lists the directory may know the place of the
        file as it was before.
        """
        return self._newest.get(directory, self._newest_elsewhere)

    def _is_foreign(self, st: os.stat_result) -> bool:
        return st.st_uid != self._uid or st.st_gid != self._gid

    def _note_link(self, directory: bytes, name: bytes, target: bytes) -> None:
        aim = (b"" if target.startswith(b"/") else directory, target)
        if aim in self._judged:
            self._note_seal(directory, self._judged[aim])
        elif len(self._waiting) < MOST_FOLLOWED:
            self._waiting[join(directory, name)] = aim

    def _judge(self, link: bytes, target: Target, steps: list[bytes]) -> list[bytes]:
        """Seal what a symlink leads to if jobs do not see it. Return the directories that differ.

        `steps` are the other symlinks on the way, and the file. A target that does not exist is
        not remembered, because it may come. Raise OSError if a look fails.
        """
        file, found = steps[-1], b""
        touched: list[bytes] = []
        if not look_calls.has_entry(b"/" + file):  # the way ends at no symlink
            return touched
        if self._exports.is_sealed(file):
            found = file
        elif not all(map(self._is_shown, steps)) and self._seal_file(file):
            found = file
            for step in steps[:-1]:
                self._exports.lead_to(step)
            self.seals += 1
            self._numbers[file] = self.seals
            touched = [above for path in steps for above in from_root_down(split(path)[0])]
        if len(self._judged) >= MOST_JUDGED:
            self._judged.clear()
        self._judged[target] = found
        self._note_seal(split(link)[0], found)
        return touched

    def _seal_file(self, file: bytes) -> bool:
        """Seal a file that this user may read. Return False if it has another rule."""
        place = b"/" + file
        is_file = self.seals < MOST_SEALS and stat.S_ISREG(look_calls.lstat(place).st_mode)
        return is_file and look_calls.has_right(place, os.R_OK) and self._exports.seal(file)

    def _note_seal(self, directory: bytes, file: bytes) -> None:
        if number := self._numbers.get(file, 0):
            if len(self._newest) >= MOST_DIRECTORIES:
                self._newest.clear()
                self._newest_elsewhere = self.seals
            self._newest[directory] = max(self.newest_seal(directory), number)
