"""Trees and jobs as values, for tests of what a job depends on."""

import hashlib
import stat
from collections.abc import Iterable, Mapping

from termite.engine.model import Attr, Change, Digest
from termite.engine.paths import split
from termite.engine.recall.logic.dependencies import DependencySet, EndedJob, find_dependencies
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import Use
from termite.engine.tree.logic.attrs import AttrTree, Seen
from termite.engine.tree.logic.times import Timing

ROOT = b"w"
TIMING = Timing(0, 10**12, 2 * 10**12, 0, 1)
LONG_AGO_NS = 10**9

NOTHING = AccessKind(0)
READ = AccessKind.READ | AccessKind.FOLLOW
STAT = AccessKind.STAT | AccessKind.FOLLOW
LSTAT = AccessKind.STAT | AccessKind.NOFOLLOW
WRITES = AccessKind.CREATE | AccessKind.TRUNC | AccessKind.FOLLOW
APPENDS = AccessKind.CREATE | AccessKind.WRITE | AccessKind.FOLLOW
EXEC = AccessKind.EXEC | AccessKind.FOLLOW
LIST = AccessKind.LIST
UNLINK = AccessKind.UNLINK | AccessKind.NOFOLLOW
MKDIR = AccessKind.MAKE | AccessKind.NOFOLLOW
EXCL = AccessKind.CREATE | AccessKind.EXCL | AccessKind.NOFOLLOW


def directory(mode: int = 0o755) -> Attr:
    return Attr(stat.S_IFDIR | mode, 4096, LONG_AGO_NS)


def file(content: str = "", mode: int = 0o644, mtime_ns: int = LONG_AGO_NS, nlink: int = 1) -> Attr:
    digest = Digest(hashlib.sha256(content.encode()).digest(), len(content))
    return Attr(stat.S_IFREG | mode, len(content), mtime_ns, digest, nlink=nlink)


def link(target: bytes) -> Attr:
    return Attr(stat.S_IFLNK | 0o777, len(target), LONG_AGO_NS, target=target)


def tree_of(entries: Mapping[bytes, Attr], unserved: Iterable[bytes] = ()) -> AttrTree:
    """Return an AttrTree with these entries, whose directories are all served but for some."""
    listings: dict[bytes, dict[bytes, Seen]] = {b"": {}}
    for path, attr in sorted({b"w": directory(), **entries}.items()):
        parent, name = split(path)
        listings[parent][name] = Seen(attr)
        if stat.S_ISDIR(attr.mode):
            listings[path] = {}
    tree = AttrTree(Seen(directory()))
    for path, listing in listings.items():
        if path not in unserved:
            tree.serve(path, listing)
    return tree


def access(path: bytes, first: AccessKind, later: AccessKind = NOTHING) -> PathAccess:
    return PathAccess(path, first, first | later)


def ended(
    accesses: Iterable[PathAccess], changes: Iterable[Change] = (), argv: Iterable[bytes] = (b"tool",)
) -> EndedJob:
    return EndedJob(tuple(argv), b"/w", JobTrace(tuple(accesses)), tuple(changes), TIMING, ROOT)


def made(path: bytes, attr: Attr | None = None) -> Change:
    """Return the change of a file that a job has written."""
    return Change(path, attr or file("made", mtime_ns=TIMING.started_ns))


def found(
    tree: AttrTree, accesses: Iterable[PathAccess], changes: Iterable[Change] = (), argv: Iterable[bytes] = (b"tool",)
) -> DependencySet:
    """Return what a job depends on; no program has an interpreter."""
    return find_dependencies(ended(accesses, changes, argv), TreeFacts(tree, NoInterpreters()))


def uses(
    tree: AttrTree, accesses: Iterable[PathAccess], changes: Iterable[Change] = (), argv: Iterable[bytes] = (b"tool",)
) -> dict[bytes, Use]:
    """Return the uses by path."""
    path_set = found(tree, accesses, changes, argv).path_set
    return {dependency.path: Use(dependency.use) for dependency in path_set.dependencies}


class NoInterpreters(dict[bytes, bytes]):
    """Knows of every program that it has no interpreter."""

    def get(self, sha256: bytes, default: object = None) -> bytes:
        return b""
