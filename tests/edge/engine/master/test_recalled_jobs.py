"""Answer jobs with stored results: launchers are real, the tree and the workers are fakes."""

import hashlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import pytest
import trio
import trio.testing

from termite.engine.decide.known_tools import KnownTool, Vouch
from termite.engine.errors import Conflict, FsError, HalfPublished, Reason, ResultRefused
from termite.engine.history.logic.job_record import Where
from termite.engine.master.job import Job
from termite.engine.master.reuse import ended_jobs, result_cache, result_look_up, run_observer, twin_jobs
from termite.engine.model import Attr, BaseVersion, CacheMode, Exit
from termite.engine.recall.known.known_table import KnownTable
from termite.engine.recall.logic.interpreters import ELF_HEAD
from termite.engine.recall.logic.traced_paths import AccessKind
from termite.engine.recall.look_up import evidence
from termite.engine.recall.look_up.fingerprints import FORMAT
from termite.engine.recall.look_up.stored_rows import LastRun, unpack_value
from termite.engine.wire.protocol.messages import Ran, Run
from termite.fuse.view.trace_names import TraceNames
from tests.edge.engine.master.test_run_job import CONTENT, Script, World, ran
from tests.unit.engine.recall.recall_trees import directory, file, tree_of
from tests.unit.fuse.view.test_trace_names import noted

READ, EXEC = (kind | AccessKind.FOLLOW for kind in (AccessKind.READ, AccessKind.EXEC))
WRITES = AccessKind.CREATE | AccessKind.TRUNC | AccessKind.FOLLOW
STREAMS = {"stdin": b"null", "out": b"null", "err": b"null"}
DONE = [(b"1", b"out"), (b"2", b"err"), (b"1", b"more"), (b"E", b"code=0\0")]
OUTPUT = tuple(b"1out 2err 1more".split())


def tree(source: str = "int x;") -> dict[bytes, Attr]:
    return {b"bin": directory(), b"bin/gcc": file("gcc", 0o755), b"p": directory(), b"p/x.c": file(source)}


def traced(end: Ran, *, is_disturbed: bool = False) -> Script:
    """Return a run of `gcc -c x.c`, whose trace tells of the compiler and the source."""

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        for chunk in OUTPUT:
            await on_chunk(chunk)
        uses = [(b"/bin/gcc", EXEC, EXEC), (b"/p/x.c", READ, READ), (b"/p/x.o", WRITES, WRITES)]
        trace = TraceNames().pack(noted(uses), 3, 0) if message.trace and not is_disturbed else None
        now = time.time_ns()
        return msgspec.structs.replace(end, trace=trace, started_ns=now, ended_ns=now + 1)

    return run


class CachingWorld(World):
    """A master with a cache, whose time of proof is none."""

    def __init__(self, tmp_path: Path, *scripts: Script, mode: CacheMode = CacheMode.ON) -> None:
        super().__init__(tmp_path, *scripts, cache=mode)
        self.set_tree(tree())
        self.results = tmp_path / "results"
        self.weak = b""
        self.contents: list[Mapping[bytes, object]] = []
        publish = self.tree.publish

        async def note(changes: object, contents: Mapping[bytes, object], *rest: object) -> object:
            self.contents.append(contents)
            return await publish(changes, contents, *rest)  # type: ignore[arg-type]

        self.tree.publish = note  # type: ignore[assignment, method-assign]

    def set_tree(self, entries: dict[bytes, Attr]) -> None:
        self.tree.attrs = tree_of(entries)
        self.master.fact_reader.__init__(self.tree)  # type: ignore[misc]
        self.master.fact_reader._interpreters = {hashlib.sha256(b"gcc").digest(): b""}

    async def compile(self, *, env: str = "C", out: bytes = b"null") -> list[tuple[bytes, bytes]]:
        """Let a launcher compile x.c, and wait until the result is stored."""
        async with self.launcher("gcc", "-c", "x.c", fields={**STREAMS, "out": out}, LANG=env) as launched:
            told = await launched.rest()
        if (cache := self.master.cache) is not None:
            for weak in cache._write():
                self.weak = weak
                cache.twins.end(weak)
        return told

    def counts(self) -> dict[str, int]:
        assert self.master.cache is not None
        return self.master.cache.statistics()

    def obstacle(self) -> str:
        """Return why the last run was not stored."""
        database = sqlite3.connect(self.results / f"index-{FORMAT}-1.db")
        (packed,) = database.execute("SELECT packed FROM last_runs ORDER BY used DESC").fetchone()
        database.close()
        last = unpack_value(packed, LastRun)
        assert last is not None
        return last.obstacle


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "APART_S", 0.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CachingWorld]:
    world = CachingWorld(tmp_path, *(traced(ran()) for _ in range(4)))
    yield world
    assert world.master.cache is not None
    world.master.cache.close()


