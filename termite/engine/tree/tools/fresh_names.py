"""Know the private names that this user's programs have made in temporary directories.

Jobs do not see such a name. A local command may have made the file, and a job may have the name
from a file of the tree: it would take the file for missing. Therefore mirrors get these names, and
a job that looks for one of them runs on the master's machine.
"""

import os
from collections.abc import Iterable, Mapping

from termite.engine.paths import MOST_FRESH, join
from termite.engine.tree.logic.temporary_names import is_never_shown

CLOCK_NS = 10**9  # the clock of a file system is behind, by a tick of the kernel or more


class FreshNames:
    """The private names of this user that were made since the build began."""

    def __init__(self, now_ns: int) -> None:
        self._uid = os.geteuid()
        self._since_ns = now_ns - CLOCK_NS
        self._made: dict[bytes, int] = {}  # the ctime of each, by path
        self._paths: tuple[bytes, ...] | None = ()

    @property
    def paths(self) -> tuple[bytes, ...]:
        """The paths of all that are there, as far as the disk was read."""
        if self._paths is None:
            self._paths = tuple(self._made)
        return self._paths

    def begin_build(self, now_ns: int) -> None:
        """Forget the names that were made before `now_ns`. Call this if no other build runs."""
        self._since_ns = now_ns - CLOCK_NS
        self._made = {path: made_ns for path, made_ns in self._made.items() if made_ns >= self._since_ns}
        self._paths = None

    def note(self, directory: bytes, names: Iterable[bytes], hidden: Mapping[bytes, os.stat_result]) -> None:
        """Note which of these names jobs do not see; the others are gone or shown."""
        for name in names:
            if self._made and self._made.pop(join(directory, name), None) is not None:
                self._paths = None
        for name, st in hidden.items():
            path = join(directory, name)
            if st.st_uid != self._uid or st.st_ctime_ns < self._since_ns or is_never_shown(path):
                continue
            if len(self._made) >= MOST_FRESH:
                del self._made[next(iter(self._made))]
            self._made[path] = st.st_ctime_ns
            self._paths = None
