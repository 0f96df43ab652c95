"""From a job's upper layer to its changes, with every new content in the store."""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.model import Change, Digest
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.messages import INLINE_BYTES, INLINE_TOTAL_BYTES
from termite.fuse.harvest.upper import Upper, not_at_rest, open_upper
from termite.fuse.view.comparison import Lower, UpperEntry, compare, files, harvest

# Up to here it is done at once: a thread costs 0.1 ms, as much as reading a few small files.
ENTRIES_AT_ONCE = 64
FILES_AT_ONCE = 16
BYTES_AT_ONCE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Harvested:
    """What a job changed. `inline` has small contents by their SHA-256; every content is in the store."""

    changes: tuple[Change, ...]
    inline: dict[bytes, bytes]
    dropped: tuple[bytes, ...]


async def collect(upper: Path, writable_root: bytes, lower: Lower, cas: Cas) -> Harvested:
    """Read, compare, store. What `lower` raises passes through, and then nothing has happened: call again."""
    layer = open_upper(upper)
    if layer is None:
        return Harvested((), {}, ())
    with contextlib.closing(layer):
        return await _collect(layer, writable_root, lower, cas)


async def _collect(layer: Upper, writable_root: bytes, lower: Lower, cas: Cas) -> Harvested:
    with contextlib.closing(layer.entries(writable_root)) as walk:
        entries = list(itertools.islice(walk, ENTRIES_AT_ONCE))
        if len(entries) == ENTRIES_AT_ONCE:
            entries.extend(await trio.to_thread.run_sync(list, walk))
    compared = compare(entries, lower, writable_root)
    written = files(compared)
    store = functools.partial(_store, layer, written, cas)
    if len(written) > FILES_AT_ONCE or sum(entry.size for entry in written) > BYTES_AT_ONCE:
        digests, small = await trio.to_thread.run_sync(store)
    else:
        digests, small = store()
    changes = harvest(compared, digests)
    new = {change.attr.digest for change in changes if change.attr and change.content and change.link_to is None}
    inline = {digest.sha256: content for digest, content in small.items() if digest in new}
    return Harvested(changes, inline, compared.dropped)


def _store(layer: Upper, written: Iterable[UpperEntry], cas: Cas) -> tuple[dict[int, Digest], dict[Digest, bytes]]:
    """Copy contents into the store: the digest of each inode, and the small contents as long as they fit a message."""
    digests: dict[int, Digest] = {}
    small: dict[Digest, bytes] = {}
    room = INLINE_TOTAL_BYTES
    for entry in written:
        fd = layer.open_file(entry)
        try:
            if entry.size > INLINE_BYTES:
                digests[entry.inode] = cas.copy_in(fd, entry.size)
                continue
            content = os.read(fd, entry.size + 1)
        finally:
            os.close(fd)
        if len(content) != entry.size:
            raise not_at_rest(entry.path)
        digest = digests[entry.inode] = cas.put(content)
        if digest not in small and len(content) <= room:
            small[digest] = content
            room -= len(content)
    return digests, small
