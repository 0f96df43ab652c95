"""Two users share results: launchers and store are real, the trees and the workers are fakes."""

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import trio

from termite.engine.decide.known_tools import KnownTool, Vouch
from termite.engine.history.logic.job_record import Where
from termite.engine.master.job import Job
from termite.engine.master.reuse import result_look_up, shared_cache
from termite.engine.master.reuse.result_cache import ResultCache
from termite.engine.model import Attr, CacheMode, Change, Digest, MachineFacts
from termite.engine.recall.known.known_table import KnownTable
from termite.engine.recall.logic.interpreters import ELF_HEAD
from termite.engine.recall.look_up import evidence
from termite.engine.recall.shared_store.shared_settings import SharedSettings, StoreAddress
from termite.engine.recall.shared_store.signatures import WriterKey
from termite.engine.recall.shared_store.writer_keys import make_writer_key
from termite.engine.wire.protocol.messages import Ran, Run
from termite.fuse.view.trace_names import TraceNames
from tests.edge.engine.master.test_recalled_jobs import DONE, EXEC, READ, WRITES, CachingWorld, traced, tree
from tests.edge.engine.master.test_recalled_stdin import feed
from tests.edge.engine.master.test_run_job import Script, ran
from tests.edge.engine.recall.remote_cache_server import RemoteCacheServer, remote_cache
from tests.unit.engine.recall.recall_trees import file
from tests.unit.fuse.view.test_trace_names import noted

MACHINE = MachineFacts()  # of the workers
GCC = KnownTool("gcc", "gcc", ("GCC",), lambda call: Vouch(is_blind=True))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "APART_S", 0.0)
    monkeypatch.setattr(shared_cache, "LOOK_UP_S", 20.0)


def a_run(content: bytes = b"object", asked: bytes = b"/dev/null") -> Script:
    """Return a run of `gcc -c x.c` that writes this content now, and has read `asked`."""

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        digest = Digest(hashlib.sha256(content).digest(), len(content))
        change = Change(b"p/x.o", Attr(0o100644, len(content), time.time_ns(), digest))
        end = msgspec.structs.replace(ran(), changes=(change,), inline={digest.sha256: content})
        done = await traced(end)(message, on_chunk)
        uses = [(b"/bin/gcc", EXEC, EXEC), (asked, READ, READ), (b"/p/x.c", READ, READ), (b"/p/x.o", WRITES, WRITES)]
        return msgspec.structs.replace(done, trace=TraceNames().pack(noted(uses), 4, 0))

    return run


class User(CachingWorld):
    """A user with workers, and results of his own, who shares them."""

    def __init__(
        self, tmp_path: Path, name: str, server: RemoteCacheServer, *trusted: WriterKey, runs: int = 4
    ) -> None:
        super().__init__(tmp_path, *(a_run() for _ in range(runs)))
        own = self.master.cache
        assert own is not None
        own.close()
        self.results = tmp_path / name
        self.key = make_writer_key(tmp_path / f"{name}.pem")
        self.table: tuple[KnownTool, ...] = ()
        self.address = StoreAddress(f"127.0.0.1:{server.port}", "", False)
        self.open(*trusted, writes=not trusted)
        self.tree.is_public = lambda path: True  # type: ignore[attr-defined]
        self.see_machine(MACHINE)
        self.ended: list[Job] = []
        self.master.recorder.finish = self.ended.append  # type: ignore[assignment, method-assign]

    def open(self, *trusted: WriterKey, writes: bool = True) -> None:
        """Open the cache, which may write to the shared store, or trusts these writers."""
        keys = {key.public: "ci" for key in trusted} or {self.key.public: "this user"}
        settings = SharedSettings(self.address, keys, self.key if writes else None)
        root, table = self.master.writable_root, KnownTable(self.table)
        self.cache = self.master.cache = ResultCache(CacheMode.ON, self.results, (), root, table, settings)

    def know(self, *tools: KnownTool) -> None:
        self.cache.source = self.cache.source._replace(table=KnownTable(tools))
        assert self.cache.shared is not None
        self.cache.shared._source = self.cache.source
        texts = ELF_HEAD, b"GCC"
        self.master.fact_reader._texts[hashlib.sha256(b"gcc").digest(), texts] = frozenset(texts)

    def see_machine(self, machine: MachineFacts) -> None:
        fleet = SimpleNamespace(workers=[SimpleNamespace(machine=machine)])
        self.master.pool.fleet = fleet  # type: ignore[misc, assignment]

    async def build(self, times: int = 1) -> None:
        """Compile, and let everything be sent."""
        shared = self.cache.shared
        assert shared is not None
        for _ in range(times):
            assert await self.compile() == DONE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shared.run)
            with trio.fail_after(20):
                while shared.is_sending:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    def shared_counts(self) -> dict[str, int]:
        assert self.cache.shared is not None
        return self.cache.shared.statistics()

    @property
    def runs(self) -> tuple[int, int]:
        """Return how many jobs ran on workers, and how many results were used again."""
        return self.master.counters.remote, self.master.counters.cached


