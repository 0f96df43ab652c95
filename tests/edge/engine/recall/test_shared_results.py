"""Write results to a shared store, and read them. The server may lie, be slow or be gone."""

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Attr, Change, Digest, MachineFacts, StoreLimits
from termite.engine.recall.ended_runs import FoundResult, StoreEffect, keep_result, keep_shared
from termite.engine.recall.logic.uses import Dependency, PathSet, Use, pack_path_set
from termite.engine.recall.look_up.evidence import NEW_SHAPE
from termite.engine.recall.look_up.stored_rows import OutputPiece, PathSetRow, RecordedResult, ResultRow
from termite.engine.recall.result_store import INLINE_OUTPUT_BYTES, ResultStore
from termite.engine.recall.shared_store.circuit_breaker import StoreFailed
from termite.engine.recall.shared_store.shared_records import MOST_PATH_SETS, AskedResult, RunGround
from termite.engine.recall.shared_store.shared_results import (
    RefusalDraft,
    ResultDraft,
    SharedResults,
    Unfit,
    open_results,
)
from termite.engine.recall.shared_store.shared_settings import SharedSettings, StoreAddress
from termite.engine.recall.shared_store.signatures import Distrust, WriterKey
from termite.engine.recall.shared_store.writer_keys import make_writer_key
from tests.edge.engine.recall.real_server import real_server
from tests.edge.engine.recall.remote_cache_server import RemoteCacheServer, remote_cache

WEAK, TIMED, BLIND, SHAPE = (hashlib.sha256(word).digest() for word in (b"weak", b"timed", b"blind", b"shape"))
PATIENT_S = 20.0
NOW_S = 1_700_000_000
GROUND = RunGround("host", MachineFacts("x86_64", "Linux 1", "cpu", b"f", 2, 2))
CONTENTS = (b"object", b"x" * 70_000, os.urandom(1 << 20) * 5, b"")
OUTPUT = b"x" * (INLINE_OUTPUT_BYTES + 1)


def a_path_set(name: bytes) -> PathSetRow:
    found = PathSet((Dependency(b"w/" + name, Use.READ),))
    return PathSetRow(pack_path_set(found)[0], found)


PATH_SET = a_path_set(b"a.c")


