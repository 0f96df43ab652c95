"""What was said since the last build began of what did not come home: a build of thousands needs no thousand lines."""

from collections import Counter
from collections.abc import Sequence

PATHS = 1000  # are remembered as told
PLACE = 3  # so many names are a place: home/me/.cache, root/.cache/ccache, usr/local/lib
LINES = 3  # may name a new path of one place


class Told:
    """Since the last build began."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._lines: Counter[bytes] = Counter()

    def clear(self) -> None:
        self._paths.clear()
        self._lines.clear()

    def news(self, paths: Sequence[bytes]) -> list[bytes]:
        """Those worth a line: not told yet, and not of a place of which enough was told. ccache drops the same path in
        every job, and new ones below its cache."""
        new = [path for path in dict.fromkeys(paths) if path not in self._paths and self._lines[_place(path)] < LINES]
        if len(self._paths) < PATHS:
            self._paths.update(new)
        self._lines.update({_place(path) for path in new})
        return new

    def is_last(self, path: bytes) -> bool:
        """Is what follows of its place only counted?"""
        return self._lines[_place(path)] == LINES


def _place(path: bytes) -> bytes:
    return b"/".join(path.split(b"/", PLACE)[:PLACE])
