"""Find the files with several names that a job has changed in place.

In a job's overlay, a file with several names breaks up when it is changed through one of them. This
name gets a copy, and the others keep the old file. On the master's disk, all names show the change.
The result of such a job is not that of a local command, and must not be used.

A file that was made anew under the same name looks like a copy, because overlayfs marks copies of
files with one name only. Therefore the mirror notes which files overlayfs has copied. For each of
them, and for no file that is only replaced or removed, it asks for the extended attributes first.
A program that lists these attributes itself looks the same, which costs a local run at worst. Newer
kernels also ask for the flags of the file, and no program of a job does that by chance.
"""

import stat
from collections.abc import Iterable, Mapping

from termite.engine.model import Digest
from termite.fuse.view.comparison import Compared, CopyUps, LinkKey, Pair, UpperEntry, ends_what_was, link_key, novelty
from termite.fuse.view.link_comparers import Comparers


def find_linked(compared: Compared, digests: Mapping[int, Digest], comparers: Comparers) -> bytes:
    """Return the path of a file that was there before the job, and got another name in it, or b"".

    Overlayfs copies the file. The new name has the number of the copy, but the old one still shows
    the old number, so that a program like tar takes them for two files. The new name may be gone
    again, and an unchanged copy is the only trace of it. If the command names a program that
    compares, a copy with another mode or time counts, too, and a directory that is gone. Staging
    directories are made anew all the time, and do not count.
    """
    if comparers is Comparers.NONE:
        return b""
    is_named = comparers is Comparers.NAMED
    for pair in compared.pairs:
        entry, was = pair.entry, pair.was
        if _ends_directory(pair) and entry.whiteout and is_named:
            return entry.path
        if not entry.copied_up or was is None or not stat.S_ISREG(entry.mode) or not stat.S_ISREG(was.mode):
            continue
        if entry.nlink > 1 or novelty(pair, digests) < (2 if is_named else 1):
            return entry.path
    return b""


def find_changed_in_place(
    compared: Compared, digests: Mapping[int, Digest], copied: Mapping[LinkKey, CopyUps]
) -> bytes:
    """Return a path through which the job may have changed a file with several names, or b"".

    `copied` has the files with several names that may have been copied up. A copy that is equal to
    the file is no change. If there may be more copies than were found, the others were changed,
    moved or removed; then each other name of the file counts as changed.
    """
    if not copied:
        return b""
    names = _keys_by_inode(compared)
    found: dict[LinkKey, dict[int, Pair]] = {}  # by inode
    others: list[tuple[LinkKey, Pair]] = []
    for pair in compared.pairs:
        key = _key(pair)
        if key is None or key not in copied:
            continue
        # `ln` has given a copy another name, or it may be a new file with the old time.
        is_copy = copied[key].is_certain or names[pair.entry.inode] != {key}
        if is_copy and pair.entry.copied_up and novelty(pair, digests) == 0:
            found.setdefault(key, {})[pair.entry.inode] = pair
        else:
            others.append((key, pair))
    for key, pair in others:
        if len(found.get(key, ())) < copied[key].most:
            return pair.entry.path
    if copied.keys() - found.keys() - {key for key, _ in others}:  # the directory with the name may be gone
        return next((pair.entry.path for pair in compared.pairs if _ends_directory(pair)), b"")
    new = [pair.entry for pair in compared.pairs if pair.was is None and names[pair.entry.inode] == {None}]
    files = (pair.entry for pairs in found.values() for pair in pairs.values())
    return next((twin for file in files if (twin := _twin_of(file, new, digests))), b"")


def _twin_of(file: UpperEntry, new: Iterable[UpperEntry], digests: Mapping[int, Digest]) -> bytes:
    """Return a new path with the same content and time, or b"".

    It may be the copy, which was moved, and `file` a new file that was copied from it.
    """
    for entry in new:
        is_twin = (entry.mode, entry.mtime_ns) == (file.mode, file.mtime_ns)
        if is_twin and digests[entry.inode] == digests[file.inode]:
            return entry.path
    return b""


def _keys_by_inode(compared: Compared) -> dict[int, set[LinkKey | None]]:
    """Return the keys of what stood at the names of each inode; None is another file or nothing."""
    names: dict[int, set[LinkKey | None]] = {}
    for pair in compared.pairs:
        names.setdefault(pair.entry.inode, set()).add(_key(pair))
    return names


def _key(pair: Pair) -> LinkKey | None:
    return link_key(pair.entry.path, pair.was) if pair.was is not None else None


def _ends_directory(pair: Pair) -> bool:
    return pair.was is not None and stat.S_ISDIR(pair.was.mode) and ends_what_was(pair)