@pytest.fixture
def server() -> Iterator[RemoteCacheServer]:
    with remote_cache() as server:
        yield server


Make = Callable[..., User]


@pytest.fixture
async def make(tmp_path: Path, server: RemoteCacheServer) -> AsyncIterator[Make]:
    made: list[User] = []

    def make(*trusted: User, runs: int = 4) -> User:
        made.append(User(tmp_path, f"user{len(made)}", server, *(user.key for user in trusted), runs=runs))
        return made[-1]

    yield make
    for user in made:
        user.cache.close()


async def test_what_one_user_has_proved_another_one_gets_without_a_worker(make: Make) -> None:
    ci = make()
    await ci.build(2)
    assert ci.shared_counts()["sent"] == 1
    reader = make(ci, runs=0)
    assert await reader.compile() == DONE
    assert reader.runs == (0, 1)
    changes = [change.path for change in reader.tree.published[0]]
    assert changes == [change.path for change in ci.tree.published[0]] != []
    assert (reader.ended[-1].notes.where, reader.ended[-1].notes.miss) == (Where.CACHE, "")
    assert reader.ended[-1].notes.recalled == f"job 1 in {ci.master.root} (ci)"
    assert reader.shared_counts()["brought"] == 1
    assert await reader.compile() == DONE
    assert reader.shared_counts()["brought"] == 1, "it is in the reader's own store now"


async def test_a_known_command_is_shared_after_one_run_whatever_the_times(make: Make) -> None:
    ci, reader = make(), None
    ci.know(GCC)
    await ci.build()
    assert ci.shared_counts()["sent"] == 1
    reader = make(ci)
    reader.know(GCC)
    reader.see_machine(MachineFacts("other"))
    entries = tree()
    entries[b"p/x.c"] = msgspec.structs.replace(entries[b"p/x.c"], mtime_ns=7)
    reader.set_tree(entries)
    reader.know(GCC)
    assert await reader.compile() == DONE
    assert reader.runs == (0, 1)


async def test_a_table_that_vouches_for_it_no_more_makes_a_miss(make: Make) -> None:
    ci = make()
    ci.know(GCC)
    await ci.build()
    reader = make(ci)
    reader.know(KnownTool("gcc", "gcc", ("GCC",), lambda call: Vouch(is_blind=True), revision=2))
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["unusable-proof"]) == ((1, 0), 1)


async def test_what_was_proved_on_another_machine_is_not_used(make: Make) -> None:
    ci = make()
    await ci.build(2)
    reader = make(ci)
    reader.see_machine(MachineFacts("aarch64"))
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["unusable-ground"]) == ((1, 0), 1)


async def test_an_unproved_result_is_not_sent(make: Make, server: RemoteCacheServer) -> None:
    ci = make()
    await ci.build()
    assert not server.results


async def test_a_proof_of_one_day_holds_for_this_day(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ci = make()
    await ci.build(2)
    reader = make(ci)
    tomorrow = SimpleNamespace(time=lambda: time.time() + 86_400, monotonic=time.monotonic)
    monkeypatch.setattr(shared_cache, "time", tomorrow)
    monkeypatch.setattr(result_look_up, "time", tomorrow)
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["unusable-proof"]) == ((1, 0), 1)


async def test_a_result_that_differs_from_a_run_of_ours_refuses_its_shape(make: Make) -> None:
    ci = make()
    await ci.build(2)
    reader = make(ci, runs=0)
    reader.master.pool._scripts[:] = [(n, a_run(b"other!")) for n in range(3)]  # type: ignore[attr-defined]
    shared, reader.cache.shared = reader.cache.shared, None
    await reader.compile()  # before the store had it
    reader.cache.shared = shared
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["not-refused"]) == ((2, 0), 1)
    await reader.compile()
    assert reader.runs == (3, 0)


async def test_a_shape_that_a_writer_has_refused_is_not_used(make: Make) -> None:
    ci = make(runs=0)
    runs = (a_run(), a_run(), a_run(b"other!"))
    ci.master.pool._scripts[:] = list(enumerate(runs))  # type: ignore[attr-defined]
    await ci.build(2)
    find = ci.cache.find

    async def find_nothing(job: Job, *rest: object) -> None:
        await find(job, *rest)  # type: ignore[arg-type]
        job.notes.miss = "audit"

    ci.cache.find = find_nothing  # type: ignore[assignment, method-assign]
    await ci.build()
    assert ci.shared_counts()["sent"] == 2
    reader = make(ci)
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["refused"]) == ((1, 0), 1)


@pytest.mark.parametrize("private", ["source", "program"])
async def test_what_was_made_of_a_private_file_stays_here(make: Make, server: RemoteCacheServer, private: str) -> None:
    ci = make()
    if private == "source":
        root = ci.master.writable_root
        ci.master.writable_root = b"p"
        ci.set_tree({**tree(), b"p/x.c": file("int x;", 0o640)})
        await ci.build(2)
        ci.master.writable_root = root
    else:
        ci.tree.is_public = lambda path: path != b"bin/gcc"  # type: ignore[attr-defined]
        await ci.build(2)
    assert ci.counts()["proved"] == 1 and not server.results


