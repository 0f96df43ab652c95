"""Note entries of the tree that jobs would see otherwise than local commands do.

They are those of other users, and symlinks to files that jobs must not see. A job would take such a
file for absent, and a shell would run another program of that name.
"""

import os
import stat
from collections.abc import Callable, Iterable

from termite.engine.paths import from_root_down, join, split
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.tools.programs import way_to

IsShown = Callable[[bytes], bool]


class EntryNotes:
    """The notes on the entries of one tree.

    If the tree `is_mixed`, it has an entry of another user or group. `seals` counts the files that
    were sealed because a symlink leads to them. `is_shown` returns whether jobs see a path.
    """

    def __init__(self, exports: Exports, is_shown: IsShown) -> None:
        """Look at the owners of the entries of the writable root. This blocks on the disk."""
        self._exports = exports
        self._is_shown = is_shown
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._ways: list[list[bytes]] = []
        self.is_mixed = False
        self.seals = 0
        try:
            with os.scandir(b"/" + exports.writable_root) as found:
                self.is_mixed = any(self._is_foreign(entry.stat(follow_symlinks=False)) for entry in found)
        except OSError:  # the first job will meet the same error
            pass

    def note(self, directory: bytes, fd: int, name: bytes, st: os.stat_result) -> None:
        """Note an entry of a directory that is open as `fd`. Raise OSError if a symlink is gone."""
        is_foreign, is_link = self._is_foreign(st), stat.S_ISLNK(st.st_mode)
        if not (is_foreign or is_link) or not self._exports.is_live(directory):
            return
        self.is_mixed |= is_foreign
        target = os.readlink(name, dir_fd=fd) if is_link else b""
        if target.startswith((b"/", b"..")):
            nominal = os.path.normpath(os.path.join(b"/", directory, target))
            if not self._exports.is_live(nominal.strip(b"/")):
                self._note_way(b"/" + join(directory, name))

    def seal(self) -> Iterable[bytes]:
        """Seal the files to which noted symlinks lead, and return the directories to list again."""
        if not self._ways:  # as nearly always
            return ()
        ways, self._ways = self._ways, []
        touched: set[bytes] = set()
        for *links, file in ways:
            if self._exports.is_sealed(file):
                continue
            for link in links:
                self._exports.lead_to(link)
            if self._exports.seal(file):
                self.seals += 1
                touched.update(step for path in (*links, file) for step in from_root_down(split(path)[0]))
        return sorted(touched)

    def _is_foreign(self, st: os.stat_result) -> bool:
        return st.st_uid != self._uid or st.st_gid != self._gid

    def _note_way(self, link: bytes) -> None:
        links, real = way_to(link)
        steps = [step.strip(b"/") for step in (*links[1:], real)]
        if not all(map(self._is_shown, steps)) and os.path.isfile(real) and os.access(real, os.R_OK):
            self._ways.append(steps)
