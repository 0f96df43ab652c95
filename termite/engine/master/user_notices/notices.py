"""Remember which dropped files the user was already notified of.

A build of thousands of jobs then prints a few notices, not thousands. For example, ccache writes
the same file below its cache in every job, and new files for each object.
"""

import enum
from collections import Counter
from collections.abc import Sequence

from termite.engine.errors import Reason

# Files are in one place if the first three names of their directories are equal, such as
# home/me/.cache or root/.cache/ccache.
PLACE_NAMES = 3
LINES_PER_PLACE = 3  # then a user knows what happens there; the summary counts and names all files
PATHS_PER_LINE = 3  # as many as a person reads
MAX_REMEMBERED = 1000  # paths, so that the memory does not grow with the jobs; later ones get no notice


class NoticeKind(enum.Enum):
    """A kind of notice that has no `Reason`, because it is about no command that ran here."""

    DROPPED_PLACE = enum.auto()  # a droppable place, in which files were dropped
    DROPPED = enum.auto()  # files outside the tree
    SOCKET_LEFT = enum.auto()  # on its worker
    SETTINGS_IGNORED = enum.auto()  # variables of termite
    SILENT = enum.auto()  # a worker


class Notices:
    """The notices of the current build.

    The master clears them when a build begins, and when a job comes after 10 idle seconds, because
    launchers without a front end print no summary.
    """

    def __init__(self) -> None:
        self._paths: set[tuple[NoticeKind | Reason, bytes]] = set()
        self._lines: Counter[tuple[NoticeKind | Reason, bytes]] = Counter()

    def clear(self) -> None:
        """Forget everything, so that the next build gets its own notices."""
        self._paths.clear()
        self._lines.clear()

    def select_new(self, kind: NoticeKind | Reason, paths: Sequence[bytes]) -> list[bytes]:
        """Return the paths to name in a notice of this kind, and remember them as named.

        The result is empty if the user needs no further notice.
        """
        if len(self._paths) >= MAX_REMEMBERED:
            return []
        named = [path for path in dict.fromkeys(paths) if self._is_new(kind, path)][:PATHS_PER_LINE]
        self._paths.update((kind, path) for path in named)
        self._lines.update({_place(kind, path) for path in named})
        return named

    def is_new(self, kind: NoticeKind | Reason, path: bytes) -> bool:
        """Return True if `select_new` would return this path."""
        return len(self._paths) < MAX_REMEMBERED and self._is_new(kind, path)

    def is_place_full(self, kind: NoticeKind | Reason, path: bytes) -> bool:
        """Return True if the place of `path` gets no further notices of this kind."""
        return self._lines[_place(kind, path)] >= LINES_PER_PLACE

    def _is_new(self, kind: NoticeKind | Reason, path: bytes) -> bool:
        return (kind, path) not in self._paths and not self.is_place_full(kind, path)


def _place(kind: NoticeKind | Reason, path: bytes) -> tuple[NoticeKind | Reason, bytes]:
    directory = path.split(b"/")[:-1]
    return kind, b"/".join(directory[:PLACE_NAMES])
