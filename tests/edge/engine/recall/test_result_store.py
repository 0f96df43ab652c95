"""Test the store of results: kills and failures at every call, damage, masters, eviction."""

import contextlib
import errno
import functools
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from termite.engine.model import Attr, Change, Digest, StoreLimits
from termite.engine.recall import result_calls, result_index
from termite.engine.recall.logic.uses import Dependency, PathSet, Use, pack_path_set
from termite.engine.recall.look_up.evidence import NEW_SHAPE, Shape
from termite.engine.recall.look_up.stored_rows import (
    NO_ROWS,
    LastRun,
    OutputPiece,
    PathSetRow,
    RecordedResult,
    ResultRow,
    StoredRows,
)
from termite.engine.recall.result_store import INLINE_OUTPUT_BYTES, ResultStore, default_limits
from termite.engine.sparse_content import BLOCK_BYTES, digest_of
from termite.engine.store import store_calls

LIMITS = StoreLimits(64 * 1024**2, 10_000)
SHELLS = (result_calls, store_calls)
NAME = b"n" * 16


def weak(number: int) -> bytes:
    return b"%032d" % number


def example(number: int, output: bytes = b"warning\n") -> tuple[PathSetRow, ResultRow, dict[bytes, bytes | Path]]:
    """Return the path set, the result and the contents of a command that writes two files."""
    path_set = PathSet((Dependency(b"w/x.c", Use.READ), Dependency(b"w/x.h", Use.ABSENT)))
    contents = [b"object %d" % number, b"depfile %d" % number]
    changes = tuple(
        Change(b"w/out%d" % at, Attr(stat.S_IFREG | 0o644, len(content), 7, digest_of(content)))
        for at, content in enumerate(contents)
    )
    result = RecordedResult(changes, (OutputPiece(2, output),), 1, 2, job=f"job {number}")
    identity, _ = pack_path_set(path_set)
    row = ResultRow(b"t%031d" % number, b"b%031d" % number, identity, result)
    return PathSetRow(identity, path_set), row, {digest_of(content).sha256: content for content in contents}


def add(store: ResultStore, number: int, now_s: int = 1000, output: bytes = b"warning\n") -> bool:
    path_set, row, contents = example(number, output)
    return store.add(weak(number), path_set, row, contents, now_s)


def read(store: ResultStore, digest: Digest) -> bytes | None:
    fd = store.open_content(digest)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        return file.read()


