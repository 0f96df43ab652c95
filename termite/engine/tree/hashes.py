"""Keep the digests of files that were hashed before, in memory and over restarts.

A digest belongs to a stamp (device, inode, size, mtime, ctime), not to a path. A name can be given
to another file, but no program can set a ctime. A file that changed in the very tick in which it
was hashed may change again without a new stamp (git calls it racy). Its digest may be remembered
only if inotify reports the second write, and is kept in memory only until the tick is over.

The store on disk is SQLite in WAL mode. Several masters share it, a crash leaves whole records, and
a query reads one record. An append-only file would have to be read whole by every master.
"""

import logging
import os
import sqlite3
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from termite.engine.model import Digest
from termite.engine.sparse_content import ContentHash, pieces
from termite.engine.tree.logic.attrs import Stamp
from termite.engine.tree.logic.times import TICK_NS

BLOCK_BYTES = 1024 * 1024
# When so many digests are new, they are saved. SQLite takes some 10 ms for that.
FLUSH_AFTER = 1000
# Digests in memory, of some 500 bytes each. Others are read from the disk again when they are
# needed, in 20 us. Builds with ever new names would fill any table.
KNOWN_LIMIT = 2000
# Digests in memory if there is no store. Files beyond them are hashed again when they are needed.
UNSTORED_LIMIT = 50_000
# A record is removed when it has not been used for so long, or earlier if the store is larger than
# this. A record takes some 80 bytes, so these are three million files.
KEEP_DAYS = 60
MAX_STORE_BYTES = 256 * 1024 * 1024
# The times that a record can have: from 1677 to 2262. Anybody can give a file another one; the
# digest of such a file is known in memory only.
EARLIEST_NS, LATEST_NS = -(2**63), 2**63 - 1
DAY_NS = 24 * 3600 * 10**9

log = logging.getLogger(__name__)