async def test_a_proved_result_comes_home_without_a_worker_with_its_output_in_order(world: CachingWorld) -> None:
    ended: list[Job] = []
    world.master.recorder.finish = ended.append  # type: ignore[assignment, method-assign]
    for _ in range(3):
        assert await world.compile() == DONE
    assert world.steps.count("published") == 3
    assert [step for step in world.steps if step.startswith("run")] == ["run on w0", "run on w1"]
    (first, _, recalled) = world.tree.published
    assert recalled == tuple(msgspec.structs.replace(change, base=BaseVersion(-1)) for change in first)
    assert (world.master.counters.remote, world.master.counters.cached) == (2, 1)
    notes = ended[-1].notes
    assert ended[-1].number is None, "the journal keeps nothing for it"
    assert (notes.where, notes.exit, notes.recalled) == (Where.CACHE, Exit(0), f"job 1 in {world.master.root}")
    assert world.counts() == {
        "miss-never": 1,
        "miss-shape": 1,
        "stored": 1,
        "proved": 1,
        "hits": 1,
        "waiting": 0,
    }


async def test_a_proof_of_one_day_holds_for_this_day(world: CachingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        await world.compile()
    tomorrow = SimpleNamespace(time=lambda: time.time() + 86_400)
    with monkeypatch.context() as later:
        later.setattr(result_look_up, "time", tomorrow)
        await world.compile()
    assert (world.master.counters.cached, world.master.counters.remote) == (0, 3)
    await world.compile()
    assert world.master.counters.cached == 1


async def test_a_source_with_the_date_is_not_stored(world: CachingWorld) -> None:
    cache = world.master.cache
    assert cache is not None
    tool = KnownTool("gcc", "gcc", ("GCC",), lambda call: Vouch(unwanted_texts=("__DATE__",)))
    cache.source = cache.source._replace(table=KnownTable([tool]))
    searched = {b"gcc": (ELF_HEAD, b"GCC"), b"int x;": (b"__DATE__",)}
    for content, texts in searched.items():
        world.master.fact_reader._texts[hashlib.sha256(content).digest(), texts] = frozenset(texts)
    await world.compile()
    assert (world.counts()["not-stored"], world.obstacle()) == (1, "clock")


@pytest.mark.logs("job-fell-back")
async def test_a_command_that_depends_on_owners_runs_if_the_tree_has_several(world: CachingWorld) -> None:
    for _ in range(2):
        await world.compile()
    find = world.master.cache.find  # type: ignore[union-attr]

    async def find_owner(*args: object) -> object:  # the tree is read on demand
        found = await find(*args)  # type: ignore[arg-type]
        world.tree.notes.is_mixed = True
        world.master.depends_on_owners = lambda command: True  # type: ignore[method-assign]
        return found

    world.master.cache.find = find_owner  # type: ignore[union-attr, method-assign]
    await world.compile()
    assert world.master.counters.cached == 0
    assert world.master.counters.misses["owners"] == 1


async def test_another_content_or_variable_is_no_hit(world: CachingWorld) -> None:
    for _ in range(2):
        await world.compile()
    assert world.counts()["proved"] == 1
    world.set_tree(tree("int y;"))
    await world.compile()
    world.set_tree(tree())
    await world.compile(env="de")
    assert world.master.counters.cached == 0
    await world.compile()
    assert world.master.counters.cached == 1


async def test_a_known_tool_needs_one_run_only_if_the_table_vouches_for_its_words(world: CachingWorld) -> None:
    cache = world.master.cache
    assert cache is not None
    refused: list[str] = []
    tool = KnownTool("gcc", "gcc", ("GCC",), lambda call: refused[0] if refused else Vouch(), asks=())
    cache.source = cache.source._replace(table=KnownTable([tool]))
    texts = ELF_HEAD, b"GCC"
    world.master.fact_reader._texts[hashlib.sha256(b"gcc").digest(), texts] = frozenset(texts)
    for _ in range(2):
        assert await world.compile() == DONE
    assert (world.master.counters.remote, world.master.counters.cached) == (1, 1)
    refused.append("not with these words")
    world.set_tree(tree("int y;"))
    world.master.fact_reader._texts[hashlib.sha256(b"gcc").digest(), texts] = frozenset(texts)
    for _ in range(2):
        await world.compile()
    assert (world.master.counters.remote, world.master.counters.cached) == (3, 1)
    rows = cache.store.rows(world.weak).results
    assert {bool(row.known): row.shape for row in rows}[False] != {bool(row.known): row.shape for row in rows}[True]


async def test_a_command_of_make_gets_no_pipe_in_place_of_a_standard_input_without_anything(tmp_path: Path) -> None:
    seen: list[bool] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        seen.append(message.stdin_ended)
        return await traced(ran())(message, on_chunk)

    world = CachingWorld(tmp_path, *[run] * 4)
    cache = world.master.cache
    assert cache is not None
    for stdin, variable in ((b"null", "MAKELEVEL"), (b"ended", "MAKELEVEL"), (b"null", "LANG"), (b"ended", "LANG")):
        fields = {**STREAMS, "stdin": stdin}
        async with world.launcher("gcc", "-c", "x.c", fields=fields, pid=None, **{variable: "1"}) as launched:
            assert await launched.rest() == DONE
        cache._write()
    assert seen == [False, False, False, True]
    cache.close()


@pytest.mark.parametrize("error", [lambda: Conflict((b"p/x.o",), ()), lambda: FsError(28)])
async def test_a_result_that_cannot_be_published_is_a_miss(world: CachingWorld, error: Callable[[], Exception]) -> None:
    for _ in range(2):
        await world.compile()
    publish, errors = world.tree.publish, [error()]

    async def refuse(*args: object) -> object:
        if errors:
            raise errors.pop()
        return await publish(*args)  # type: ignore[arg-type]

    world.tree.publish = refuse  # type: ignore[assignment, method-assign]
    assert await world.compile() == DONE
    assert (world.master.counters.cached, world.master.counters.remote) == (0, 3)


async def test_a_result_that_cannot_be_published_shows_nothing(world: CachingWorld) -> None:
    publish, errors = world.tree.publish, [FsError(28)]

    async def other(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1other")
        return ran()

    async def refuse(*args: object) -> object:
        if errors:
            raise errors.pop()
        return await publish(*args)  # type: ignore[arg-type]

    world.master.pool._scripts[2] = 2, other  # type: ignore[attr-defined]
    for _ in range(2):
        await world.compile(out=b"tty")
    world.tree.publish = refuse  # type: ignore[assignment, method-assign]
    assert await world.compile(out=b"tty") == [(b"1", b"other"), DONE[-1]]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (lambda: Conflict((b"p/x.o",), ()), f"{Reason.CONFLICT.words}: '/p/x.o'"),
        (lambda: ResultRefused(Reason.TREE_GONE, ()), Reason.TREE_GONE.words),
        (lambda: ResultRefused(Reason.TEMPORARY_TAKEN, ["/tmp/a"]), f"{Reason.TEMPORARY_TAKEN.words}: /tmp/a"),
        (lambda: FsError(28), f"{Reason.NOT_PUBLISHED.words}: No space left on device"),
    ],
)
@pytest.mark.logs("job-fell-back")
async def test_the_reason_of_a_result_whose_output_was_shown_is_said_once(
    world: CachingWorld, error: Callable[[], Exception], text: str
) -> None:
    async def other(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1other")
        return ran()

    async def show_and_refuse(*args: object) -> object:
        (job,) = world.master.jobs.values()
        await job.output.flush()
        raise error()  # a new one: its traceback keeps the job in memory

    for _ in range(2):
        await world.compile()
    world.master.pool._scripts[0] = 2, other  # type: ignore[attr-defined]
    world.tree.publish = show_and_refuse  # type: ignore[assignment, method-assign]
    told = await world.compile(out=b"file")
    assert told[-1] == (b"E", b"code=101\0")
    notice = next(content for kind, content in told if kind == b"N").decode()
    assert notice.startswith(f"termite: {text}; the command ran again")


@pytest.mark.logs("result-cache-failed")
@pytest.mark.parametrize(
    ("module", "name"),
    [(result_cache, "look_up"), (run_observer, "find_dependencies"), (ended_jobs, "ended_run")],
)
async def test_an_error_of_the_cache_makes_no_job_fail_or_run_twice(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    def fail(*args: object) -> object:
        raise ValueError("an error of ours")

    monkeypatch.setattr(module, name, fail)
    for _ in range(2):
        assert await world.compile() == DONE
    assert (world.master.counters.cached, world.master.counters.remote) == (0, 2)
    assert world.steps.count("published") == 2


async def test_half_a_result_fails_the_job_and_nothing_runs(world: CachingWorld) -> None:
    for _ in range(2):
        await world.compile()
    world.tree.half = HalfPublished(("x.o is not written",))
    *_, end = await world.compile()
    assert end == (b"E", b"code=101\0")
    assert world.master.counters.remote == 2


@pytest.mark.logs("store-blob-bad")
@pytest.mark.parametrize("damage", [lambda blob: blob.write_bytes(b"objecT"), lambda blob: blob.write_bytes(b"")])
async def test_a_damaged_content_is_a_miss_and_is_stored_anew(
    world: CachingWorld, damage: Callable[[Path], object]
) -> None:
    for _ in range(2):
        await world.compile()
    name = hashlib.sha256(CONTENT).hexdigest()
    blob = world.results / "cas" / name[:2] / name[2:]
    marked = blob.stat()
    blob.chmod(0o600)
    damage(blob)
    if blob.exists() and blob.stat().st_size == len(CONTENT):  # as on a failing disk, of which no time tells
        os.utime(blob, ns=(marked.st_mtime_ns, marked.st_mtime_ns))
    for _ in range(2):
        assert await world.compile() == DONE
    assert (world.master.counters.cached, world.master.counters.remote) == (1, 3)
    assert world.contents == [{hashlib.sha256(CONTENT).digest(): CONTENT}] * 4


@pytest.mark.parametrize(
    ("end", "obstacle"),
    [
        (ran(3), "exit"),
        (ran(0, 9), "exit"),
        (msgspec.structs.replace(ran(), timed_out=True), "exit"),
        (msgspec.structs.replace(ran(), dropped=(b"socket",)), "dropped"),
    ],
)
async def test_what_failed_or_left_something_on_the_worker_is_not_stored(
    tmp_path: Path, end: Ran, obstacle: str
) -> None:
    in_tree = tuple(bytes(tmp_path / os.fsdecode(name)).strip(b"/") for name in end.dropped)
    end = msgspec.structs.replace(end, dropped=in_tree)
    world = CachingWorld(tmp_path, traced(end), traced(ran()))
    await world.compile()
    assert world.counts() == {"miss-never": 1, "not-stored": 1, "waiting": 0}
    assert world.obstacle() == obstacle


async def test_the_name_of_a_tree_may_be_no_utf_8(world: CachingWorld) -> None:
    world.master.root = "/\udcff"
    for _ in range(2):
        await world.compile()
    assert world.counts()["stored"] == 1


async def test_a_run_without_a_trace_is_not_stored(tmp_path: Path) -> None:
    world = CachingWorld(tmp_path, traced(ran(), is_disturbed=True))
    await world.compile()
    assert (world.counts()["not-stored"], world.obstacle()) == (1, "gap")


async def test_a_cache_that_is_only_read_stores_nothing(tmp_path: Path, world: CachingWorld) -> None:
    for _ in range(2):
        await world.compile()
    reader = CachingWorld(tmp_path, traced(ran()), mode=CacheMode.READ)
    assert await reader.compile() == DONE
    assert await reader.compile(env="de") == DONE
    assert (reader.master.counters.cached, reader.master.counters.remote) == (1, 1)
    assert reader.counts() == {"hits": 1, "miss-variable": 1, "waiting": 0}


async def test_a_rule_may_forbid_to_store_results(tmp_path: Path) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "gcc", "Cache": false}]')
    world = CachingWorld(tmp_path, *(traced(ran()) for _ in range(3)))
    for _ in range(3):
        await world.compile()
    assert (world.master.counters.remote, world.counts()) == (3, {"waiting": 0})