def opened(root: Path, limits: StoreLimits = LIMITS) -> ResultStore:
    return ResultStore(root, limits, int(time.time()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def store(root: Path) -> Iterator[ResultStore]:
    store = opened(root)
    yield store
    store.close()


def is_whole(store: ResultStore, number: int) -> bool:
    """Return whether the store has a result. Fail if it has a part of it."""
    rows = store.rows(weak(number))
    path_set, row, contents = example(number)
    if not rows.results:
        return False
    assert rows == StoredRows((path_set,), (row,))
    assert store.has_contents(row)
    for digest in row.result.blobs.values():
        assert read(store, digest) == contents[digest.sha256]
    return True


def test_a_result_is_found_again_by_another_process(root: Path, store: ResultStore) -> None:
    assert add(store, 1)
    other = opened(root)
    assert is_whole(other, 1)
    assert other.rows(weak(2)) == NO_ROWS
    path_set, row, _ = example(1)
    last = LastRun((b"gcc",), {b"A": b"1"}, {"umask": b"\x12"}, weak(1), row.path_set_id)
    store.note_last(NAME, last, 1000)
    store.note_last(b"other", msgspec.structs.replace(last, weak=weak(2)), 1000)
    assert other.last(NAME) == (last, path_set.path_set)
    assert other.last(b"other") == (msgspec.structs.replace(last, weak=weak(2)), None)
    assert other.last(b"none") is None
    other.close()


def test_the_store_is_for_its_user_alone(root: Path) -> None:
    root.mkdir(mode=0o755)
    store = opened(root)
    add(store, 1)
    store.close()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for path in root.rglob("*"):
        if path.is_file() and path.parent.parent.name == "cas":
            assert stat.S_IMODE(path.stat().st_mode) == 0o444
            assert path.stat().st_nlink == 1


@pytest.mark.needs_root("gives a directory to another user")
def test_a_store_of_another_user_is_refused(root: Path) -> None:
    root.mkdir()
    os.chown(root, 12345, 12345)
    with pytest.raises(PermissionError):
        opened(root)


def test_a_refused_shape_loses_its_results_whichever_master_refuses_it(root: Path, store: ResultStore) -> None:
    other = opened(root)
    proof = Shape(proven=(b"1", b"2"))
    store.note_shape(b"shape", proof, 1000)
    for number in (1, 2):
        path_set, row, contents = example(number)
        row = msgspec.structs.replace(row, shape=b"shape" if number == 1 else b"another")
        assert other.add(weak(number), path_set, row, contents, 1000)
    assert other.shape(b"shape") == proof
    assert other.shape(b"none") == NEW_SHAPE
    other.note_shape(b"shape", Shape(refused="stdout at byte 1"), 1000)
    store.note_shape(b"shape", Shape(proven=(b"1", b"2", b"3")), 1000)
    assert store.shape(b"shape") == Shape(refused="stdout at byte 1")
    assert not store.rows(weak(1)).results
    assert store.rows(weak(2)).results
    other.close()


@pytest.mark.parametrize("text", [b"%d" * INLINE_OUTPUT_BYTES, b"%d" + bytes(3 * BLOCK_BYTES)])
def test_a_long_output_is_a_blob_and_keeps_its_order(root: Path, store: ResultStore, text: bytes) -> None:
    path_set, row, contents = example(1)
    pieces = tuple(OutputPiece(1 + at % 2, text.replace(b"%d", b"%d" % at)) for at in range(4))
    row = ResultRow(row.timed, row.blind, row.path_set_id, RecordedResult((), pieces, 1, 2))
    assert store.add(weak(1), path_set, row, contents, 1000)
    found = store.rows(weak(1)).results[0]
    assert found.result.output == ()
    assert store.output(found) == pieces
    blob = found.result.output_blob
    assert blob is not None
    (path,) = root.rglob(blob.sha256.hex()[2:])
    path.unlink()
    assert store.output(found) is None
    assert not store.has_contents(found)
    assert store.rows(weak(1)).results == ()


def test_contents_are_looked_for_without_being_read(root: Path, store: ResultStore) -> None:
    _, row, _ = example(1)
    assert add(store, 1)
    blobs = [path for path in root.rglob("*") if path.is_file() and path.parent.parent.name == "cas"]
    for path in blobs:
        os.utime(path, (1, 1))  # as one that was never verified
    before = store.statistics()["verified"]
    assert store.has_files(row)
    for digest in row.result.blobs.values():
        fd = store.open_content(digest)
        assert fd is not None
        os.close(fd)
    assert store.statistics()["verified"] == before
    assert store.has_contents(row) and store.statistics()["verified"] == before + len(blobs)
    blobs[0].unlink()
    assert not store.has_files(row)
    assert store.rows(weak(1)).results == ()


@pytest.mark.logs("store-blob-bad")
def test_a_long_output_that_is_damaged_is_gone(root: Path, store: ResultStore) -> None:
    path_set, row, contents = example(1)
    pieces = (OutputPiece(1, b"x" * 2 * INLINE_OUTPUT_BYTES),)
    row = ResultRow(row.timed, row.blind, row.path_set_id, RecordedResult((), pieces, 1, 2))
    store.add(weak(1), path_set, row, contents, 1000)
    found = store.rows(weak(1)).results[0]
    blob = found.result.output_blob
    assert blob is not None
    (path,) = root.rglob(blob.sha256.hex()[2:])
    marked = path.stat()
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"xx", b"xy", 1))
    os.utime(path, ns=(marked.st_mtime_ns, marked.st_mtime_ns))  # as on a failing disk
    assert store.output(found) is None
    assert not path.exists()


def test_a_content_that_differs_from_its_digest_is_not_stored(
    tmp_path: Path, store: ResultStore, caplog: pytest.LogCaptureFixture
) -> None:
    path_set, row, contents = example(1)
    first = next(iter(contents))
    for wrong in (b"other 1!", b"shorter", tmp_path / "absent", _file(tmp_path / "other", b"obj3ct 1")):
        with caplog.at_level(logging.CRITICAL):
            assert not store.add(weak(1), path_set, row, {**contents, first: wrong}, 1000)
    assert store.rows(weak(1)) == NO_ROWS
    assert store.add(weak(1), path_set, row, {**contents, first: _file(tmp_path / "right", b"object 1")}, 1000)
    assert is_whole(store, 1)


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# -- kills and failures at every call ---------------------------------------------------------------------------------


def faulty(module: ModuleType, come: Callable[[], None]) -> dict[str, Any]:
    """Return counting calls for all calls of a shell."""
    names = [name for name in vars(module) if not name.startswith("_") and callable(getattr(module, name))]
    names = [name for name in names if name not in ("Row", "Sequence")]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            come()
            return call(*args, **options)

        return run

    return {name: counted(getattr(module, name)) for name in names}