def stamp_of(st: os.stat_result) -> Stamp:
    """Return the stamp of a file in the state that the stat_result shows."""
    return Stamp(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def is_racy(st: os.stat_result, now_ns: int) -> bool:
    """Return whether a write after `now_ns` could leave the file with the same stamp."""
    return now_ns - st.st_ctime_ns < 2 * TICK_NS


class Hashes:
    """The known digests by stamp.

    Methods do not raise if the store on disk fails: that is logged once, and then only memory is
    used. They block as far as SQLite does.
    """

    def __init__(self, store: Path | None) -> None:
        """Open the store, a path of our own disk. If it is None, keep digests in memory only."""
        self.hashed = 0
        self.hashed_bytes = 0
        self._known: dict[tuple[int, int], tuple[Stamp, Digest]] = {}
        self._unsaved: dict[tuple[int, int], int] = {}
        self._today = time.time_ns() // DAY_NS
        self._store = self._open(store) if store else None

    def find(self, stamp: Stamp) -> Digest | None:
        """Return the digest of the file in this state, or None if it is not known."""
        key = stamp[:2]
        found = self._known.get(key)
        if found is None and self._store is not None:
            found = self._load(stamp)
        return found[1] if found is not None and found[0] == stamp else None

    def hash_file(self, fd: int) -> Digest:
        """Read a whole file and return its digest. Any thread may call this.

        The offset of the fd does not move. Raise OSError if the file cannot be read.
        """
        state = ContentHash()
        data_bytes = 0
        for piece in pieces(fd, sys.maxsize, BLOCK_BYTES):
            if isinstance(piece, int):
                state.skip(piece)
            else:
                state.update(piece)
                data_bytes += len(piece)
        self.hashed += 1
        self.hashed_bytes += data_bytes
        return state.digest()

    def remember(self, stamp: Stamp, digest: Digest) -> None:
        """Remember a digest in memory, instead of that of an older state; `flush` saves it."""
        key = stamp[:2]
        if self._known.get(key) != (stamp, digest):
            self._known[key] = (stamp, digest)
            self._unsaved[key] = time.time_ns()

    def keep(self, stamp: Stamp, digest: Digest | None, found: Digest | None) -> None:
        """Keep a digest for a stamp, or forget it. `found` is what is kept for the stamp now."""
        if digest is not None:
            self.remember(stamp, digest)
        elif found is not None:  # the file was written again within the tick, and kept its stamp
            self.forget(stamp)

    def forget(self, stamp: Stamp) -> None:
        """Forget, also on disk, the digest of a file that was written again without a new stamp."""
        self._unsaved.pop(stamp[:2], None)
        self._known.pop(stamp[:2], None)
        if self._store is not None:
            self._write("DELETE FROM digests WHERE file = ?", [(_FILE.pack(*stamp[:2]),)])

    @property
    def is_flush_due(self) -> bool:
        """Return whether enough digests are unsaved that `flush` should be called."""
        return len(self._unsaved) >= FLUSH_AFTER

    def ripen(self) -> None:
        """Wait until `flush` may save every digest. This blocks for at most two ticks."""
        if self._store is not None and self._unsaved:
            left_ns = max(self._unsaved.values()) + 2 * TICK_NS - time.time_ns()
            time.sleep(min(max(left_ns, 0), 2 * TICK_NS) / 1e9)

    def flush(self) -> None:
        """Save the digests that are older than a tick.

        Call it after a drain: by then `forget` was called for those that inotify has refuted.
        """
        ripe_ns = time.time_ns() - 2 * TICK_NS
        ripe = [key for key, since_ns in self._unsaved.items() if since_ns <= ripe_ns]
        rows = []
        for key in ripe:
            del self._unsaved[key]
            stamp, digest = self._known[key]
            if not all(EARLIEST_NS <= at_ns <= LATEST_NS for at_ns in (stamp.mtime_ns, stamp.ctime_ns)):
                continue
            rows.append((_FILE.pack(*key), _RECORD.pack(*stamp[2:], digest.sha256), self._today))
        if rows and self._store is not None:
            self._write("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
        if self._store is None:
            for key in list(self._known)[: max(len(self._known) - UNSTORED_LIMIT, 0)]:
                del self._known[key]
                self._unsaved.pop(key, None)
        elif len(self._known) > KNOWN_LIMIT:
            self._known = {key: self._known[key] for key in self._unsaved}

    def __len__(self) -> int:
        """Return the number of digests in memory."""
        return len(self._known)

    def close(self) -> None:
        """Save what can be saved, and close the store.

        Call it after a drain that follows `ripen`.
        """
        self.flush()
        if self._store is not None:
            self._store.close()

    def _load(self, stamp: Stamp) -> tuple[Stamp, Digest] | None:
        assert self._store is not None
        try:
            row = self._store.execute(
                "SELECT record, day FROM digests WHERE file = ?", (_FILE.pack(*stamp[:2]),)
            ).fetchone()
        except sqlite3.Error as e:
            self._give_up(e)
            return None
        if row is None:
            return None
        size, mtime_ns, ctime_ns, content = _RECORD.unpack(row[0])
        found = Stamp(*stamp[:2], size, mtime_ns, ctime_ns), Digest(content, size)
        self._known[stamp[:2]] = found
        if row[1] != self._today:  # so that it is saved with the new day, and not removed as unused
            self._unsaved[stamp[:2]] = 0
        return found

    def _open(self, path: Path) -> sqlite3.Connection | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            store = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            store.execute("PRAGMA journal_mode = WAL")
            store.execute("PRAGMA synchronous = NORMAL")
            store.execute(
                "CREATE TABLE IF NOT EXISTS digests (file BLOB PRIMARY KEY, record BLOB, day INT) WITHOUT ROWID"
            )
            self._remove_old(store)
        except (OSError, sqlite3.Error) as e:
            log.warning("hash-cache-unusable path=%s reason=%s", path, e)
            return None
        return store

    def _remove_old(self, store: sqlite3.Connection) -> None:
        """Remove records that were not used for long; fewer days count as long if it is large."""
        days = KEEP_DAYS
        store.execute("DELETE FROM digests WHERE day < ?", (self._today - days,))
        while days and _used_bytes(store) > MAX_STORE_BYTES:
            days //= 2
            store.execute("DELETE FROM digests WHERE day < ?", (self._today - days,))

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        assert self._store is not None
        try:
            self._store.execute("BEGIN IMMEDIATE")
            self._store.executemany(statement, rows)
            self._store.execute("COMMIT")
        except sqlite3.Error as e:
            self._give_up(e)

    def _give_up(self, error: sqlite3.Error) -> None:
        log.warning("hash-cache-unusable reason=%s", error)
        assert self._store is not None
        self._store.close()
        self._store = None


def _used_bytes(store: sqlite3.Connection) -> int:
    """Return the size of the records. SQLite uses the pages of removed ones again."""
    pages, free, page_bytes = (
        int(store.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * page_bytes


# The columns are blobs, not integers: SQLite's are signed, and some file systems use the upper bit
# of inode numbers.
_FILE = struct.Struct("<QQ")
_RECORD = struct.Struct("<Qqq32s")
