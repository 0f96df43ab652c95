"""Check a job's changes, and put them in the order in which they are made on the user's disk.

Nothing in them is trusted. If a path is malformed, or no sandbox could have made the change, the
worker has broken the protocol.
"""

import errno
import stat
from collections.abc import Callable, Container, Iterable, Mapping

import msgspec

from termite.engine.errors import FsError, RemoteProtocolError
from termite.engine.model import Attr, Change
from termite.engine.paths import RESULT_BYTES, SHOWN_BYTES, components, from_below_up, split


class Plan(msgspec.Struct, frozen=True):
    """The steps in their order, first to last.

    A directory in `directories` that exists keeps its contents. The times of directories are set
    after all steps, because each step below a directory changes its mtime.
    """

    replaced: tuple[bytes, ...]  # removed first, because something else takes their place
    directories: tuple[Change, ...]  # parents first
    files: tuple[Change, ...]
    symlinks: tuple[Change, ...]
    links: tuple[Change, ...]
    fifos: tuple[Change, ...]
    attributes: tuple[Change, ...]
    removed: tuple[bytes, ...]  # deepest first

    def parents(self, standing: Container[bytes]) -> frozenset[bytes]:
        """Return the directories in which something is made, and which must therefore exist.

        `standing` are paths of `directories` that need not be made.
        """
        made = (*self.files, *self.symlinks, *self.links, *self.fifos)
        new = (change for change in self.directories if change.path not in standing)
        return frozenset(split(change.path)[0] for change in (*made, *new))


def make_plan(changes: Iterable[Change], is_writable: Callable[[bytes], bool]) -> Plan:
    """Check the changes and return the plan.

    Raise RemoteProtocolError if a change is malformed: the worker's connection is dropped. Raise
    FsError(EPERM) if `is_writable` refuses a path: the job fails.
    """
    made: dict[bytes, tuple[Change, Attr]] = {}
    gone: dict[bytes, None] = {}
    for change in changes:
        _check(change, is_writable)
        if change.attr is None:
            gone[change.path] = None
            made.pop(change.path, None)
        else:
            made[change.path] = change, change.attr
    _check_parents(made)
    kinds: dict[int | str, list[Change]] = {}
    parents = {split(path)[0] for path, (change, _) in made.items() if change.content}
    for change, attr in made.values():
        kinds.setdefault(_kind(change, attr, change.path in parents), []).append(change)
    return Plan(
        replaced=tuple(path for path in gone if path in made),
        directories=tuple(sorted(kinds.get(stat.S_IFDIR, ()), key=_depth)),
        files=tuple(kinds.get(stat.S_IFREG, ())),
        symlinks=tuple(kinds.get(stat.S_IFLNK, ())),
        links=tuple(kinds.get("link", ())),
        fifos=tuple(kinds.get(stat.S_IFIFO, ())),
        attributes=tuple(kinds.get("attributes", ())),
        removed=tuple(sorted((path for path in gone if path not in made), key=lambda p: -p.count(b"/"))),
    )


def _check_parents(made: Mapping[bytes, tuple[Change, Attr]]) -> None:
    """Raise RemoteProtocolError if an entry is below one of the changes that is no directory.

    Otherwise the one would be published, and then the other could not be.
    """
    for parent in {split(path)[0] for path in made}:
        for above in from_below_up(parent):
            if (found := made.get(above)) and not stat.S_ISDIR(found[1].mode):
                raise RemoteProtocolError(f"an entry below {above[:SHOWN_BYTES]!r}, which is no directory")


def _check(change: Change, is_writable: Callable[[bytes], bool]) -> None:
    for path in (change.path, change.link_to):
        if path is None:
            continue
        try:
            components(path, RESULT_BYTES)
        except FsError as e:
            raise RemoteProtocolError(f"not a path: {path[:SHOWN_BYTES]!r}") from e
        if not is_writable(path):
            raise FsError(errno.EPERM, path)
    attr = change.attr
    if attr is None:
        return
    if b"\0" in attr.target:
        raise RemoteProtocolError(f"no target of a symlink: {attr.target[:SHOWN_BYTES]!r}")
    if change.link_to is not None:
        return
    if stat.S_IFMT(attr.mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO):
        raise RemoteProtocolError(f"mode {attr.mode:o} of {change.path!r}")
    if stat.S_ISREG(attr.mode) and change.content and attr.digest is None:
        raise RemoteProtocolError(f"no digest of {change.path!r}")


def _kind(change: Change, attr: Attr, is_parent: bool) -> int | str:
    if change.link_to is not None:
        return "link"
    if not change.content and not (is_parent and stat.S_ISDIR(attr.mode)):
        return "attributes"
    return stat.S_IFMT(attr.mode)


def _depth(change: Change) -> int:
    return change.path.count(b"/")
