"""Compare the entries of a job's upper layer with the view that the job ran in.

An entry in the upper layer need not be a change. A file is copied up as it is if it is opened
for writing, and by `touch -a`, `ln`, or a `chmod` to the mode it has. Every ancestor of a written
path appears too. Therefore each entry is compared with what the job saw (`lower`), and equal ones
are left out.

There are two steps, because contents are hashed in between. `compare` asks `lower`, and raises
what that raises, before anything was moved. `harvest` then makes the changes.

A change tells its base, the version that the job saw, if the new state may derive from it. The file
was then written in place, removed, or made where nothing was. Another program may change the same
path meanwhile, and the master then compares. A file that was made anew over an old one has no base.
If a file has several names, overlayfs does not say which one it copied up (linked_files.py).
The name of a moved file is removed, so its content has the base of that removal.

The order of the changes is the order in which they are published. A deletion stands right before
the entry that takes its place, a directory before its entries, and a hard link after all files.
"""

import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from termite.engine.model import Attr, BaseVersion, Change, Digest
from termite.engine.paths import is_below, is_within
from termite.engine.wire.protocol.messages import MAX_DROPPED

# Everybody writes below these, and nobody expects to find it on the master's machine.
SCRATCH = (b"tmp", b"var/tmp", b"dev", b"proc", b"sys")

# Files that their writers always make anew and rename, although nothing was there: Python's
# compiled modules. Jobs that import the same module all write it at once, and none of these files
# derives from another's.
MADE_ANEW = (b".pyc",)
NOTHING = BaseVersion(-1)
SECOND_NS = 10**9

Lower = Callable[[bytes], Attr | None]
LinkKey = int | bytes  # names a file of the master in one state, through whichever of its names it is found


@dataclass(slots=True)
class CopyUps:
    """The signs that overlayfs has copied up a file with several names for a job.

    `most` is the largest possible number of copies. `is_certain`: there was one for certain.
    """

    most: int = 0
    is_certain: bool = False


@dataclass(frozen=True, slots=True)
class UpperEntry:
    """One name in the upper layer, as it is on disk.

    `copied_up` is True for a file of the lower layers that was opened for writing. For one with
    several names, only `compare` can tell. `retimed` is True for a directory whose time a program
    has set, other than by a new or a removed entry. If the job has set extended attributes or an
    access control list, the entry `has_attributes`.
    """

    path: bytes
    mode: int
    size: int
    mtime_ns: int
    inode: int
    nlink: int = 1
    whiteout: bool = False
    opaque: bool = False
    copied_up: bool = False
    target: bytes = b""
    retimed: bool = False
    has_attributes: bool = False


@dataclass(frozen=True, slots=True)
class Homes:
    """The directories from which results come home.

    From the writable root everything does. From the `temporary` directories, which other programs
    use as well, everything does but sockets and the times of directories.
    """

    writable_root: bytes
    temporary: tuple[bytes, ...] = ()

    def is_temporary(self, path: bytes) -> bool:
        """Return whether a path is below a temporary directory."""
        return any(is_below(path, top) for top in self.temporary)


@dataclass(frozen=True, slots=True)
class Pair:
    """An entry that may come home, with what the job saw there before it wrote.

    `was` is None if nothing was there.
    """

    entry: UpperEntry
    was: Attr | None


@dataclass(frozen=True, slots=True)
class Compared:
    """The result of `compare`.

    `dropped` has paths that stay on the worker: those outside of all homes, and sockets. If
    there are too many, directories stand for what is below them.
    """

    pairs: tuple[Pair, ...]
    dropped: tuple[bytes, ...]


def is_worth_reading(directory: bytes, homes: Homes) -> bool:
    """Return whether entries below this directory matter to `compare`."""
    if is_within(directory, homes.writable_root) or is_within(homes.writable_root, directory):
        return True
    if any(is_within(directory, top) for top in homes.temporary):
        return True
    return not any(is_within(directory, scratch) for scratch in SCRATCH)


def link_key(path: bytes, attr: Attr) -> LinkKey | None:
    """Return the key of a regular file with several names, or None for everything else.

    While the state of a file is uncertain, it has another key for each of its names.
    """
    return (attr.link_id or path) if attr.nlink > 1 and stat.S_ISREG(attr.mode) else None