def run_with_fault(work: Callable[[], None], number: int, fault: Callable[[], None]) -> bool:
    """Run `work` in a child, whose call of this number meets a fault.

    Return whether the child came so far.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def come() -> None:
            nonlocal count
            count += 1
            if count == number:
                fault()

        code = 1
        try:
            logging.disable(logging.CRITICAL)
            for module in SHELLS:
                for name, call in faulty(module, come).items():
                    setattr(module, name, call)
            work()
            code = 0 if count < number else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 2, 9), code
    return code != 0


def use_store(root: Path, number: int) -> None:
    """Open the store, add a result, use it, and close the store."""
    store = opened(root)
    if add(store, number):
        for row in store.rows(weak(number)).results:
            store.has_contents(row)
            store.note_use(weak(number), row, 10_000)
    for _ in store.eviction():
        pass
    store.close()


def test_a_process_that_is_killed_at_any_call_leaves_a_result_whole_or_none(root: Path) -> None:
    store = opened(root)
    assert add(store, 0)
    store.close()
    stored = number = 0
    while True:
        number += 1
        was_reached = run_with_fault(functools.partial(use_store, root, number), number, lambda: os._exit(9))
        store = opened(root)
        assert is_whole(store, 0)
        stored += is_whole(store, number)
        assert add(store, number)
        assert is_whole(store, number)
        assert store.check() == 0
        store.close()
        if not was_reached:
            break
    assert number > 25
    assert 0 < stored < number
    assert not list((root / "cas" / "tmp").iterdir())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_call_that_fails_costs_a_result_and_nothing_else(root: Path, error: int) -> None:
    def fail() -> None:
        raise OSError(error, os.strerror(error))

    def work() -> None:
        try:
            use_store(root, number)
        except Exception as raised:  # around the opening of the store, which may raise
            assert type(raised).__name__ in ("OSError", "Retryable"), raised

    store = opened(root)
    assert add(store, 0)
    store.close()
    number = 0
    while True:
        number += 1
        was_reached = run_with_fault(work, number, fail)
        store = opened(root)
        assert is_whole(store, 0)
        is_whole(store, number)
        store.close()
        if not was_reached:
            break
    assert number > 25


@pytest.mark.logs("result-not-stored", "results-index-failed")
def test_a_full_disk_is_survived(root: Path, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert add(store, 1)
    monkeypatch.setattr(store_calls, "write", _raise(OSError(errno.ENOSPC, "full")))
    assert not add(store, 2)
    monkeypatch.undo()
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    monkeypatch.setattr(result_calls, "execute", _raise(full))
    assert not add(store, 3)
    assert store.rows(weak(1)) == NO_ROWS
    monkeypatch.undo()
    assert is_whole(store, 1)
    assert not is_whole(store, 2)
    assert add(store, 2)


def test_an_index_in_which_another_master_writes_has_not_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_index, "WAIT_S", 0.0)
    store = opened(root)
    assert add(store, 1)
    with contextlib.closing(sqlite3.connect(next(root.glob("index-*.db")), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(result_index.MOST_FAILURES + 1):
            assert not add(store, 2)
    assert store.statistics()["failures"] == 0
    assert add(store, 2) and is_whole(store, 2)
    store.close()


def test_whatever_fails_in_a_transaction_takes_it_back(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert add(store, 1)
    execute = result_calls.execute

    def fail(database: sqlite3.Connection, statement: str, values: Sequence[object] = ()) -> list[result_calls.Row]:
        if statement.startswith("DELETE"):
            raise ValueError("an error of ours")
        return execute(database, statement, values)

    monkeypatch.setattr(result_calls, "execute", fail)
    with pytest.raises(ValueError, match="of ours"):
        add(store, 2)
    monkeypatch.undo()
    assert add(store, 3), "no transaction is open"
    assert not is_whole(store, 2)


def test_a_refused_shape_is_never_evicted(store: ResultStore) -> None:
    store.note_shape(b"bad", Shape(refused="stdout at byte 1"), 1)
    store.note_shape(b"good", Shape(proven=(b"1",)), 1000)
    assert sum(store._index.eviction(0)) == 1
    assert store.shape(b"bad").refused
    assert store.shape(b"good") == NEW_SHAPE


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.logs("results-index-failed")
def test_two_stores_that_find_the_same_damage_share_the_next_index(root: Path) -> None:
    one, other = opened(root), opened(root)
    assert add(one, 1) and is_whole(other, 1)
    (index,) = root.glob("index-*.db")
    with sqlite3.connect(index) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    index.write_bytes(b"\xa5" * index.stat().st_size)
    assert add(one, 2)
    other.rows(weak(1))
    other.follow(one)
    assert is_whole(other, 2)
    assert add(other, 3) and is_whole(one, 3)
    assert len(list(root.glob("index-*.db"))) == 2
    one.close()
    other.close()


@pytest.mark.parametrize("damage", [b"no database at all", b""])
def test_a_damaged_index_is_set_aside_and_others_go_on(
    root: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(root)
    assert add(store, 1)
    store.close()
    (index,) = root.glob("index-*.db")
    content = index.read_bytes()
    index.write_bytes(damage + content[len(damage) : 4096] + b"\xa5" * (len(content) - 4096))
    with caplog.at_level(logging.WARNING):
        store = opened(root)
        store.rows(weak(1))
        assert add(store, 2)
    assert "results-index-failed" in caplog.text
    caplog.clear()
    other = opened(root)
    assert is_whole(other, 2)
    assert is_whole(store, 2)
    assert len(list(root.glob("index-*.db"))) == 2
    store.close()
    assert add(other, 3)
    other.close()
    week_ago = time.time() - 8 * 86400
    os.utime(index, (week_ago, week_ago))
    store = opened(root)
    assert is_whole(store, 3)
    assert len(list(root.glob("index-*.db"))) == 1
    store.close()


def test_a_row_that_was_damaged_silently_is_missing(root: Path, store: ResultStore) -> None:
    assert add(store, 1) and add(store, 2)
    with sqlite3.connect(next(root.glob("index-*.db"))) as database:
        (packed,) = database.execute("SELECT packed FROM results WHERE weak = ?", (weak(1),)).fetchone()
        broken = bytes([*packed[:-1], packed[-1] ^ 1])
        database.execute("UPDATE results SET packed = ? WHERE weak = ?", (broken, weak(1)))
    database.close()
    assert store.rows(weak(1)).results == ()
    assert store.check() == 1
    assert is_whole(store, 2)


@pytest.mark.logs("store-blob-bad")
def test_a_content_that_was_damaged_is_a_miss_and_is_stored_again(root: Path, store: ResultStore) -> None:
    assert add(store, 1)
    _, row, _ = example(1)
    for digest in row.result.blobs.values():
        (path,) = (root / "cas").rglob(digest.sha256.hex()[2:])
        path.chmod(0o644)
        path.write_bytes(b"x" * digest.size)
    assert not store.has_contents(row)
    assert not is_whole(store, 1)
    assert add(store, 1)
    assert is_whole(store, 1)


# -- several masters, and eviction ------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from tests.edge.engine.recall.test_result_store import add, is_whole, opened
store = opened(Path(sys.argv[1]))
first = int(sys.argv[2])
for number in range(first, first + 40):
    assert add(store, number), number
    assert is_whole(store, number), number
store.close()
"""


