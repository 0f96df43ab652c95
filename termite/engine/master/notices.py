"""What was said in this build of what did not come home: a build of thousands needs no thousand lines.

ccache, for one, writes the same file below its cache in every job, and new ones for each object.
"""

from collections import Counter
from collections.abc import Sequence

PLACE = 3  # so many names of a directory are a place: home/me/.cache, root/.cache/ccache; usr/lib has two
LINES = 3  # about one place: by then a user knows what happens there, and the summary counts and names the rest
NAMED = 3  # paths in one line, which a person reads
REMEMBERED = 1000  # paths, and places, so that the memory does not grow with the jobs; what is beyond is only counted


class Notices:
    """Since the last build began, or nothing ran for a while: without a front end no summary names what was dropped."""

    def __init__(self) -> None:
        self._paths: set[tuple[str, bytes]] = set()
        self._lines: Counter[tuple[str, bytes]] = Counter()

    def clear(self) -> None:
        self._paths.clear()
        self._lines.clear()

    def pick(self, kind: str, paths: Sequence[bytes]) -> list[bytes]:
        """Those to be named in a line of this kind, which counts as told; none: it is not worth one."""
        if len(self._paths) >= REMEMBERED:
            return []
        named = [path for path in dict.fromkeys(paths) if self._is_news(kind, path)][:NAMED]
        self._paths.update((kind, path) for path in named)
        self._lines.update({_place(kind, path) for path in named})
        return named

    def is_last(self, kind: str, path: bytes) -> bool:
        """Is what follows of its place only counted?"""
        return self._lines[_place(kind, path)] >= LINES

    def _is_news(self, kind: str, path: bytes) -> bool:
        return (kind, path) not in self._paths and not self.is_last(kind, path)


def _place(kind: str, path: bytes) -> tuple[str, bytes]:
    directory = path.split(b"/")[:-1]
    return kind, b"/".join(directory[:PLACE])