def compare(
    entries: Iterable[UpperEntry], lower: Lower, homes: Homes, copied: Collection[LinkKey] = frozenset()
) -> Compared:
    """Pair each entry with what the job saw at its path.

    A directory stands before its content in `entries`, and all its content right after it.
    `copied` are the files with several names that may have been copied up. Raise what `lower`
    raises.
    """
    pairs: list[Pair] = []
    dropped: list[bytes] = []
    fresh = None  # the last directory that hides everything that was below its path
    made = None  # the last lost name, if it is a new directory and nothing below it was lost yet
    for entry in entries:
        in_fresh = fresh is not None and is_below(entry.path, fresh)
        was = None if in_fresh else lower(entry.path)
        if was is not None and was.nlink > 1 and stat.S_ISREG(entry.mode):
            # Overlayfs does not mark its copies of such files. A mark is that of another file that
            # was moved here.
            entry = replace(entry, copied_up=link_key(entry.path, was) in copied)
        pair = Pair(entry, was)
        if stat.S_ISDIR(entry.mode) and not in_fresh and not _is_merged(pair):
            fresh = entry.path
        is_ours = is_below(entry.path, homes.writable_root)
        if is_ours or (homes.is_temporary(entry.path) and _is_left(pair)):
            pairs.append(pair)
        if _cannot_travel(pair) if is_ours else _is_lost(pair, is_root=entry.path == homes.writable_root):
            if made is not None and is_below(entry.path, made):
                dropped.pop()  # what was put into a new directory says more than its name
            dropped.append(entry.path)
            made = entry.path if stat.S_ISDIR(entry.mode) and pair.was is None else None
    return Compared(tuple(pairs), coarsened(dropped))