@pytest.mark.parametrize(("content", "sent"), [(b"a private key", 0), (b"", 1)])
async def test_what_was_made_of_a_standard_input_stays_here(make: Make, content: bytes, sent: int) -> None:
    ci = make()
    for _ in range(2):
        await feed(ci, content)
    await ci.build(0)
    assert (ci.counts()["proved"], ci.shared_counts().get("sent", 0)) == (1, sent)


async def test_what_asked_the_machine_is_shared_only_if_the_table_knows_it(
    make: Make, server: RemoteCacheServer
) -> None:
    ci = make()
    asking = [(n, a_run(asked=b"/proc/meminfo")) for n in range(2)]
    ci.master.pool._scripts[:] = asking  # type: ignore[attr-defined]
    await ci.build(2)
    assert ci.counts()["proved"] == 1 and not server.results


async def test_what_was_proved_on_another_host_is_not_used(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ci = make()
    await ci.build(2)
    reader = make(ci)
    other = SimpleNamespace(uname=lambda: SimpleNamespace(nodename="other"))
    monkeypatch.setattr(shared_cache, "os", other)
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["unusable-ground"]) == ((1, 0), 1)


async def test_a_reader_sends_nothing(make: Make, server: RemoteCacheServer) -> None:
    ci = make()
    reader = make(ci)
    await reader.build(2)
    assert reader.counts()["proved"] == 1 and not server.results


@pytest.mark.logs("shared-store-off")
async def test_a_slow_store_costs_its_time_out_once(
    make: Make, server: RemoteCacheServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_cache, "LOOK_UP_S", 0.3)
    ci = make()
    await ci.build(2)
    reader = make(ci)
    server.answers.clear()
    begun_s = trio.current_time()
    await reader.compile()
    assert trio.current_time() - begun_s < 5
    asked = len(server.calls)
    await reader.compile()
    counts = reader.shared_counts()
    assert (reader.runs[0], counts["failed"], counts["failures"], counts["off"]) == (2, 1, 1, 1)
    assert len(server.calls) == asked
    server.answers.set()


@pytest.mark.logs("shared-store-off")
async def test_a_store_that_is_gone_costs_misses_and_is_asked_again_later(
    make: Make, server: RemoteCacheServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ci = make()
    await ci.build(2)
    server.stop()
    reader = make(ci)
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["failures"]) == ((1, 0), 1)
    server.start()
    assert reader.cache.shared is not None
    reader.cache.shared._breaker._off_until_s = 0.0  # half a minute later
    with trio.fail_after(20):
        while reader.shared_counts().get("brought", 0) == 0:
            reader.cache.shared._breaker._off_until_s = 0.0
            await reader.cache.shared.bring(reader.weak, reader.tree, reader.master.fact_reader, {MACHINE})  # type: ignore[arg-type]
            await trio.sleep(0.05)
    assert await reader.compile() == DONE
    assert reader.runs == (1, 1)


@pytest.mark.logs("shared-result-unfit")
async def test_a_store_that_lies_costs_misses(make: Make, server: RemoteCacheServer) -> None:
    ci = make()
    await ci.build(2)
    for name, blob in server.blobs.items():
        server.blobs[name] = blob[:-1] + b"!" if blob else b""
    reader = make(ci)
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["unfit"]) == ((1, 0), 1)


@pytest.mark.logs("shared-record-refused")
async def test_a_writer_whom_nobody_trusts_is_a_miss(make: Make) -> None:
    ci, other = make(), make()
    await ci.build(2)
    reader = make(other)
    await reader.compile()
    assert (reader.runs, reader.shared_counts()["distrusted-writer"]) == ((1, 0), 1)


@pytest.mark.logs("shared-store-refuses")
async def test_a_store_that_takes_nothing_is_left_alone(make: Make, server: RemoteCacheServer) -> None:
    ci = make()
    server.refuses = True
    await ci.build(2)
    calls = len(server.calls)
    ci.set_tree(tree("int y;"))
    await ci.build(2)
    assert "UpdateActionResult" not in server.calls[calls:] and "BatchUpdateBlobs" not in server.calls[calls:]
    assert ci.shared_counts()["not-sent"] == 2


async def test_what_waits_at_the_end_is_sent(make: Make, server: RemoteCacheServer) -> None:
    ci = make()
    for _ in range(2):
        assert await ci.compile() == DONE
    assert not server.results
    ci.cache.close()
    assert len(server.results) == 2
    ci.open()


@pytest.mark.logs("result-cache-failed")
async def test_an_error_of_ours_makes_no_job_fail(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ci = make()
    await ci.build(2)
    reader = make(ci)

    def fail(*args: object) -> object:
        raise ValueError("an error of ours")

    monkeypatch.setattr(shared_cache, "find_obstacle", fail)
    assert await reader.compile() == DONE
    assert reader.runs == (1, 0)