@pytest.mark.parametrize("mode", CacheMode)
async def test_a_rule_may_name_variables_that_no_job_gets(tmp_path: Path, mode: CacheMode) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "gcc", "IgnoreEnv": ["LAN?"]}]')
    sent: list[Run] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        sent.append(message)
        return await traced(ran())(message, on_chunk)

    world = CachingWorld(tmp_path, run, run, run, mode=mode)
    for value in ("a", "b", "c"):
        assert await world.compile(env=value) == DONE
    assert not any(word.startswith(b"LANG=") for message in sent for word in message.env)
    assert world.master.counters.cached == (1 if mode is CacheMode.ON else 0)


async def test_the_second_of_two_equal_commands_waits_for_the_first_if_their_shape_is_proved(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "PROOFS_OF_SHAPE", 1)
    begun, go_on = trio.Event(), trio.Event()

    async def blocked(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        begun.set()
        await go_on.wait()
        return await traced(ran())(message, on_chunk)

    scripts = world.master.pool._scripts  # type: ignore[attr-defined]
    scripts[2] = 2, blocked
    for _ in range(2):
        await world.compile()
    world.set_tree(tree("int y;"))
    cache = world.master.cache
    assert cache is not None
    told: list[list[tuple[bytes, bytes]]] = []

    async def compile() -> None:
        async with world.launcher("gcc", "-c", "x.c", fields=STREAMS, LANG="C") as launched:
            told.append(await launched.rest())

    monkeypatch.setattr(twin_jobs, "_expected_s", lambda rows, store: 60.0 if rows.results else 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        async with trio.open_nursery() as launchers:
            launchers.start_soon(compile)
            await begun.wait()
            launchers.start_soon(compile)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert world.steps.count("run on w2") == 1 and "run on w3" not in world.steps
            go_on.set()
        nursery.cancel_scope.cancel()
    assert told == [DONE, DONE]
    assert (world.master.counters.remote, world.master.counters.cached) == (3, 1)


async def test_nobody_waits_longer_than_the_command_took_before_nor_without_a_proof(world: CachingWorld) -> None:
    cache = world.master.cache
    assert cache is not None
    with cache.twins.running(b"weak"):
        with trio.fail_after(1):
            assert not await cache.twins.wait_for(b"weak", cache.source), "there is no proof"
            assert not await cache.twins.wait_for(b"other", cache.source)
    assert not await cache.twins.wait_for(b"weak", cache.source)


async def test_one_hit_of_many_is_executed_and_compared(world: CachingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "AUDIT_EVERY", 2)
    lease = SimpleNamespace(is_open=True, running=0, slots=1)
    world.master.pool.leases = (lease,)  # type: ignore[misc, assignment]
    for _ in range(4):
        assert await world.compile() == DONE
    assert (world.master.counters.remote, world.master.counters.cached) == (3, 1)
    assert (world.counts()["audits"], world.counts()["proved"]) == (1, 2)
    lease.running = 1
    for _ in range(3):
        await world.compile()
    assert (world.master.counters.remote, world.master.counters.cached) == (3, 4), "no slot is idle"


async def test_results_are_stored_by_a_task_of_their_own(world: CachingWorld) -> None:
    assert world.master.cache is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.master.cache.run)
        async with world.launcher("gcc", "-c", "x.c", fields=STREAMS) as launched:
            await launched.rest()
        with trio.fail_after(10):
            while "stored" not in world.counts():  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.logs("result-queue-failed")
async def test_a_result_that_cannot_be_stored_frees_its_memory_and_wakes_its_twins(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.master.cache
    assert cache is not None
    seen: list[int] = []

    def fail(*args: object) -> object:
        seen.append(cache._waiting_bytes)
        raise ValueError("an error of ours")

    async with world.launcher("gcc", "-c", "x.c", fields=STREAMS) as launched:
        await launched.rest()
    (run,) = cache._waiting
    held_bytes = cache._waiting_bytes
    assert held_bytes > 0
    monkeypatch.setattr(result_cache, "keep_run", fail)
    with cache.twins.running(run.weak):
        cache.twins.keep(run.weak)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            with trio.fail_after(10):
                while cache._waiting_bytes:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert run.weak not in cache.twins._running
    assert seen == [held_bytes], "the thread does not count"


async def test_the_end_of_a_master_waits_for_no_long_queue(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.master.cache
    assert cache is not None
    async with world.launcher("gcc", "-c", "x.c", fields=STREAMS) as launched:
        await launched.rest()
    kept: list[object] = []
    monkeypatch.setattr(result_cache, "keep_run", lambda *args: kept.append(args))
    assert cache._write(time.monotonic()) == [] and not kept
    assert (cache.statistics()["waiting"], cache._waiting_bytes > 0) == (1, True), "it waits again"
    monkeypatch.undo()
    assert len(cache._write()) == 1
    assert cache._waiting_bytes == 0


@pytest.mark.logs("results-not-opened")
async def test_a_store_that_cannot_be_opened_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no directory")
    world = World(tmp_path, traced(ran()), cache=CacheMode.ON)
    assert world.master.cache is None
    assert (await world.say("gcc"))[-1] == (b"E", b"code=0\0")