def coarsened(paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return at most MAX_DROPPED paths that name all of `paths`.

    If there are more, the directories with the most names stand for what is in them, so that none
    of the names is left out.
    """
    found = tuple(paths)
    while len(found) > MAX_DROPPED:
        directories = [path.rpartition(b"/")[0] for path in found]
        sizes = Counter(directories)
        widest = max(sizes.values())
        pairs = zip(found, directories, strict=True)
        shorter = (directory if 2 * sizes[directory] >= widest else path for path, directory in pairs)
        found = tuple(dict.fromkeys(shorter))
    return found


def attributed(compared: Compared) -> tuple[bytes, ...]:
    """Return the paths below the writable root whose attributes cannot be brought back."""
    return tuple(pair.entry.path for pair in compared.pairs if pair.entry.has_attributes)


def deprived(compared: Compared) -> tuple[bytes, ...]:
    """Return the old files that have lost a set-user-ID or set-group-ID bit.

    The kernel takes both off when a job writes to the file. For root's own programs it does not.
    """
    return tuple(
        pair.entry.path
        for pair in compared.pairs
        if pair.entry.copied_up
        and pair.was is not None
        and stat.S_ISREG(pair.was.mode)
        and pair.was.mode & ~pair.entry.mode & (stat.S_ISUID | stat.S_ISGID)
    )


def files(compared: Compared) -> tuple[UpperEntry, ...]:
    """Return the regular files whose content has to be known, one name for each inode."""
    return tuple({pair.entry.inode: pair.entry for pair in compared.pairs if stat.S_ISREG(pair.entry.mode)}.values())


def harvest(compared: Compared, digests: Mapping[int, Digest]) -> tuple[Change, ...]:
    """Return the changes in the order in which they are published.

    `digests` has the content of each file that `files` returned, by inode.
    """
    leaders = _leaders(compared.pairs, digests)
    changes: list[Change] = []
    links: list[Change] = []
    for pair in compared.pairs:
        leader = leaders.get(pair.entry.inode, pair) if stat.S_ISREG(pair.entry.mode) else pair
        if ends_what_was(pair):
            changes.append(Change(pair.entry.path, None, base=_removed_base(pair)))
        if leader is not pair:
            links.extend(_link(pair, leader, digests))
        elif not pair.entry.whiteout and not _cannot_travel(pair):
            changes.extend(_change(pair, digests))
    return (*changes, *links)


def ends_what_was(pair: Pair) -> bool:
    """Return whether the old entry has to be deleted first.

    A rename cannot replace a directory, and a directory cannot replace a file.
    """
    if pair.was is None:
        return False
    if pair.entry.whiteout or _cannot_travel(pair):
        return True
    is_directory, was_directory = stat.S_ISDIR(pair.entry.mode), stat.S_ISDIR(pair.was.mode)
    return is_directory != was_directory or (is_directory and pair.entry.opaque)


def novelty(pair: Pair, digests: Mapping[int, Digest]) -> int:
    """Return how much of a regular file is new.

    0 is nothing, 1 is its mode or times, and 2 is its content or which file it is.
    """
    entry, was = pair.entry, pair.was
    if was is None or not stat.S_ISREG(was.mode) or not _has_content(was, digests[entry.inode]):
        return 2
    if was.nlink > 1 and not entry.copied_up:
        return 2  # it was made anew, and so has lost the other names of the old file
    if (entry.mode, entry.mtime_ns) == (was.mode, was.mtime_ns):
        return 0
    # A new mode of a file that was made again is not the command's, but the umask's.
    return 1 if entry.copied_up or entry.mode == was.mode else 2


def _is_merged(pair: Pair) -> bool:
    """Return whether this directory shows the entries of the lower one too."""
    return pair.was is not None and stat.S_ISDIR(pair.was.mode) and not pair.entry.opaque


def _cannot_travel(pair: Pair) -> bool:
    mode = pair.entry.mode
    travels = stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode) or stat.S_ISFIFO(mode)
    return not travels and not pair.entry.whiteout


def _is_left(pair: Pair) -> bool:
    """Return whether an entry of a temporary directory is something that the job has left there.

    Every job changes the times of such directories. A socket is of no use without its process.
    """
    entry, was = pair.entry, pair.was
    if entry.whiteout or _cannot_travel(pair):
        return was is not None
    return not stat.S_ISDIR(entry.mode) or not _is_merged(pair) or was is None or entry.mode != was.mode


def _is_lost(pair: Pair, *, is_root: bool) -> bool:
    """Return whether an entry outside the writable root is a write that a local command makes.

    Contents are not compared. A file that was opened for writing counts, because another program
    may see that. A directory also appears if something in it was changed, or was made and removed
    again; both set its time to the present. `is_root`: it is the writable root, whose time changes
    with every build. The times of SCRATCH change with every program.
    """
    entry, was = pair.entry, pair.was
    if any(is_below(entry.path, scratch) for scratch in SCRATCH):
        return False
    if entry.whiteout or was is None:
        return was is not None or not entry.whiteout
    if stat.S_ISDIR(entry.mode):
        if entry.path in SCRATCH:  # overlayfs sets its time if the tree lies below it
            return entry.mode != was.mode
        # Some file systems of workers keep whole seconds only.
        is_retimed = entry.retimed and entry.mtime_ns // SECOND_NS != was.mtime_ns // SECOND_NS
        return not _is_merged(pair) or entry.mode != was.mode or (is_retimed and not is_root)
    return entry.copied_up or (entry.mode, entry.mtime_ns, entry.target) != (was.mode, was.mtime_ns, was.target)


def _leaders(pairs: Iterable[Pair], digests: Mapping[int, Digest]) -> dict[int, Pair]:
    """Return, for each inode with several names, the name that the others become links of.

    A name that needs no new content is preferred.
    """
    leaders: dict[int, Pair] = {}
    for pair in pairs:
        if stat.S_ISREG(pair.entry.mode) and pair.entry.nlink > 1:
            known = leaders.setdefault(pair.entry.inode, pair)
            if novelty(pair, digests) < novelty(known, digests):
                leaders[pair.entry.inode] = pair
    return leaders


def _has_content(was: Attr, digest: Digest) -> bool:
    return was.digest == digest or was.size == digest.size == 0


def _link(pair: Pair, leader: Pair, digests: Mapping[int, Digest]) -> Iterable[Change]:
    was_linked = pair.was and leader.was and pair.was.link_id == leader.was.link_id != 0
    if was_linked and novelty(pair, digests) == novelty(leader, digests) == 0:
        return
    yield Change(pair.entry.path, _attr(pair.entry, digests), link_to=leader.entry.path, base=_written_base(pair))


def _change(pair: Pair, digests: Mapping[int, Digest]) -> Iterable[Change]:
    entry, was = pair.entry, pair.was
    attr = _attr(entry, digests)
    is_new = True
    if was is not None and stat.S_IFMT(was.mode) == stat.S_IFMT(entry.mode) and not entry.opaque:
        is_new = novelty(pair, digests) == 2 if stat.S_ISREG(entry.mode) else entry.target != was.target
        if not is_new and (entry.mode, entry.mtime_ns) == (was.mode, was.mtime_ns):
            return
        is_new = is_new or stat.S_ISLNK(entry.mode)  # the mtime of a symlink changes only if it is made again
    yield Change(entry.path, attr, content=is_new, base=_written_base(pair) if is_new else None)


def _removed_base(pair: Pair) -> BaseVersion | None:
    """Return the version of a removed file. A directory has none: what others put into it stays."""
    return _base(pair.was) if pair.was is not None and stat.S_ISREG(pair.was.mode) else None


def _written_base(pair: Pair) -> BaseVersion | None:
    """Return the version from which the content of a regular file may derive.

    A symlink that took no other's place derives from the absence: the command may be `ln -s` for a
    lock.
    """
    entry, was = pair.entry, pair.was
    if stat.S_ISLNK(entry.mode) and was is None:
        return NOTHING
    if not stat.S_ISREG(entry.mode):
        return None
    if was is None:
        return None if entry.path.endswith(MADE_ANEW) else NOTHING
    if not stat.S_ISREG(was.mode):
        return None
    return _base(was) if entry.copied_up else None


def _base(was: Attr) -> BaseVersion:
    return BaseVersion(was.size, was.mtime_ns, was.digest)


def _attr(entry: UpperEntry, digests: Mapping[int, Digest]) -> Attr:
    if stat.S_ISREG(entry.mode):
        digest = digests[entry.inode]
        return Attr(entry.mode, digest.size, entry.mtime_ns, digest, nlink=entry.nlink)
    return Attr(entry.mode, len(entry.target), entry.mtime_ns, target=entry.target)
