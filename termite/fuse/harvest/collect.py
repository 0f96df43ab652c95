"""Turn a job's upper layer into its changes, and put every new content into the store.

A small upper layer is read and stored in this thread. A large one takes a thread, so that other
jobs go on.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Change, Digest
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.messages import INLINE_BYTES, INLINE_TOTAL_BYTES
from termite.fuse import mirror_calls
from termite.fuse.harvest.upper_layer import UpperLayer, not_at_rest, open_upper
from termite.fuse.view.comparison import (
    CopyUps,
    Homes,
    LinkKey,
    Lower,
    UpperEntry,
    attributed,
    compare,
    deprived,
    files,
    harvest,
)
from termite.fuse.view.link_comparers import Comparers
from termite.fuse.view.linked_files import find_changed_in_place, find_linked

# Up to these sizes no thread is used: a thread costs 0.1 ms, as much as reading a few small files.
MAX_ENTRIES_WITHOUT_THREAD = 64
MAX_FILES_WITHOUT_THREAD = 16
MAX_CONTENTS_BYTES_WITHOUT_THREAD = 256 * 1024


SHARED_MEMORY = b"dev/shm"


@dataclass(frozen=True, slots=True)
class Harvested:
    """The changes of a job. Every new content is in the store.

    `inline` has small contents by their SHA-256, to be sent along. `dropped` is that of `Compared`.
    """

    changes: tuple[Change, ...]
    inline: dict[bytes, bytes]
    dropped: tuple[bytes, ...]


async def collect(
    upper: Path,
    homes: Homes,
    lower: Lower,
    cas: Cas,
    copied: Mapping[LinkKey, CopyUps] | None = None,
    *,
    comparers: Comparers = Comparers.NONE,
) -> Harvested:
    """Read the upper layer, compare it with the view, and store the new contents.

    `lower` returns the attributes that the job saw at a path, or None. Its exceptions pass through,
    and nothing was stored then, so this can be called again. Raises NotAtRest if somebody still
    changes the files, and Retryable if the disk is full or a path is too long. The master then runs
    the job once more, or itself if the reason `is_for_here`; a file with several names that was
    changed in place is one. `comparers` are those of a job that has linked a file. If an old file
    has got another name, that is such a reason, too. `copied` has what may have been copied up.
    """
    layer = open_upper(upper)
    if layer is None:
        return Harvested((), {}, ())
    with contextlib.closing(layer):
        return await _collect(layer, homes, lower, cas, copied or {}, comparers)


def find_left_in_memory(upper: Path) -> list[bytes]:
    """Return the paths of what a job has left in its /dev/shm, which the next one does not see.

    The directory stands beside the job's `upper` layer. Raise OSError if it cannot be read. This is
    done for each job, and takes 15 us.
    """
    with mirror_calls.scandir(f"{os.path.dirname(upper)}/shm") as found:
        return [b"%b/%b" % (SHARED_MEMORY, os.fsencode(entry.name)) for entry in found]


async def _collect(
    layer: UpperLayer,
    homes: Homes,
    lower: Lower,
    cas: Cas,
    copied: Mapping[LinkKey, CopyUps],
    comparers: Comparers,
) -> Harvested:
    with contextlib.closing(layer.entries(homes)) as walk:
        entries = list(itertools.islice(walk, MAX_ENTRIES_WITHOUT_THREAD))
        if len(entries) == MAX_ENTRIES_WITHOUT_THREAD:
            entries.extend(await trio.to_thread.run_sync(list, walk))
    compared = compare(entries, lower, homes, copied)
    if names := attributed(compared):
        raise Retryable(Reason.ATTRIBUTES_SET, os.fsdecode(names[0]))
    if names := deprived(compared):
        raise Retryable(Reason.BITS_LOST, os.fsdecode(names[0]))
    written = files(compared)
    store = functools.partial(_store, layer, written, cas)
    contents_bytes = sum(entry.size for entry in written)
    if len(written) > MAX_FILES_WITHOUT_THREAD or contents_bytes > MAX_CONTENTS_BYTES_WITHOUT_THREAD:
        digests, small = await trio.to_thread.run_sync(store)
    else:
        digests, small = store()
    if path := find_changed_in_place(compared, digests, copied):
        raise Retryable(Reason.LINKED_FILE, repr("/" + os.fsdecode(path)))
    if path := find_linked(compared, digests, comparers):
        raise Retryable(Reason.LINK_READ, repr("/" + os.fsdecode(path)))
    changes = harvest(compared, digests)
    new = {change.attr.digest for change in changes if change.attr and change.content and change.link_to is None}
    inline = {digest.sha256: content for digest, content in small.items() if digest in new}
    return Harvested(changes, inline, compared.dropped)


def _store(layer: UpperLayer, written: Iterable[UpperEntry], cas: Cas) -> tuple[dict[int, Digest], dict[Digest, bytes]]:
    """Copy contents into the store.

    Return the digest of each inode, and the small contents as long as they fit a message.
    """
    digests: dict[int, Digest] = {}
    small: dict[Digest, bytes] = {}
    room = INLINE_TOTAL_BYTES
    for entry in written:
        fd = layer.open_file(entry)
        try:
            if entry.size > INLINE_BYTES:
                digests[entry.inode] = cas.copy_in(fd, entry.size)
                continue
            content = mirror_calls.read(fd, entry.size + 1)
        finally:
            os.close(fd)
        if len(content) != entry.size:
            raise not_at_rest(entry.path)
        digest = digests[entry.inode] = cas.put(content)
        if digest not in small and len(content) <= room:
            small[digest] = content
            room -= len(content)
    return digests, small