def test_two_processes_at_once_lose_nothing(root: Path) -> None:
    argv = [sys.executable, "-c", WRITER, str(root)]
    writers = [subprocess.Popen([*argv, str(first)]) for first in (1, 21)]  # the second half is the same
    assert [writer.wait() for writer in writers] == [0, 0]
    store = opened(root)
    assert all(is_whole(store, number) for number in range(1, 61))
    assert store.statistics()["results"] == 60
    store.close()


def test_what_was_not_used_for_longest_is_evicted_in_small_steps(root: Path) -> None:
    store = opened(root, StoreLimits(4 * 1024**2, 100))
    for number in range(450):
        path_set, row, _ = example(number)
        big = RecordedResult((), (OutputPiece(1, os.urandom(3000)),), 1, 2)
        row = ResultRow(row.timed, row.blind, row.path_set_id, big)
        assert store.add(weak(number), path_set, row, {}, 1000 + number)
    store.note_use(weak(3), example(3)[1], 10_000)
    before = store.statistics()
    steps = list(store.eviction())
    after = store.statistics()
    assert after["index_bytes"] <= 4 * 1024**2 // 10 < before["index_bytes"]
    assert max(steps) <= 600
    assert not store.rows(weak(4)).results
    assert store.rows(weak(449)).results
    assert store.rows(weak(3)).results
    store.close()


def test_contents_are_evicted_by_their_number_and_their_results_are_removed(root: Path) -> None:
    store = opened(root, StoreLimits(LIMITS.max_bytes, 20))
    for number in range(30):
        assert add(store, number)
    assert sum(store.eviction()) >= 40
    kept = [number for number in range(30) if store.has_contents(example(number)[1])]
    assert len(kept) <= 10
    gone = next(number for number in range(30) if number not in kept)
    assert store.rows(weak(gone)).results == ()
    store.clear()
    assert store.statistics()["results"] == 0
    assert [path for path in (root / "cas").glob("??/*") if path.is_file()] == []
    store.close()


def test_one_command_has_a_bounded_number_of_rows(store: ResultStore) -> None:
    for number in range(50):
        path_set, row, contents = example(number)
        assert store.add(weak(0), path_set, row, contents, 1000 + number)
    rows = store.rows(weak(0))
    assert [row.result.job for row in rows.results] == [f"job {number}" for number in range(49, 29, -1)]
    assert len(rows.path_sets) == 1


def test_the_default_limits_follow_the_disk() -> None:
    assert default_limits(10 * 1024**3).max_bytes == 1024**3
    assert default_limits(10**15) == StoreLimits()
