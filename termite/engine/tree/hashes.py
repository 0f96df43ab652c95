"""Digests of files that were hashed before, in memory and over restarts.

A digest belongs to a stamp (device, inode, size, mtime, ctime), not to a path: a name can be given to another file, and
ctime cannot be set. A file that changed in the very tick in which it was hashed may change again without a new stamp
(git calls it racy): its digest is only remembered where inotify would tell of that, and only in memory at first.

On disk it is SQLite in WAL mode: several masters share it, a crash leaves whole records, and a look-up reads one
record, where an append-only file would have to be read whole by every master that starts.
"""

import logging
import os
import sqlite3
import struct
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from termite.engine.model import Digest
from termite.engine.tree.logic.attrs import Stamp
from termite.engine.tree.logic.times import TICK_NS

BLOCK_BYTES = 1024 * 1024
FLUSH_AFTER = 1000  # new digests: some 10 ms of SQLite
KNOWN_LIMIT = 10_000  # in memory, some 500 bytes each; what is on disk is read again when it is asked for: 20 us
KEEP_DAYS = 60  # since a record was last of use
DAY_NS = 24 * 3600 * 10**9

log = logging.getLogger(__name__)


def stamp_of(st: os.stat_result) -> Stamp:
    return Stamp(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def is_racy(st: os.stat_result, now_ns: int) -> bool:
    """Could it be written again without getting another stamp?"""
    return now_ns - st.st_ctime_ns < 2 * TICK_NS


class Hashes:
    """What is known by stamp. A store on disk that fails is reported once and then done without."""

    def __init__(self, store: Path | None) -> None:
        self.hashed = 0
        self.hashed_bytes = 0
        self._known: dict[tuple[int, int], tuple[Stamp, Digest]] = {}
        self._unsaved: dict[tuple[int, int], int] = {}
        self._today = time.time_ns() // DAY_NS
        self._store = self._open(store) if store else None

    def find(self, stamp: Stamp) -> Digest | None:
        key = stamp[:2]
        found = self._known.get(key)
        if found is None and self._store is not None:
            found = self._load(stamp)
        return found[1] if found is not None and found[0] == stamp else None

    def hash_file(self, fd: int) -> Digest:
        """Reads the whole file without moving its offset. For any thread."""
        state = sha256()
        size = 0
        while block := os.pread(fd, BLOCK_BYTES, size):
            state.update(block)
            size += len(block)
        self.hashed += 1
        self.hashed_bytes += size
        return Digest(state.digest(), size)

    def remember(self, stamp: Stamp, digest: Digest) -> None:
        key = stamp[:2]
        if self._known.get(key) != (stamp, digest):
            self._known[key] = (stamp, digest)
            self._unsaved[key] = time.time_ns()

    def forget(self, stamp: Stamp) -> None:
        """The file was written again, and its stamp does not show it."""
        self._unsaved.pop(stamp[:2], None)
        self._known.pop(stamp[:2], None)
        if self._store is not None:
            self._write("DELETE FROM hashes WHERE file = ?", [(_FILE.pack(*stamp[:2]),)])

    @property
    def is_flush_due(self) -> bool:
        return len(self._unsaved) >= FLUSH_AFTER

    def flush(self) -> None:
        """Save what inotify has not spoken against since. Call it after a drain."""
        ripe_ns = time.time_ns() - 2 * TICK_NS
        ripe = [key for key, since_ns in self._unsaved.items() if since_ns < ripe_ns]
        rows = []
        for key in ripe:
            del self._unsaved[key]
            stamp, digest = self._known[key]
            rows.append((_FILE.pack(*key), _RECORD.pack(*stamp[2:], digest.sha256), self._today))
        if rows and self._store is not None:
            self._write("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", rows)
        if len(self._known) > KNOWN_LIMIT and self._store is not None:
            self._known = {key: self._known[key] for key in self._unsaved}

    def close(self) -> None:
        self.flush()
        if self._store is not None:
            self._store.close()

    def _load(self, stamp: Stamp) -> tuple[Stamp, Digest] | None:
        assert self._store is not None
        try:
            row = self._store.execute(
                "SELECT record, day FROM hashes WHERE file = ?", (_FILE.pack(*stamp[:2]),)
            ).fetchone()
        except sqlite3.Error as e:
            self._give_up(e)
            return None
        if row is None:
            return None
        size, mtime_ns, ctime_ns, content = _RECORD.unpack(row[0])
        found = Stamp(*stamp[:2], size, mtime_ns, ctime_ns), Digest(content, size)
        self._known[stamp[:2]] = found
        if row[1] != self._today:  # so that it is not thrown away as unused
            self._unsaved[stamp[:2]] = 0
        return found

    def _open(self, path: Path) -> sqlite3.Connection | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            store = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            store.execute("PRAGMA journal_mode = WAL")
            store.execute("PRAGMA synchronous = NORMAL")
            store.execute(
                "CREATE TABLE IF NOT EXISTS hashes (file BLOB PRIMARY KEY, record BLOB, day INT) WITHOUT ROWID"
            )
            store.execute("DELETE FROM hashes WHERE day < ?", (self._today - KEEP_DAYS,))
        except (OSError, sqlite3.Error) as e:
            log.warning("hash-cache-unusable path=%s reason=%s", path, e)
            return None
        return store

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


# Not integer columns: SQLite's integers are signed, and some file systems use the upper bit of an inode number.
_FILE = struct.Struct("<QQ")
_RECORD = struct.Struct("<Qqq32s")
