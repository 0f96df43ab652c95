"""Keep the path sets and results of commands in an index that all masters of a user share.

The file is `index-FORMAT-GENERATION.db`, a database of SQLite. If the newest generation is damaged,
the next one is begun, and the damaged file stays for a week. It is never renamed: a process that
still has it open would remove the log of its successor, which has the same name.

A row carries a checksum (`stored_rows`), so a row that was damaged silently is missing. Writes are
transactions: a process that is killed leaves all of one or nothing.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from termite.engine.recall import result_calls
from termite.engine.recall.logic.uses import PathSet
from termite.engine.recall.look_up.evidence import NEW_SHAPE, Shape, merged_shape
from termite.engine.recall.look_up.fingerprints import FORMAT
from termite.engine.recall.look_up.stored_rows import (
    NO_ROWS,
    LastRun,
    PathSetRow,
    ResultRow,
    StoredRows,
    pack_value,
    unpack_value,
)

WAIT_S = 0.2  # for another master's transaction, which takes about a millisecond
MOST_ROWS = 20  # of path sets and of results for one command
USED_AGAIN_S = 600  # a use is noted again after so long, because a write costs more than a read
STEP_ROWS = 200  # that one step of an eviction removes, in some milliseconds
DAMAGED_KEPT_S = 7 * 86400.0
MOST_FAILURES = 10  # in a row; then this process gives the index up, because each one takes time
MOST_ROW_BYTES = 4 * 1024 * 1024  # some 20,000 outputs

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS path_sets (weak BLOB, id BLOB, packed BLOB, used INT, PRIMARY KEY (weak, id))"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, weak BLOB, shape BLOB, packed BLOB, used INT)",
    "CREATE INDEX IF NOT EXISTS results_of_shape ON results (shape)",
    "CREATE INDEX IF NOT EXISTS results_of_weak ON results (weak, used)",
    "CREATE INDEX IF NOT EXISTS results_by_use ON results (used)",
    "CREATE INDEX IF NOT EXISTS path_sets_by_use ON path_sets (used)",
    "CREATE TABLE IF NOT EXISTS last_runs (name BLOB PRIMARY KEY, packed BLOB, used INT) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS last_runs_by_use ON last_runs (used)",
    "CREATE TABLE IF NOT EXISTS shapes (id BLOB PRIMARY KEY, packed BLOB, used INT, refused INT) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS shapes_by_use ON shapes (used)",
)
_TABLES = ("results", "path_sets", "last_runs", "shapes")
_KEYS = {"results": "rowid", "path_sets": "weak, id", "last_runs": "name", "shapes": "id"}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # another master writes, which is no failure
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # ERROR: a table is missing
_NAME = re.compile(r"index-(\d+)-(\d+)\.db\Z")

T = TypeVar("T")
log = logging.getLogger(__name__)


class ResultIndex:
    """The index in the directory `root`.

    No method raises if the disk or the index fails: it answers as if nothing was stored, and counts
    that. All block as far as SQLite does. Times are in whole seconds since 1970.
    """

    def __init__(self, root: Path, now_s: int) -> None:
        self.failures = 0
        self._in_a_row = 0
        self._root = os.fspath(root)
        self._database: sqlite3.Connection | None = None
        self._generation = max((generation for _, generation in self._generations()), default=1)
        self._try(lambda database: None, None)
        self._remove_damaged(now_s)

    def close(self) -> None:
        """Close the index."""
        self._drop()

    def follow(self, other: "ResultIndex") -> None:
        """Use the generation of another index of this directory if that is a later one.

        The other one may have found damage in rows that this one never reads.
        """
        if other._generation > self._generation:
            self._drop()
            self._generation = other._generation

    def rows(self, weak: bytes) -> StoredRows:
        """Return what is stored for a command."""
        return self._try(lambda database: _read_rows(database, weak), NO_ROWS)

    def has_results(self, weak: bytes) -> bool:
        """Return whether a result of a command is stored."""
        statement = "SELECT 1 FROM results WHERE weak = ? LIMIT 1"
        return self._try(lambda database: bool(_execute(database, statement, (weak,))), fallback=False)

    def last(self, name: bytes) -> tuple[LastRun, PathSet | None] | None:
        """Return the last run of the job of this name with its path set, if they are stored."""
        return self._try(lambda database: _read_last(database, name), None)

    def add(self, weak: bytes, path_set: PathSetRow, row: ResultRow, now_s: int) -> bool:
        """Store a result with its path set. Return whether it is stored."""

        packed = pack_value(row)
        if len(packed) > MOST_ROW_BYTES:
            return False

        packed_set = pack_value(path_set)

        def write(database: sqlite3.Connection) -> bool:
            _put(database, "path_sets", (weak, path_set.id, packed_set, now_s))
            _put(database, "results", (row.timed + row.blind, weak, row.shape, packed, now_s))
            for table, key in (("path_sets", "id"), ("results", "key")):
                _execute(
                    database,
                    f"DELETE FROM {table} WHERE weak = ?1 AND {key} NOT IN"
                    f" (SELECT {key} FROM {table} WHERE weak = ?1 ORDER BY used DESC LIMIT {MOST_ROWS})",
                    (weak,),
                )
            return True

        return self._write(write, fallback=False)

    def note_last(self, name: bytes, last: LastRun, now_s: int) -> None:
        """Store the last run of the job of this name."""
        packed = pack_value(last)
        self._write(lambda database: _put(database, "last_runs", (name, packed, now_s)), None)

    def shape(self, identity: bytes) -> Shape:
        """Return what is known of a shape."""
        return self._try(lambda database: _read_shape(database, identity), NEW_SHAPE)

    def note_shape(self, identity: bytes, shape: Shape, now_s: int) -> None:
        """Add to what is known of a shape. If it is refused, remove all of its results."""

        def write(database: sqlite3.Connection) -> None:
            merged = merged_shape(_read_shape(database, identity), shape)
            _put(database, "shapes", (identity, pack_value(merged), now_s, bool(merged.refused)))
            if merged.refused:
                _execute(database, "DELETE FROM results WHERE shape = ?", (identity,))

        self._write(write, None)

    def note_use(self, weak: bytes, row: ResultRow, now_s: int) -> None:
        """Note that a result was used, unless that was noted a moment ago."""
        key, limit = row.timed + row.blind, now_s - USED_AGAIN_S

        def is_due(database: sqlite3.Connection) -> bool:
            return bool(_execute(database, "SELECT 1 FROM results WHERE key = ? AND used < ?", (key, limit)))

        def write(database: sqlite3.Connection) -> None:
            _execute(database, "UPDATE results SET used = ? WHERE key = ?", (now_s, key))
            _execute(
                database, "UPDATE path_sets SET used = ? WHERE weak = ? AND id = ?", (now_s, weak, row.path_set_id)
            )

        if self._try(is_due, fallback=False):
            self._write(write, None)

    def remove(self, row: ResultRow) -> None:
        """Remove a result that cannot be used any more."""
        self._write(
            lambda database: _execute(database, "DELETE FROM results WHERE key = ?", (row.timed + row.blind,)), None
        )

    def clear(self) -> None:
        """Remove everything."""
        for table in _TABLES:
            self._write(lambda database, table=table: _execute(database, f"DELETE FROM {table}"), None)  # type: ignore[misc]

    def eviction(self, max_bytes: int) -> Iterator[int]:
        """Remove the rows that were not used for longest until the index has at most `max_bytes`.

        Yield the number of rows that each step removes.
        """
        while self._try(_used_bytes, 0) > max_bytes:
            removed = self._write(_remove_oldest, 0)
            if not removed:
                return
            yield removed

    def count(self) -> dict[str, int]:
        """Return the numbers of rows by table, and the size of the index in bytes."""
        counts = {
            table: self._try(lambda database, table=table: _count(database, table), 0)  # type: ignore[misc]
            for table in _TABLES
        }
        return {**counts, "index_bytes": self._try(_used_bytes, 0)}

    def check(self) -> int:
        """Read every row, remove the damaged ones, and return their number."""
        return self._write(_remove_unreadable, 0)

    # -- failures -----------------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[sqlite3.Connection], T], fallback: T) -> T:
        def transaction(database: sqlite3.Connection) -> T:
            _execute(database, "BEGIN IMMEDIATE")
            try:
                done = work(database)
                _execute(database, "COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.rollback()
                raise
            return done

        return self._try(transaction, fallback)

    def _try(self, work: Callable[[sqlite3.Connection], T], fallback: T) -> T:
        """Work on the database, or on a new one if it is damaged.

        Return `fallback` if that fails.
        """
        for _ in range(2 if self._in_a_row < MOST_FAILURES else 0):
            try:
                if self._database is None:
                    self._database = self._open()
                done = work(self._database)
                self._in_a_row = 0
                return done
            except (sqlite3.Error, OSError) as error:
                if getattr(error, "sqlite_errorcode", -1) & 0xFF in _BUSY:
                    return fallback
                self.failures += 1
                self._in_a_row += 1
                is_damaged = getattr(error, "sqlite_errorcode", -1) & 0xFF in _DAMAGE
                if self.failures == 1 or is_damaged:
                    log.warning("results-index-failed path=%s damaged=%s reason=%s", self._path(), is_damaged, error)
                self._drop()
                if not is_damaged:
                    return fallback
                # Perhaps another master has begun the next one, and this one shares it.
                newest = max((number for _, number in self._generations()), default=0)
                self._generation = newest if newest > self._generation else self._generation + 1
        return fallback

    def _open(self) -> sqlite3.Connection:
        database = result_calls.open_database(self._path(), WAIT_S)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = OFF"):
                _execute(database, f"PRAGMA {pragma}")
            for statement in _SCHEMA:
                _execute(database, statement)
        except BaseException:
            database.close()
            raise
        return database

    def _drop(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                database.close()  # this also takes an open transaction back
            except sqlite3.Error as error:
                log.debug("results-index-failed path=%s damaged=%s reason=%s", self._path(), False, error)

    def _path(self) -> str:
        return os.path.join(self._root, f"index-{FORMAT}-{self._generation}.db")

    def _generations(self) -> list[tuple[str, int]]:
        """Return the names and generations of the indexes of this format."""
        try:
            names = result_calls.listdir(self._root)
        except OSError:
            return []
        found = ((name, _NAME.match(name)) for name in names)
        return [(name, int(match[2])) for name, match in found if match is not None and int(match[1]) == FORMAT]

    def _remove_damaged(self, now_s: int) -> None:
        """Remove the files of generations that were given up long ago."""
        for name, generation in self._generations():
            path = os.path.join(self._root, name)
            for suffix in ("", "-wal", "-shm") if generation < self._generation else ():
                try:
                    if now_s - result_calls.stat(path + suffix).st_mtime > DAMAGED_KEPT_S:
                        result_calls.unlink(path + suffix)
                except OSError as error:
                    log.debug("results-index-kept path=%s reason=%s", path + suffix, error)


def _execute(database: sqlite3.Connection, statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
    return result_calls.execute(database, statement, values)


def _put(database: sqlite3.Connection, table: str, values: Sequence[object]) -> None:
    marks = ", ".join("?" * len(values))
    _execute(database, f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)


def _read_rows(database: sqlite3.Connection, weak: bytes) -> StoredRows:
    def read(table: str, kind: type[T]) -> tuple[T, ...]:
        statement = f"SELECT packed FROM {table} WHERE weak = ? ORDER BY used DESC"
        return tuple(_unpacked(_execute(database, statement, (weak,)), kind))

    return StoredRows(read("path_sets", PathSetRow), read("results", ResultRow))


def _read_last(database: sqlite3.Connection, name: bytes) -> tuple[LastRun, PathSet | None] | None:
    rows = _execute(database, "SELECT packed FROM last_runs WHERE name = ?", (name,))
    last = next(_unpacked(rows, LastRun), None)
    if last is None:
        return None
    key = last.weak, last.path_set_id
    rows = _execute(database, "SELECT packed FROM path_sets WHERE weak = ? AND id = ?", key)
    found = next(_unpacked(rows, PathSetRow), None)
    return last, found.path_set if found is not None else None


def _unpacked(rows: Iterable[result_calls.Row], kind: type[T]) -> Iterator[T]:
    for row in rows:
        value = unpack_value(row[0], kind) if isinstance(row[0], bytes) else None
        if value is not None:
            yield value


def _read_shape(database: sqlite3.Connection, identity: bytes) -> Shape:
    rows = _execute(database, "SELECT packed FROM shapes WHERE id = ?", (identity,))
    return next(_unpacked(rows, Shape), NEW_SHAPE)


def _remove_oldest(database: sqlite3.Connection) -> int:
    removed = 0
    for table, key in _KEYS.items():
        # A refusal is for ever: without it, an equal pair of results would prove the shape.
        which = " WHERE NOT refused" if table == "shapes" else ""
        gone = _execute(
            database,
            f"DELETE FROM {table} WHERE ({key}) IN"
            f" (SELECT {key} FROM {table}{which} ORDER BY used LIMIT {STEP_ROWS}) RETURNING 1",
        )
        removed += len(gone)
    return removed


def _remove_unreadable(database: sqlite3.Connection) -> int:
    removed = 0
    kinds = (
        ("results", ResultRow, "key"),
        ("path_sets", PathSetRow, "id"),
        ("last_runs", LastRun, "name"),
        ("shapes", Shape, "id"),
    )
    for table, kind, key in kinds:
        for name, packed in _execute(database, f"SELECT {key}, packed FROM {table}"):
            if not isinstance(packed, bytes) or unpack_value(packed, kind) is None:
                _execute(database, f"DELETE FROM {table} WHERE {key} = ?", (name,))
                removed += 1
    return removed


def _used_bytes(database: sqlite3.Connection) -> int:
    """Return the size of the rows. SQLite uses the pages of removed ones again."""
    pages, free, page_bytes = (
        int(str(_execute(database, f"PRAGMA {name}")[0][0])) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * page_bytes


def _count(database: sqlite3.Connection, table: str) -> int:
    return int(str(_execute(database, f"SELECT count(*) FROM {table}")[0][0]))
