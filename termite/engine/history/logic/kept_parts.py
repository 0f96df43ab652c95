"""Say which parts of a tree's history are removed: the last builds stay, in bounded space."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

BUILDS_KEPT = 20
BYTES_KEPT = 64 * 1024 * 1024
PART_BYTES = 4 * 1024 * 1024  # a part does not grow beyond that; a build of many jobs has several


class BuildPart(NamedTuple):
    """A part of a build, with the bytes of its records and its index. Parts sort by their age.

    `is_empty`: it has no record, as when the disk was full.
    """

    build: int
    part: int
    size_bytes: int = 0
    is_empty: bool = False


def choose_evicted(
    parts: Iterable[BuildPart],
    growing: Collection[tuple[int, int]] = (),
    builds_kept: int = BUILDS_KEPT,
    bytes_kept: int = BYTES_KEPT,
) -> list[BuildPart]:
    """Return the parts to remove, the oldest first.

    `growing` has the build and the number of each part that is written now; these always stay. An
    empty part does not count as a build, so that a full disk drives no records out.
    """
    ordered = sorted(parts)
    builds = {part.build for part in ordered if not part.is_empty or (part.build, part.part) in growing}
    oldest = min(sorted(builds)[-builds_kept:], default=0)
    total = sum(part.size_bytes for part in ordered)
    evicted = []
    for part in ordered:
        is_too_old = part.build < oldest
        if (part.build, part.part) in growing or not (is_too_old or total > bytes_kept):
            continue
        evicted.append(part)
        total -= part.size_bytes
    return evicted