def digest(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


class User:
    """A user with a store and a key, who trusts some."""

    def __init__(self, where: Path, server: RemoteCacheServer | SimpleNamespace, **trusted: WriterKey) -> None:
        where.mkdir()
        self.store = ResultStore(where / "results", StoreLimits(1 << 30, 1000), NOW_S)
        self.key = make_writer_key(where / "key.pem")
        self.server = server
        self.shared: SharedResults
        self.trust(**trusted)

    def trust(self, **trusted: WriterKey) -> None:
        self.connect("", (), trusted)

    def connect(self, instance: str, headers: tuple[tuple[str, str], ...], trusted: dict[str, WriterKey]) -> None:
        address = StoreAddress(f"127.0.0.1:{self.server.port}", instance, False)
        keys = {key.public: name for name, key in trusted.items()} | {self.key.public: "this user"}
        self.shared = open_results(SharedSettings(address, keys, self.key, headers=headers))

    def close(self) -> None:
        self.shared.close()
        self.store.close()

    def write(self, path_set: PathSetRow = PATH_SET, contents: tuple[bytes, ...] = CONTENTS) -> ResultRow:
        """Store a result, and send it as it is stored."""
        changes = [
            Change(b"w/%d" % n, Attr(0o100644, len(one), 1, digest(one))) for n, one in enumerate(contents) if one
        ]
        result = RecordedResult(tuple(changes), (OutputPiece(1, OUTPUT),), 1, 2, job="job 1", at_s=NOW_S)
        row = ResultRow(TIMED, BLIND, path_set.id, result, SHAPE, ("gcc 1",), True)
        found = FoundResult(WEAK, path_set, row, {digest(one).sha256: one for one in contents})
        assert keep_result(self.store, found, NOW_S).effect is StoreEffect.STORED
        (stored,) = self.store.rows(WEAK).results
        self.shared.send(ResultDraft(WEAK, path_set, stored, NEW_SHAPE, GROUND), self.store, PATIENT_S)
        return stored

    def read(self) -> list[ResultRow]:
        """Return the results that the store has."""
        sets = self.shared.path_sets(WEAK, PATIENT_S)
        asked = [AskedResult(WEAK, found, TIMED, BLIND) for found in sets]
        return [shared.row for _, shared in self.shared.results(asked, PATIENT_S)] if asked else []

    def bring(self) -> None:
        (row,) = self.read()
        self.shared.bring_contents(row, self.store, PATIENT_S)


@pytest.fixture
def server() -> Iterator[RemoteCacheServer]:
    with remote_cache() as server:
        yield server


@pytest.fixture
def users(tmp_path: Path, server: RemoteCacheServer) -> Iterator[tuple[User, User]]:
    writer = User(tmp_path / "writer", server)
    reader = User(tmp_path / "reader", server, ci=writer.key)
    yield writer, reader
    writer.close()
    reader.close()


def test_a_result_reaches_another_user_with_all_of_its_contents(users: tuple[User, User]) -> None:
    check_that_a_result_reaches_another_user(*users)


def test_a_server_of_others_keeps_results_too(tmp_path: Path) -> None:
    with real_server(tmp_path, "a/b") as port:
        users = [User(tmp_path / name, SimpleNamespace(port=port)) for name in ("writer", "reader")]
        writer, reader = users
        writer.connect("a/b", (), {})
        reader.connect("a/b", (), {"ci": writer.key})
        check_that_a_result_reaches_another_user(writer, reader)
        for n in range(MOST_PATH_SETS + 1):
            large = PathSet(tuple(Dependency(os.urandom(50).hex().encode(), Use.READ) for _ in range(500)))
            row = PathSetRow(pack_path_set(large)[0], large)
            writer.shared.send(ResultDraft(WEAK, row, _a_row(row), NEW_SHAPE, GROUND), writer.store, PATIENT_S)
            assert len(reader.shared.path_sets(WEAK, PATIENT_S)) == min(n + 2, MOST_PATH_SETS)
        writer.shared.send(RefusalDraft(SHAPE, "/w/a.o differs"), writer.store, PATIENT_S)
        assert reader.shared.is_refused(SHAPE, PATIENT_S)
        for user in users:
            user.close()


def check_that_a_result_reaches_another_user(writer: User, reader: User) -> None:
    sent = writer.write()
    (row,) = reader.read()
    assert row.result.job == "job 1 (ci)"
    assert msgspec.structs.replace(row.result, job="job 1") == sent.result
    reader.shared.bring_contents(row, reader.store, PATIENT_S)
    kept = keep_shared(reader.store, FoundResult(WEAK, PATH_SET, row, {}), NOW_S)
    assert kept.effect is StoreEffect.STORED
    (stored,) = reader.store.rows(WEAK).results
    assert reader.store.has_contents(stored) and reader.store.output(stored) == (OutputPiece(1, OUTPUT),)


def test_no_word_variable_or_name_is_in_an_action(users: tuple[User, User], server: RemoteCacheServer) -> None:
    writer, _ = users
    writer.write(contents=(b"object",))
    of_the_result = {digest(b"object").sha256.hex()}
    for name, blob in server.blobs.items():
        assert name in of_the_result or (b"gcc" not in blob and b"w/" not in blob)
    assert any(b"termite-record" in blob and WEAK.hex().encode() in blob for blob in server.blobs.values())


def test_a_store_gets_no_content_that_was_not_to_be_sent(
    users: tuple[User, User], server: RemoteCacheServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that was made of a private file is in our store, too."""
    writer, _ = users
    private = b"made of a private file"
    writer.store.put_content(digest(private), [private])
    find_missing = server._find_missing

    def lie(request: Any, context: Any) -> Any:
        answer = find_missing(request, context)
        answer.missing_blob_digests.add(hash=digest(private).sha256.hex(), size_bytes=len(private))
        return answer

    monkeypatch.setattr(server, "_find_missing", lie)
    server.stop()
    server.start()
    writer.write()
    assert digest(CONTENTS[0]).sha256.hex() in server.blobs
    assert digest(private).sha256.hex() not in server.blobs


@pytest.mark.logs("shared-record-refused")
def test_what_several_writers_have_seen_is_kept_the_newest_first(tmp_path: Path, users: tuple[User, User]) -> None:
    writer, reader = users
    for n in range(MOST_PATH_SETS + 2):
        writer.shared.send(
            ResultDraft(WEAK, a_path_set(b"%d" % n), _a_row(a_path_set(b"%d" % n)), NEW_SHAPE, GROUND),
            writer.store,
            PATIENT_S,
        )
    names = [row.path_set.dependencies[0].path for row in reader.shared.path_sets(WEAK, PATIENT_S)]
    assert names == [b"w/%d" % n for n in reversed(range(2, MOST_PATH_SETS + 2))]
    reader.trust(ci=writer.key)
    reader.shared.send(ResultDraft(WEAK, PATH_SET, _a_row(PATH_SET), NEW_SHAPE, GROUND), reader.store, PATIENT_S)
    first, *others = reader.shared.path_sets(WEAK, PATIENT_S)
    assert first == PATH_SET and len(others) == MOST_PATH_SETS - 1
    assert len(writer.shared.path_sets(WEAK, PATIENT_S)) == MOST_PATH_SETS - 1, "it does not trust the reader"


def _a_row(path_set: PathSetRow) -> ResultRow:
    return ResultRow(TIMED, BLIND, path_set.id, RecordedResult((), (), 1, 2, at_s=NOW_S), SHAPE, ("gcc 1",), True)


@pytest.mark.logs("shared-record-refused")
def test_a_writer_whom_nobody_trusts_is_a_miss(users: tuple[User, User]) -> None:
    writer, reader = users
    writer.write()
    reader.trust()
    assert reader.read() == []
    assert reader.shared.distrusted == {Distrust.WRITER: 1}


@pytest.mark.logs("shared-record-refused")
@pytest.mark.parametrize("kept", [0, 40, 100, -1])
def test_a_record_that_was_changed_is_a_miss(users: tuple[User, User], server: RemoteCacheServer, kept: int) -> None:
    writer, reader = users
    writer.write()
    for result in server.results.values():
        whole = bytearray(result.stdout_raw)
        whole[kept] ^= 1
        result.stdout_raw = bytes(whole)
    assert reader.read() == []
    assert sum(reader.shared.distrusted.values()) == 1


@pytest.mark.logs("shared-record-refused")
def test_a_record_in_the_place_of_another_one_is_a_miss(users: tuple[User, User], server: RemoteCacheServer) -> None:
    writer, reader = users
    writer.write()
    (result,) = (one for one in server.results.values() if one.output_files)
    for name in server.results:
        if server.results[name] is not result:
            server.results[name].stdout_raw = msgspec.msgpack.encode([result.stdout_raw])
    assert reader.read() == []
    assert reader.shared.distrusted == {Distrust.SIGNATURE: 1}


@pytest.mark.parametrize("content", CONTENTS[:3], ids=len)
@pytest.mark.parametrize("lie", [lambda blob: blob[:-1] + b"!", lambda blob: blob + b"!", lambda blob: blob[:-1]])
def test_another_content_is_a_miss(
    users: tuple[User, User], server: RemoteCacheServer, content: bytes, lie: "object"
) -> None:
    writer, reader = users
    writer.write()
    name = digest(content).sha256.hex()
    server.blobs[name] = lie(content)  # type: ignore[operator]
    with pytest.raises(Unfit):
        reader.bring()
    assert reader.store.lacks([digest(content)])


def test_a_content_without_an_end_fills_no_disk(users: tuple[User, User]) -> None:
    taken: list[int] = []
    pieces = (taken.append(n) or b"x" * 1000 for n in itertools.count())  # type: ignore[func-returns-value]
    with pytest.raises(RemoteProtocolError):
        users[0].store.put_content(digest(b"y" * 2500), pieces)
    assert len(taken) == 3


@pytest.mark.parametrize("content", CONTENTS[:3], ids=len)
def test_a_missing_content_is_a_miss(users: tuple[User, User], server: RemoteCacheServer, content: bytes) -> None:
    writer, reader = users
    writer.write()
    (row,) = reader.read()
    del server.blobs[digest(content).sha256.hex()]
    with pytest.raises(Unfit):
        reader.shared.bring_contents(row, reader.store, PATIENT_S)
    assert reader.read() == [], "the server says so, too"


def test_a_slow_store_fails_in_time(users: tuple[User, User], server: RemoteCacheServer) -> None:
    _, reader = users
    server.answers.clear()
    with pytest.raises(StoreFailed) as failed:
        reader.shared.path_sets(WEAK, 0.05)
    assert failed.value.code == "DEADLINE_EXCEEDED"


def test_a_store_that_is_gone_fails_at_once_and_may_come_back(
    users: tuple[User, User], server: RemoteCacheServer
) -> None:
    writer, reader = users
    writer.write(contents=(b"object",))
    server.stop()
    with pytest.raises(StoreFailed) as failed:
        reader.shared.path_sets(WEAK, PATIENT_S)
    assert failed.value.code == "UNAVAILABLE"
    server.start()
    reader.trust(ci=writer.key)
    assert len(reader.read()) == 1


def test_a_refused_shape_is_told(users: tuple[User, User]) -> None:
    writer, reader = users
    assert not reader.shared.is_refused(SHAPE, PATIENT_S)
    writer.shared.send(RefusalDraft(SHAPE, "/w/a.o differs"), writer.store, PATIENT_S)
    assert reader.shared.is_refused(SHAPE, PATIENT_S)


def test_a_content_with_long_holes_has_no_plain_digest_and_is_not_sent(
    users: tuple[User, User], server: RemoteCacheServer
) -> None:
    writer, _ = users
    content = bytes(1 << 19)
    stored = writer.store._cas.put(content)
    result = RecordedResult((Change(b"w/a", Attr(0o100644, len(content), 1, stored)),), (), 1, 2)
    row = ResultRow(TIMED, BLIND, PATH_SET.id, result, SHAPE)
    with pytest.raises(Unfit):
        writer.shared.send(ResultDraft(WEAK, PATH_SET, row, NEW_SHAPE, GROUND), writer.store, PATIENT_S)
    assert not server.results


def test_an_instance_and_headers_are_sent(tmp_path: Path) -> None:
    with remote_cache("team/a", {"x-token": "t"}) as server:
        writer = User(tmp_path / "writer", server)
        for instance, headers, code in (
            ("team/a", (), "UNAUTHENTICATED"),
            ("team/a", (("x-token", "t"),), ""),
            ("other", (("x-token", "t"),), "NOT_FOUND"),
        ):
            writer.shared.close()
            writer.connect(instance, headers, {})
            try:
                writer.shared.send(RefusalDraft(SHAPE, ""), writer.store, PATIENT_S)
            except StoreFailed as error:
                assert error.code == code
            else:
                assert not code
        writer.close()
