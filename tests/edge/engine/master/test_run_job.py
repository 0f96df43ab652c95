"""Test one job in the master, with a launcher at the other end of a real socket.

The tree and the pool are fakes.
"""

import gc
import hashlib
import math
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import msgspec
import pytest
import trio
import trio.testing

from termite.engine.decide.command_memory import CommandMemory
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.decide.refused_commands import TRIES, RefusalMemory
from termite.engine.decide.short_commands import MIN_SAMPLES, ShortCommands
from termite.engine.errors import (
    Conflict,
    FsError,
    HalfPublished,
    NotAtRest,
    Outdated,
    Reason,
    RemoteProtocolError,
    ResultRefused,
    Retryable,
)
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.fleet.pool import OUTDATED_CHANGES, NoWorker, Pool
from termite.engine.history.logic.job_record import Where, Why
from termite.engine.history.logic.live_events import Event, JobSent
from termite.engine.launch import connection as launcher_module
from termite.engine.launch.connection import LauncherGone
from termite.engine.launch.job_stdin import JobStdin
from termite.engine.launch.listener import LauncherListener
from termite.engine.launch.local_runs import LocalSlots
from termite.engine.launch.output import HELD_BYTES, HOLD_S, JobOutput
from termite.engine.launch.vantage import own_vantage
from termite.engine.loop.slot_numbers import SlotNumbers
from termite.engine.master import run_job
from termite.engine.master.control_commands import ControlCommands, Sessions
from termite.engine.master.fallback import run_here_instead
from termite.engine.master.job import MAX_ATTEMPTS, Job
from termite.engine.master.recording.record_keeper import PAUSE_S
from termite.engine.master.remote_runs.sent_contents import SENT_ALONG_FILES, SENT_ALONG_NEAR_BYTES
from termite.engine.master.remote_runs.settled_check import SettledCheck
from termite.engine.master.run_job import JobRunner
from termite.engine.master.shared import Master, MasterConfig
from termite.engine.model import (
    Attr,
    CacheMode,
    Change,
    Changeset,
    Command,
    Digest,
    Exit,
    MachineFacts,
    StdinFile,
    TraceMode,
    Usage,
)
from termite.engine.status.report import PathEvent
from termite.engine.tree.logic.attrs import AttrTree, Seen
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing.publication import Published, Ticket
from termite.engine.tree.tools.code_links import CodeLinks
from termite.engine.tree.tools.fresh_names import FreshNames
from termite.engine.tree.tools.tool_homes import ToolPlace
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields, pack_numbers
from termite.engine.wire.protocol.messages import Ran, Run

CONTENT = b"object"
CHANGE = Change(b"p/x.o", Attr(0o100644, 6, 1, Digest(hashlib.sha256(CONTENT).digest(), 6)))

# The vantage of a launcher that works on the master's machine, in the root directory.
VANTAGE = own_vantage("/")
SEEN = {name: getattr(VANTAGE, name).encode() for name in VANTAGE.__slots__}
INVOKED = [("v", b"6"), ("how", b"direct"), ("cwd", b"/"), *SEEN.items()]


def ran(code: int = 0, signal: int = 0, changes: tuple[Change, ...] = (CHANGE,), exec_errno: int = 0) -> Ran:
    inline = {CHANGE.attr.digest.sha256: CONTENT} if changes and CHANGE.attr and CHANGE.attr.digest else {}
    return Ran(Exit(code, signal), Usage(requests=7), changes, inline, 1, 2, exec_errno=exec_errno)


def ran_without_contents() -> Ran:
    """Return an answer whose content must be fetched."""
    return msgspec.structs.replace(ran(), inline={})


class FakeWriter:
    """A staged file that nobody keeps."""

    def write(self, chunk: bytes | memoryview) -> None:
        raise AssertionError(chunk)

    def discard(self) -> None:
        pass


class Lines(list[str]):
    """Stands for the note of lost results."""

    def take(self) -> str:
        return self.pop(0)


class FakeTree:
    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.number = 5
        self.fifos = 0
        self.is_finishing = False
        self.discarded = Lines()
        self.misses_changes = False
        self.notes = SimpleNamespace(
            is_mixed=False, seals=0, turns=0, code_links=CodeLinks(b"nowhere"), fresh=FreshNames(0)
        )
        self.temporary = (b"tmp",)
        self.attrs = AttrTree(Seen(Attr(0o040755, 0, 1)))
        self.results: dict[bytes, int] = {}
        self.named: list[tuple[tuple[bytes, ...], bytes, tuple[bytes, ...]]] = []
        self.shown: list[bytes] = []
        self.half: HalfPublished | None = None
        self.breaks: Exception | None = None  # after the plan was written, and before all was done
        self.breach: RemoteProtocolError | None = None  # of the worker, which the publication finds once
        self.published: list[Sequence[Change]] = []
        self.refuses = 0
        self.behind: list[int] = []  # how many changes a mirror has not heard of, at each dispatch
        self.limits: list[tuple[int, int, int]] = []

    def show_tools(
        self, tools: Collection[ToolPlace], directories: Collection[bytes], links: Collection[bytes] = ()
    ) -> None:
        self.shown += [*(tool.path for tool in tools), *directories, *links]

    def may_have(self, path: bytes) -> bool:
        return False

    def drain(self) -> int:
        self.steps.append("drain")
        return self.number

    async def recheck_settled(self) -> int:
        return self.number

    def show_named(self, argv: tuple[bytes, ...], cwd: bytes, environment: tuple[bytes, ...]) -> None:
        self.named.append((argv, cwd, environment))

    def free_bytes(self) -> int:
        return 1 << 30

    def staging_file(self) -> FakeWriter:
        return FakeWriter()

    def find_private(self, path: bytes, *, is_spelled: bool = True, listed: bytes = b"") -> bytes:
        return b"" if not path.startswith(b"home/u/private") else b"home/u/private"

    def now_ns(self) -> int:
        return 1

    def changesets_since(self, cursor: int) -> tuple[Changeset, ...]:
        return (Changeset(self.number, (CHANGE,) * self.behind.pop(0)),) if self.behind else ()

    def contents_since(self, number: int, most_bytes: int, total_bytes: int, most_files: int) -> dict[bytes, bytes]:
        self.limits.append((most_bytes, total_bytes, most_files))
        return {}

    def result_number(self, path: bytes) -> int:
        return self.results.get(path, 0)

    def statistics(self) -> dict[str, int]:
        return {}

    def hold(self, paths: Collection[bytes]) -> Callable[[], None]:
        return lambda: None

    async def finished(self) -> None:
        self.steps.append("finished")

    async def publish(
        self, changes: Sequence[Change], contents: Mapping[bytes, bytes | Path], timing: Timing, ticket: Ticket
    ) -> Published:
        await trio.lowlevel.checkpoint()
        if self.breach:
            breach, self.breach = self.breach, None
            raise breach
        if self.refuses:
            raise FsError(self.refuses)
        if self.half:
            raise self.half
        ticket.has_happened = True
        if self.breaks is not None:
            raise self.breaks
        ticket.is_complete = True
        self.published.append(changes)
        self.steps.append("published")
        return Published(self.number, ())


Script = Callable[[Run, Callable[[bytes], Awaitable[None]]], Awaitable[Ran]]


class FakeLease:
    def __init__(self, worker: str, script: Script, steps: list[str]) -> None:
        self.worker, self.cursor, self.sent_number, self.offset_ns = worker, 0, 0, 0
        self.is_near = True
        self.newest_seal, self.known_turns = 0, None
        self.machine = MachineFacts()
        self.slot_numbers = SlotNumbers()
        self.traced_names = LearntNames()
        self._script, self._steps = script, steps

    def take_traffic(self) -> tuple[int, int, int]:
        return 300, 200, 1

    async def fetch(self, digest: Digest, on_chunk: Callable[[bytes], Awaitable[None]]) -> None:
        await on_chunk(b"a chunk of no kind")

    async def run(
        self, message: Run, on_chunk: Callable[[bytes], Awaitable[None]], on_posted: Callable[[], None] | None = None
    ) -> Ran:
        self._steps.append(f"run on {self.worker}")
        ran = await self._script(message, on_chunk)
        if ran.trace is not None:
            self.traced_names.learn(ran.trace)
        return ran


class FakePool:
    """A pool with one script and one worker for each attempt, and then without workers."""

    leases: tuple[Lease, ...] = ()
    waiting = 0
    is_one = False  # all attempts are made on one worker

    def __init__(self, scripts: Sequence[Script], steps: list[str]) -> None:
        self._scripts = list(enumerate(scripts))
        self._steps = steps

    @asynccontextmanager
    async def slot(self, avoid: Collection[str] = (), unfit: Collection[str] = ()) -> AsyncIterator[FakeLease]:
        await trio.lowlevel.checkpoint()
        if not self._scripts:
            raise NoWorker("none is registered")
        number, script = self._scripts.pop(0)
        number = 0 if self.is_one else number
        yield FakeLease(f"w{number}", script, self._steps)

    def failed(self, lease: FakeLease, error: Retryable) -> None:
        self._steps.append(f"failed {lease.worker}")

    def succeeded(self, lease: FakeLease) -> None:
        pass

    def oldest_cursor(self) -> int | None:
        return None

    def retire(self, lease: FakeLease) -> None:
        self._steps.append(f"retired {lease.worker}")


@contextmanager
def a_process(pid: int | None = None) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a process, and let each launcher that is made meanwhile have its pid."""
    with (
        subprocess.Popen(["sleep", "60"]) as process,
        patch.object(launcher_module, "_peer_pid", return_value=process.pid if pid is None else pid),
    ):
        yield process


HERE = b"termite: 1 command runs on this machine: "


def lost_worker() -> Retryable:
    return Retryable(Reason.CONNECTION_LOST, "lost")


class World:
    """A master without workers of its own, to which tests talk as launchers do."""

    def __init__(self, tmp_path: Path, *scripts: Script, cache: CacheMode = CacheMode.OFF) -> None:
        self.steps: list[str] = []
        self.tree = FakeTree(self.steps)
        plugins = Plugins(("termite.plugins.make", "termite.plugins.caches"))
        config = MasterConfig(
            tmp_path / ".termite-socket",
            ("localhost", 1),
            b"x" * 32,
            plugins,
            cache=cache,
            results=tmp_path / "results",
        )
        self.master = Master(config, cast(MasterTree, self.tree))
        self.runner = JobRunner(self.master)
        self.master.pool = cast(Pool, FakePool(scripts, self.steps))
        self._hearing = trio.Lock()
        self._launchers = 0
        self.readers: trio.Nursery

    async def _hear(self) -> None:
        async with self._hearing, trio.open_nursery() as nursery:  # one launcher at a time, for all of them
            nursery.start_soon(self.master.fd_watcher.run)
            nursery.start_soon(self.master.held_outputs.run)

    async def until_no_slot_is_taken(self) -> None:
        """Wait until every process that has a slot has ended."""
        slots = self.master.local_runs.slots
        with trio.fail_after(10):
            for pid in range(slots.count):
                await slots.take(-1 - pid)
        for pid in range(slots.count):
            slots.give_back(-1 - pid)

    def launchers(self) -> LauncherListener:
        control = ControlCommands(self.master, Sessions(lambda: None))
        return LauncherListener(self.runner, control.session, self.master.fd_watcher)

    def let_in(self, connection: socket.socket) -> None:
        """Serve a connection as the listener does, in a callback of the watcher."""
        launchers, door = self.launchers(), os.eventfd(1)

        def meet() -> None:
            self.master.fd_watcher.unwatch(door)
            os.close(door)
            launchers.serve_connection(connection)

        self.master.fd_watcher.watch(door, meet)

    @asynccontextmanager
    async def launcher(
        self, *argv: str, fields: Mapping[str, bytes] | None = None, pid: int | None = None, **env: str
    ) -> AsyncIterator["Launched"]:
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with trio.open_nursery() as ears:
            ears.start_soon(self._hear)
            self._launchers += 1
            with a_process(pid) as process:
                async with stream:
                    launched = Launched(stream, process)
                    said = [*{**dict(INVOKED), "umask": b"022", **(fields or {"stdin": b"read"})}.items()]
                    said += [("arg", os.fsencode(word)) for word in argv]
                    said += [("env", os.fsencode(f"{name}={text}")) for name, text in env.items()]
                    await launched.send(launcher_frames.INVOKE, pack_fields(said))
                    self.let_in(theirs)
                    try:
                        yield launched
                    finally:
                        process.kill()
            self._launchers -= 1
            await trio.lowlevel.checkpoint()
            while self._launchers and self._hearing.statistics().owner in ears.child_tasks:  # noqa: ASYNC110
                await trio.sleep(0.01)  # the others' jobs run in those tasks
            ears.cancel_scope.cancel()

    async def say(self, *argv: str, **env: str) -> list[tuple[bytes, bytes]]:
        """Run this command, and return all frames that its launcher receives."""
        async with self.launcher(*argv, fields=None, pid=None, **env) as launched:
            return await launched.rest()


class Launched:
    def __init__(self, stream: trio.SocketStream, process: "subprocess.Popen[bytes]") -> None:
        self._stream = stream
        self._process = process
        self._frames = launcher_frames.FrameBuffer()

    async def send(self, kind: bytes, payload: bytes = b"") -> None:
        await self._stream.send_all(launcher_frames.frame(kind, payload))

    def end_command(self) -> None:
        """End the process that was the launcher and then became the command."""
        self._process.kill()

    def reap(self) -> None:
        self._process.wait()

    async def vanish(self) -> None:
        await self._stream.aclose()

    async def frames(self) -> list[tuple[bytes, bytes]] | None:
        received = await self._stream.receive_some()
        return self._frames.feed(bytes(received)) if received else None

    async def first(self, count: int) -> list[tuple[bytes, bytes]]:
        """Wait for at least `count` frames, in whatever pieces they arrive."""
        told: list[tuple[bytes, bytes]] = []
        while len(told) < count and (frames := await self.frames()) is not None:
            told += frames
        return told

    async def rest(self) -> list[tuple[bytes, bytes]]:
        told: list[tuple[bytes, bytes]] = []
        while (frames := await self.frames()) is not None:
            told += frames
            if any(kind in (launcher_frames.EXIT, launcher_frames.EXEC) for kind, _ in frames):
                break
        return told


def script(*output: bytes, end: Ran | Exception) -> Script:
    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        for chunk in output:
            await on_chunk(chunk)
        if isinstance(end, Exception):
            raise end
        return end

    return run


async def test_the_exit_code_leaves_only_after_every_output_is_home(tmp_path: Path) -> None:
    world = World(tmp_path, script(b"1out", b"2err", end=ran(3)))
    told = await world.say("gcc", "-c", "x.c")
    assert told == [(b"1", b"out"), (b"2", b"err"), (b"E", b"code=3\0")]
    assert world.steps == ["drain", "run on w0", "published"]


LOOKS = 20


def jobs_in_memory() -> list[object]:
    return [found for found in gc.get_objects() if isinstance(found, Job)]


async def test_a_job_is_freed_without_the_collector_of_cycles(tmp_path: Path, clock: object) -> None:
    world = World(tmp_path, script(b"1out", end=ran()))
    gc.collect()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.master.recorder.run)
            nursery.start_soon(world.master.held_outputs.run)
            await world.say("gcc", "-c", "x.c")
            for _ in range(LOOKS):
                await trio.sleep(2 * PAUSE_S + HOLD_S)
                if not jobs_in_memory():
                    break
                await trio.to_thread.run_sync(time.sleep, 0.05)  # the thread that writes records has it
            nursery.cancel_scope.cancel()
        assert world.steps == ["drain", "run on w0", "published"]
        assert not jobs_in_memory()
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", TraceMode)
async def test_a_job_that_its_trace_has_disturbed_runs_again_without_one(tmp_path: Path, mode: TraceMode) -> None:
    modes: list[TraceMode] = []

    def attempt(end: Ran | Exception) -> Script:
        async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
            modes.append(message.trace)
            return await script(end=end)(message, on_chunk)

        return run

    world = World(tmp_path, attempt(Retryable(Reason.TRACE_DISTURBED, "1 system calls")), attempt(ran()))
    world.master.config = replace(world.master.config, trace=mode)
    async with world.launcher("gcc", fields={"stdin": b"null"}) as launched:
        assert await launched.rest() == [(b"E", b"code=0\0")]
    assert modes == [mode, TraceMode.OFF]
    assert world.steps == ["drain", "run on w0", "drain", "run on w1", "published"], "nobody is blamed"
    assert world.master.counters.retries == {Reason.TRACE_DISTURBED: 1}


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"stdin": b"read"}, "[]"),
        ({"stdin": b"null"}, '[{"Regexp": "gcc", "Network": true}]'),
    ],
)
async def test_a_job_that_cannot_run_again_is_not_traced(tmp_path: Path, fields: dict[str, bytes], rules: str) -> None:
    (tmp_path / ".termite-localrc").write_text(rules)
    modes: list[TraceMode] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        modes.append(message.trace)
        return ran()

    world = World(tmp_path, run)
    world.master.config = replace(world.master.config, trace=TraceMode.EXACT)
    async with world.launcher("gcc", fields=fields) as launched:
        await launched.rest()
    assert modes == [TraceMode.OFF]


@pytest.mark.parametrize("mode", CacheMode)
async def test_a_job_whose_result_is_stored_is_traced_and_gets_only_variables_of_its_fingerprint(
    tmp_path: Path, mode: CacheMode
) -> None:
    sent: list[Run] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        sent.append(message)
        return ran()

    world = World(tmp_path, run, run, cache=mode)
    for stdin in (b"null", b"read"):
        async with world.launcher("gcc", fields={"stdin": stdin}, SHLVL="2", LANG="C") as launched:
            assert await launched.rest() == [(b"E", b"code=0\0")]
    is_on, is_off = mode is CacheMode.ON, mode is CacheMode.OFF
    assert [message.trace for message in sent] == [TraceMode.EXACT if is_on else TraceMode.OFF, TraceMode.OFF]
    assert [b"SHLVL=2" in message.env for message in sent] == [is_off, True], "a stream may have anything in it"
    assert world.steps == ["drain", "run on w0", "published", "drain", "run on w1", "published"]


async def test_a_death_by_signal_is_told_as_one(tmp_path: Path) -> None:
    assert await World(tmp_path, script(end=ran(0, 11))).say("gcc") == [(b"E", b"signal=11\0")]


async def test_what_does_nothing_is_answered_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert await world.say("sh", "-c", " : ") == [(b"E", b"code=0\0")]
    assert world.steps == []


async def test_a_recursive_make_replaces_the_launcher_and_holds_no_slot(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert await world.say("make", "-C", "x") == [(b"X", b"recurse=1\0")]
    assert world.master.local_runs.slots.running == 0


async def test_a_local_command_holds_a_slot_until_it_is_done(tmp_path: Path) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^ar ", "Local": true}]')
    world = World(tmp_path)
    async with world.launcher("ar", "x") as launched:
        assert await launched.frames() == [(b"X", b"recurse=0\0")]
        assert world.master.local_runs.slots.running == 1
        launched.end_command()
        await world.until_no_slot_is_taken()
    assert world.master.counters.local == 1


def with_short(world: World, count: int = 1) -> World:
    world.master.short = ShortCommands(1.0)
    world.master.local_runs.slots = LocalSlots(count, lambda pid: 0)
    return world


async def test_a_command_that_is_known_to_be_short_runs_here(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, script(end=ran())))
    assert await world.say("gcc", "-c", "x.c") == [(b"E", b"code=0\0")]
    async with world.launcher("gcc", "-c", "x.c") as launched:
        assert await launched.frames() == [(b"X", b"recurse=0\0")]
        assert world.master.local_runs.slots.running == 1
        launched.end_command()
        await world.until_no_slot_is_taken()
    counters = world.master.counters
    assert (counters.remote, counters.short, counters.local, counters.fallbacks) == (1, 1, 0, {})


async def test_readers_see_at_once_that_a_command_runs_here_because_it_is_short(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, script(end=ran()), script(end=ran())))
    await world.say("gcc", "-c", "x.c")
    sent: list[JobSent] = []
    watchers = world.master.recorder.watchers

    def emit(event: Event) -> None:
        sent.extend([event] if isinstance(event, JobSent) else [])

    with patch.object(watchers, "emit", emit), patch.object(watchers, "are_there", new=True):
        async with world.launcher("gcc", "-c", "x.c") as launched:
            await launched.frames()
            await world.say("gcc", "-c", "x.c")  # no core is idle
    places = [(event.job.where, event.job.cause.kind) for event in sent]
    assert places == [(Where.HERE, Why.SHORT), (Where.WORKER, Why.NO_RULE)]


async def test_a_short_command_goes_to_a_worker_while_no_core_is_free(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, script(end=ran()), script(end=ran())))
    await world.say("gcc", "-c", "x.c")
    async with world.launcher("gcc", "-c", "x.c") as launched:
        await launched.frames()
        assert await world.say("gcc", "-c", "x.c") == [(b"E", b"code=0\0")]
    assert (world.master.counters.remote, world.master.counters.short) == (2, 1)


async def test_while_many_jobs_run_elsewhere_a_core_is_left_to_the_master(tmp_path: Path) -> None:
    done = trio.Event()

    async def running(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await done.wait()
        return ran()

    world = with_short(World(tmp_path, script(end=ran()), running, running, script(end=ran())))
    await world.say("gcc", "-c", "x.c")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.say, "long", "1")
        nursery.start_soon(world.say, "long", "2")
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.master.jobs) == 2
        assert await world.say("gcc", "-c", "x.c") == [(b"E", b"code=0\0")]
        done.set()
    assert world.master.counters.short == 0


@pytest.mark.parametrize(
    "end",
    [
        ran(0, 9),
        msgspec.structs.replace(ran(), dropped=(b"usr/lib/__pycache__/x.pyc",)),
        msgspec.structs.replace(ran(), stdin_taken=3),
        ran(changes=(CHANGE, Change(b"tmp/x", None))),
    ],
    ids=str,
)
async def test_what_may_do_something_else_here_stays_on_the_workers(tmp_path: Path, end: Ran) -> None:
    world = with_short(World(tmp_path, script(end=end), script(end=end)))
    await world.say("gcc", "-c", "x.c")
    await world.say("gcc", "-c", "x.c")
    assert (world.master.counters.remote, world.master.counters.short) == (2, 0)


async def test_a_command_that_ends_with_an_error_is_as_short_as_any(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, script(end=ran(1))))
    assert (await world.say("gcc", "-c", "x.c"))[-1] == (b"E", b"code=1\0")
    assert [kind for kind, _ in await world.say("gcc", "-c", "x.c")] == [b"X"]


async def test_a_short_command_whose_process_is_not_to_be_seen_goes_to_a_worker(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, script(end=ran()), script(end=ran())))
    await world.say("gcc", "-c", "x.c")
    async with world.launcher("gcc", "-c", "x.c", pid=0) as launched:
        assert await launched.rest() == [(b"E", b"code=0\0")]
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^ar ", "Local": true}]')
    async with world.launcher("ar", "x", pid=0) as launched:
        assert await launched.rest() == [(b"X", b"recurse=0\0")]
    assert (world.master.counters.remote, world.master.counters.short) == (2, 0)
    assert world.master.local_runs.slots.running == 0


async def test_of_many_short_commands_at_once_only_so_many_run_here_as_there_are_cores(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, *[script(end=ran())] * 9))
    await world.say("gcc", "-c", "x.c")
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(world.say, "gcc", "-c", "x.c")
    assert world.master.counters.short + world.master.counters.remote == 9
    assert world.master.counters.remote >= 2


async def test_a_rule_that_says_remote_and_a_ban_on_local_runs_are_obeyed(tmp_path: Path) -> None:
    world = with_short(World(tmp_path, *[script(end=ran())] * 3))
    await world.say("gcc", "-c", "x.c")
    assert (await world.say("gcc", "-c", "x.c", TERMITE_LOCAL="never"))[-1] == (b"E", b"code=0\0")
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^gcc "}]')
    assert (await world.say("gcc", "-c", "x.c"))[-1] == (b"E", b"code=0\0")
    assert (world.master.counters.remote, world.master.counters.short) == (3, 0)


async def test_what_the_kernel_asked_for_remote_jobs_is_counted(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()), script(end=ran()))
    await world.say("gcc", "-c", "x.c")
    await world.say("gcc", "-c", "y.c")
    assert world.master.counters.fuse_requests == 14


PIPES = {"stdin": b"null", "out": b"other", "err": b"other"}
TERMINAL = {"stdin": b"null", "out": b"tty", "err": b"tty"}
COLLECTED = {"stdin": b"null", "out": b"collected", "err": b"file"}


async def outcome(world: World, fields: Mapping[str, bytes] = PIPES) -> list[tuple[bytes, bytes]]:
    """Run a command with this stdin, stdout and stderr, and return its launcher's frames."""
    async with world.launcher("gcc", fields=fields) as launched:
        return await launched.rest()


def shows(*output: bytes, end: Ran | Exception) -> Script:
    """Return a script whose output is older than a second when the next event happens."""

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        for chunk in output:
            await on_chunk(chunk)
        await trio.sleep(2 * HOLD_S)
        if isinstance(end, Exception):
            raise end
        return end

    return run


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Jump over a second of waiting, but not while a process or socket of the test is busy."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


@pytest.mark.logs("job-retried")
@pytest.mark.parametrize("fields", [PIPES, COLLECTED], ids=["pipes", "files"])
async def test_a_lost_worker_that_has_shown_nothing_leaves_no_trace_of_its_output(
    tmp_path: Path, fields: Mapping[str, bytes]
) -> None:
    world = World(tmp_path, script(b"1abc", b"2e", end=lost_worker()), script(b"2y", b"1x", end=ran()))
    assert await outcome(world, fields) == [(b"2", b"y"), (b"1", b"x"), (b"E", b"code=0\0")]
    assert world.steps == ["drain", "run on w0", "failed w0", "drain", "run on w1", "published"]
    counters = world.master.counters
    assert (counters.retries.total(), counters.moved, counters.repeated) == (1, 1, 0)


@pytest.mark.logs("job-retried")
@pytest.mark.parametrize("place", ["answer", "result", "piece"])
async def test_a_breach_of_the_protocol_is_the_workers_fault_and_ends_its_lease(tmp_path: Path, place: str) -> None:
    breach = RemoteProtocolError("not a path: 'a/../x'")
    ends: dict[str, Ran | Exception] = {"answer": breach, "result": ran(), "piece": ran_without_contents()}
    world = World(tmp_path, script(b"1out", end=ends[place]), script(b"1out", end=ran()))
    world.tree.breach = breach if place == "result" else None
    async with world.launcher("gcc", fields=PIPES) as launched:
        assert await launched.rest() == [(b"1", b"out"), (b"E", b"code=0\0")]
    assert world.steps == ["drain", "run on w0", "retired w0", "failed w0", "drain", "run on w1", "published"]
    assert world.master.counters.retries == {Reason.BAD_ANSWER: 1}
    assert not world.master.counters.fallbacks


@pytest.mark.logs("job-retried", "job-fell-back")
async def test_two_builds_at_once_are_counted_apart_and_an_attempt_that_failed_is_no_other_worker(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, script(end=ran()), script(end=ran()), script(end=lost_worker()))
    recorder = world.master.recorder
    one, other = (recorder.start_build("make", ("make",), "/", {}, pid) for pid in (0, 0))
    for build in (one, one, other):
        await world.say("gcc", **recorder.variables_of(build))
    assert (one.counters.remote, one.counters.local) == (2, 0)
    assert (other.counters.remote, other.counters.local) == (0, 1), "it ran here: there was no other worker"
    assert (other.counters.retries.total(), other.counters.moved, other.counters.fallbacks.total()) == (1, 0, 1)
    assert (world.master.counters.remote, world.master.counters.local) == (2, 1)


async def test_held_output_and_the_exit_arrive_in_one_piece(tmp_path: Path) -> None:
    world = World(tmp_path, script(b"1out", b"2err", end=ran(3)))
    async with world.launcher("gcc", fields=PIPES) as launched:
        assert await launched.frames() == [(b"1", b"out"), (b"2", b"err"), (b"E", b"code=3\0")]


@pytest.mark.logs("job-retried")
async def test_a_retry_repeats_no_output_that_was_shown(tmp_path: Path, clock: object) -> None:
    lost = shows(b"1abc", b"2e", end=lost_worker())
    world = World(tmp_path, lost, script(b"1ab", b"1cd", b"2ef", end=ran()))
    assert await outcome(world) == [(b"1", b"abc"), (b"2", b"e"), (b"1", b"d"), (b"2", b"f"), (b"E", b"code=0\0")]


@pytest.mark.logs("job-fell-back", "job-retried")
@pytest.mark.parametrize("output", [(b"1a", b"1xyz"), (b"1ab",), (), (b"2e", b"1abx")], ids=repr)
async def test_a_retry_that_prints_something_else_fails_before_the_first_other_byte(
    tmp_path: Path, clock: object, output: tuple[bytes, ...]
) -> None:
    world = World(tmp_path, shows(b"1abc", end=lost_worker()), script(*output, end=ran()))
    told = await outcome(world)
    assert [kind for kind, _ in told] == [b"1", b"N", b"E"]
    assert (told[0][1], told[2][1]) == (b"abc", b"code=101\0")
    assert b"printed something else" in told[1][1]
    assert world.tree.published == [], "nothing of the second run may come home"
    assert world.master.counters.failed == 1


@pytest.mark.logs("job-retried")
async def test_on_a_terminal_a_retry_that_prints_something_else_is_shown_whole_after_a_notice(tmp_path: Path) -> None:
    world = World(tmp_path, script(b"1abc", end=lost_worker()), script(b"1a", b"1xyz", end=ran()))
    told = await outcome(world, TERMINAL)
    assert [kind for kind, _ in told] == [b"1", b"N", b"1", b"E"]
    assert told[2] == (b"1", b"axyz")


@pytest.mark.parametrize(
    "is_equal",
    [
        pytest.param(True, marks=pytest.mark.logs("job-retried")),
        pytest.param(False, marks=pytest.mark.logs("job-retried", "job-fell-back")),
    ],
)
async def test_megabytes_that_were_shown_are_compared_to_their_last_byte(tmp_path: Path, is_equal: bool) -> None:
    piece, last = b"1" + b"x" * 100_000, b"1" + b"x" * 99_999 + (b"x" if is_equal else b"y")
    world = World(tmp_path, script(*[piece] * 20, end=lost_worker()), script(*[piece] * 19, last, b"1end", end=ran()))
    told = await outcome(world)
    assert told[-1] == (b"E", b"code=0\0" if is_equal else b"code=101\0")
    assert b"".join(content for kind, content in told if kind == b"1") == b"x" * 2_000_000 + b"end" * is_equal


async def test_output_is_shown_after_a_second_and_then_as_it_comes(tmp_path: Path, clock: object) -> None:
    at_s: list[float] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        for number in range(4):
            await trio.sleep(0.4)
            await on_chunk(b"1%d" % number)
        await trio.sleep(10)
        return ran()

    world = World(tmp_path, run)
    async with world.launcher("gcc", fields=PIPES) as launched:
        began_s, told = trio.current_time(), b""
        while told[-4:] != b"0123"[-4:]:
            frames = await launched.frames() or []
            told += b"".join(content for _, content in frames)
            at_s.append(round(trio.current_time() - began_s, 1))
    assert at_s == [0.4 + HOLD_S, 1.6]


async def test_much_output_is_not_held(tmp_path: Path) -> None:
    done = trio.Event()

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1" + b"x" * HELD_BYTES)
        await on_chunk(b"1y")
        await done.wait()
        return ran()

    world = World(tmp_path, run)
    async with world.launcher("gcc", fields=COLLECTED) as launched:
        told = b""
        while not told.endswith(b"y"):
            told += b"".join(content for _, content in await launched.frames() or [])
        done.set()
        assert await launched.rest() == [(b"E", b"code=0\0")]


@pytest.mark.logs("job-retried", "job-fell-back")
async def test_a_launcher_that_reads_nothing_gets_all_held_output_later(tmp_path: Path, clock: object) -> None:
    big = b"1" + b"x" * 60_000

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        if not world.steps.count("failed w0"):
            with trio.move_on_after(0.5):
                while True:
                    await on_chunk(big)
            raise lost_worker()
        raise AssertionError

    world = World(tmp_path, run)
    async with world.launcher("gcc", fields=PIPES) as launched:
        await trio.sleep(3)
        told = await launched.rest()
    shown = b"".join(content for kind, content in told if kind == b"1")
    assert shown == b"x" * len(shown) and len(shown) > 60_000
    assert told[-1] == (b"X", b"recurse=0\0")


@pytest.mark.parametrize("fields", [TERMINAL, PIPES | {"err": b"tty"}, PIPES | {"in": b"tty"}], ids=repr)
async def test_a_terminal_shows_output_at_once(tmp_path: Path, fields: Mapping[str, bytes]) -> None:
    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1question")
        await trio.sleep_forever()
        raise AssertionError

    world = World(tmp_path, run)
    async with world.launcher("gcc", fields=fields) as launched:
        began_s = trio.current_time()
        assert await launched.frames() == [(b"1", b"question")]
        assert trio.current_time() - began_s < HOLD_S / 2


@pytest.mark.logs("job-retried")
async def test_where_nobody_reads_before_the_end_output_is_held_to_the_end(tmp_path: Path, clock: object) -> None:
    world = World(tmp_path, shows(b"1abc", end=lost_worker()), shows(b"1x", end=ran()))
    assert await outcome(world, COLLECTED) == [(b"1", b"x"), (b"E", b"code=0\0")]


class PausingPool(FakePool):
    """A pool that looks for a worker for longer than output is held."""

    @asynccontextmanager
    async def slot(self, avoid: Collection[str] = (), unfit: Collection[str] = ()) -> AsyncIterator[FakeLease]:
        await trio.sleep(3 * HOLD_S)
        async with super().slot(avoid) as lease:
            yield lease


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(
    "end", [pytest.param(lost_worker(), marks=pytest.mark.logs("job-retried")), Outdated("f")], ids=str
)
async def test_output_of_a_failed_attempt_is_not_shown_while_a_worker_is_waited_for(
    tmp_path: Path, clock: object, end: Exception
) -> None:
    world = World(tmp_path)
    world.master.pool = cast(Pool, PausingPool([script(b"1abc", end=end)], world.steps))
    async with world.launcher("gcc", fields=PIPES) as launched:
        assert [kind for kind, _ in await launched.rest()] == [b"N", b"X"]
        launched.end_command()


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(
    ("end", "frames"),
    [
        pytest.param(lost_worker(), [b"N", b"X"], marks=pytest.mark.logs("job-retried")),
        (NotAtRest(), [b"N", b"X"]),
        (ran(), [b"N", b"X"]),
        (ran(127, changes=(), exec_errno=2), [b"X"]),
    ],
    ids=["lost", "not at rest", "not published", "not started"],
)
async def test_before_it_runs_here_held_output_is_dropped(
    tmp_path: Path, end: Ran | Exception, frames: list[bytes]
) -> None:
    world = World(tmp_path, script(b"1abc", end=end))
    world.tree.refuses = 28
    async with world.launcher("gcc", fields=PIPES) as launched:
        told = await launched.rest()
        assert [kind for kind, _ in told] == frames
        launched.end_command()
    assert not any(b"again from its beginning" in content for _, content in told)


@pytest.mark.logs("job-fell-back")
async def test_held_output_is_not_shown_while_a_local_slot_is_waited_for(tmp_path: Path, clock: object) -> None:
    world = World(tmp_path, script(b"1abc", end=ran()))
    world.tree.refuses = 28
    assert world.master.local_runs.slots.take_nowait(-1)
    async with world.launcher("gcc", fields=PIPES) as launched:
        await trio.sleep(3 * HOLD_S)
        world.master.local_runs.slots.give_back(-1)
        assert [kind for kind, _ in await launched.rest()] == [b"N", b"X"]
        launched.end_command()


@pytest.mark.parametrize("was_listed", [False, True], ids=["elsewhere", "listed"])
async def test_a_job_runs_again_if_its_worker_listed_a_symlink_to_a_file_sealed_meanwhile(
    tmp_path: Path, was_listed: bool
) -> None:
    async def meanwhile(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        world.tree.notes.seals += 1
        lease = world.master.jobs[message.job].lease
        assert lease is not None
        lease.newest_seal = world.tree.notes.seals if was_listed else world.tree.notes.seals - 1
        return ran(3)

    world = World(tmp_path, meanwhile, script(end=ran(4)))
    world.tree.notes.seals = 7
    told = await world.say("gcc", "-c", "x.c")
    assert told == [(b"E", b"code=4\0" if was_listed else b"code=3\0")]
    assert [step for step in world.steps if step.startswith("run on")] == ["run on w0", "run on w1"][: 1 + was_listed]


NETWORK = '[{"Regexp": "gcc", "Network": true}]'


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (NotAtRest("f"), b"code=101\0"),
        (lost_worker(), b"code=101\0"),
        (Outdated("f"), b"code=101\0"),
        pytest.param(ValueError("a bug"), b"code=101\0", marks=pytest.mark.logs("job-failed", "job-fell-back")),
        (ran(), b"code=101\0"),
        (ran(127, changes=(), exec_errno=2), None),
    ],
    ids=["not at rest", "lost", "outdated", "bug", "not published", "not started"],
)
async def test_a_refused_result_of_a_command_with_the_network_fails_unless_it_was_not_started(
    tmp_path: Path, end: Ran | Exception, code: bytes | None
) -> None:
    (tmp_path / ".termite-localrc").write_text(NETWORK)
    world = World(tmp_path, script(b"1abc", end=end))
    world.tree.refuses = 28
    async with world.launcher("gcc", fields=PIPES) as launched:
        once, *told = await launched.rest()
        launched.end_command()
    assert once == (b"O", b"")  # if this master dies, the launcher does not run the command
    if code is None:
        assert told == [(b"X", b"recurse=0\0")]
    else:
        assert [kind for kind, _ in told] == [b"N", b"E"] and told[1][1] == code
        assert b"may have used the network" in told[0][1]
        assert world.master.counters.failed == 1
    assert world.tree.published == []


@pytest.mark.logs("job-fell-back")
async def test_a_refused_result_fails_with_103_where_local_is_forbidden(tmp_path: Path) -> None:
    world = World(tmp_path, script(b"1abc", end=NotAtRest("f")))
    told = await world.say("gcc", TERMITE_LOCAL="never")
    assert told[-1] == (b"E", b"code=103\0")
    assert world.tree.published == [] and [kind for kind, _ in told] == [b"N", b"E"]


@pytest.mark.logs("job-fell-back")
async def test_a_refused_result_of_a_command_that_has_read_its_input_fails_with_101(tmp_path: Path) -> None:
    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1" + await stdin_of(world, message).read(2))
        raise NotAtRest("f")

    world = World(tmp_path, run)
    async with world.launcher("sort", fields=PIPES | {"stdin": b"read"}) as launched:
        await launched.frames()
        await launched.send(launcher_frames.STDIN, b"ab")
        told = await launched.rest()
    assert [kind for kind, _ in told] == [b"N", b"E"] and told[1][1] == b"code=101\0"


@pytest.mark.logs("job-fell-back")
async def test_a_refused_result_names_three_places_and_counts_the_others(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    world = World(tmp_path / "tree", script(b"1abc", end=ran()))
    places = ("a", "b\n", "c", "d", "e")

    async def refuse(master: Master, job: Job, *_: object) -> Exit | None:
        return await run_here_instead(master, job, Reason.NOT_AT_REST, places)

    world.tree.refuses = 28
    with patch.object(run_job, "run_here_instead", refuse):
        async with world.launcher("gcc", fields=PIPES) as launched:
            told = await launched.rest()
            launched.end_command()
    assert told[0][1].startswith(HERE + b"files of the job changed after its end: a, b\\x0a, c and 2 more\n")
    assert world.master.counters.fallbacks == {Reason.NOT_AT_REST: 1}


@pytest.mark.logs("job-fell-back", "job-retried")
async def test_a_job_that_kills_two_workers_runs_here(tmp_path: Path) -> None:
    lost = script(end=lost_worker())
    world = World(tmp_path, lost, lost, script(end=ran()))
    async with world.launcher("gcc") as launched:
        told = await launched.first(2)
        assert told[0] == (
            b"N",
            HERE + b"worker w1: the connection failed: lost\n",
        )
        launched.end_command()
    assert world.master.counters.fallbacks == {Reason.CONNECTION_LOST: 1}


@pytest.mark.logs("job-fell-back", "job-retried")
@pytest.mark.parametrize("reason", [Reason.DISK_FULL, Reason.SCRATCH_FULL, Reason.MEMORY_FULL, Reason.PROCESSES_FULL])
async def test_a_worker_without_room_is_named_once_in_a_build_with_what_to_do(tmp_path: Path, reason: Reason) -> None:
    full = script(end=Retryable(reason, "no room"))
    world = World(tmp_path, *[full] * (3 * MAX_ATTEMPTS))
    world.master.pool.is_one = True  # type: ignore[attr-defined]  # of the fake
    notices = [await world.say("gcc", str(number)) for number in range(3)]
    assert [len(told) for told in notices] == [2, 1, 1], "one notice, and then only the word to execute"
    said = notices[0][0][1].decode()
    assert said.startswith(f"termite: 1 command runs on this machine: worker w0: {reason.words}: no room (")
    assert reason.deed in said and "only counted" in said
    assert world.master.counters.fallbacks == {reason: 3}


@pytest.mark.logs("job-fell-back")
async def test_a_result_that_may_still_change_is_made_here_at_once_and_no_worker_is_to_blame(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=NotAtRest()), script(end=ran()))
    async with world.launcher("gcc") as launched:
        told = await launched.first(2)
        assert told[0] == (b"N", HERE + b"files of the job changed after its end\n")
        launched.end_command()
    assert world.steps == ["drain", "run on w0"]
    assert world.master.counters.fallbacks == {Reason.NOT_AT_REST: 1}


async def test_a_mirror_that_is_far_behind_is_replaced_before_any_content_is_read_for_it(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()), script(end=ran()))
    world.tree.behind = [OUTDATED_CHANGES + 1]
    assert await world.say("gcc") == [(b"E", b"code=0\0")]
    assert world.steps == ["drain", "retired w0", "drain", "run on w1", "published"]
    assert world.tree.limits == [(*SENT_ALONG_NEAR_BYTES, SENT_ALONG_FILES)]


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Outdated("f"), b"a file changed before the worker had read it: f"),
        (
            Retryable(Reason.LOOK_FAILED, "'/home/f': Input/output error"),
            b"a file of the tree could not be looked at: '/home/f': Input/output error",
        ),
    ],
    ids=["it changes all the time", "it cannot be examined here"],
)
async def test_a_file_that_no_worker_can_read_right_is_no_workers_fault(
    tmp_path: Path, error: Retryable, words: bytes
) -> None:
    failed = script(end=error)
    world = World(tmp_path, failed, failed, failed)
    async with world.launcher("gcc") as launched:
        told = await launched.first(2)
        assert told[0] == (b"N", HERE + words + b"\n")
        launched.end_command()
    assert world.steps == ["drain", "run on w0", "drain", "run on w1", "drain", "run on w2"]
    assert world.master.counters.retries.total() == 0


async def test_a_drain_that_fails_once_costs_another_attempt(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()), script(end=ran()))
    drain, failures = world.tree.drain, [Retryable(Reason.LOOK_FAILED, "'/home/f': Input/output error")]

    def drain_later() -> int:
        if failures:
            raise failures.pop()
        return drain()

    world.tree.drain = drain_later  # type: ignore[method-assign]
    assert await world.say("gcc") == [(b"E", b"code=0\0")]
    assert world.steps == ["drain", "run on w1", "published"]


@pytest.mark.logs("job-fell-back")
async def test_without_a_worker_it_runs_here_and_says_so_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    for is_first in (True, False):
        async with world.launcher("gcc") as launched:
            told = await launched.first(2 if is_first else 1)
            assert any(kind == b"N" for kind, _ in told) is is_first
            launched.end_command()
    assert world.master.counters.fallbacks == {Reason.NO_WORKER: 2}


@pytest.mark.logs("job-failed")
async def test_a_bug_of_ours_after_the_results_were_published_does_not_run_the_command_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def stumble(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("termite.engine.master.run_job.report_result", stumble)
    world = World(tmp_path, script(end=ran(4)))
    assert await world.say("gcc") == [(b"E", b"code=4\0")]
    assert "job-failed" in caplog.text
    caplog.clear()


@pytest.mark.logs("job-failed")
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        FsError(28),
        Conflict((b"f",), ()),
        ResultRefused(Reason.TREE_GONE, ()),
        Retryable(Reason.LOOK_FAILED, ""),
    ],
)
async def test_no_error_after_the_plan_returns_the_exit_of_the_command_or_runs_it_again(
    tmp_path: Path, error: Exception
) -> None:
    world = World(tmp_path, script(end=ran(4)))
    world.tree.breaks = error
    told = await world.say("gcc")
    assert told[-1] == (b"E", b"code=101\0")
    assert b"may not all be written" in told[0][1]
    assert world.master.counters.failed == 1 and world.master.counters.fallbacks == {}


async def test_results_that_could_only_be_written_in_part_are_named_and_the_command_does_not_run_again(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, script(end=ran()))
    world.tree.half = HalfPublished(("not all", "written: a", "not written: b"))
    told = await world.say("gcc")
    lines = [(b"N", b"termite: " + line + b"\n") for line in (b"not all", b"written: a", b"not written: b")]
    assert told == [*lines, (b"E", b"code=101\0")]
    assert world.master.counters.failed == 1


async def test_a_launcher_that_has_lost_its_connection_may_ask_the_plan_as_long_as_it_lives(tmp_path: Path) -> None:
    world, told = World(tmp_path, script(end=ran())), list[bool]()

    async def publish(_: object, __: object, ___: object, ticket: Ticket) -> Published:
        with trio.CancelScope(shield=True):
            await launched.vanish()
            while not ticket.is_left():  # noqa: ASYNC110
                await trio.sleep(0.01)
            told.append(ticket.is_told())
            launched.end_command()
            launched.reap()
            told.append(ticket.is_told())
        return Published(0, ())

    world.tree.publish = publish  # type: ignore[assignment, method-assign]
    async with world.launcher("gcc") as launched:
        while len(told) < 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert told == [False, True]


async def test_the_next_command_names_what_is_missing_of_a_killed_master(tmp_path: Path) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^ar ", "Local": true}]')
    world = World(tmp_path, script(end=ran()))
    world.tree.discarded += ["not all", "not written: b"]
    told = await world.say("ar q x")
    assert told[:2] == [(b"N", b"termite: not all\n"), (b"N", b"termite: not written: b\n")]
    assert await world.say("gcc") == [(b"E", b"code=0\0")], "it is told once"


async def test_the_next_command_waits_for_a_job_that_was_cancelled_too_late(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()))
    world.tree.is_finishing = True
    assert await world.say("gcc") == [(b"E", b"code=0\0")]
    assert world.steps[0] == "finished"


@pytest.mark.logs("job-fell-back")
async def test_where_local_is_forbidden_it_fails_with_103(tmp_path: Path) -> None:
    told = await World(tmp_path).say("gcc", TERMITE_LOCAL="never")
    assert [kind for kind, _ in told] == [b"N", b"E"]
    assert told[1] == (b"E", b"code=103\0")


async def test_a_word_that_forbids_nothing_is_told_once(tmp_path: Path) -> None:
    world = World(tmp_path, *[script(end=ran())] * 3)
    told = [await world.say("gcc", TERMITE_LOCAL=word) for word in ("nver", "nver", "")]
    assert [[kind for kind, _ in frames] for frames in told] == [[b"N", b"E"], [b"E"], [b"E"]]
    assert told[0][0] == (b"N", b"termite: TERMITE_LOCAL=nver is ignored: write TERMITE_LOCAL=never\n")


@pytest.mark.logs("job-fell-back")
async def test_nothing_is_published_of_a_command_that_was_not_executed(tmp_path: Path) -> None:
    """A worker that lies could let the command run here on top of its own results."""
    world = World(tmp_path, script(end=ran(127, exec_errno=2)))
    async with world.launcher("nosuch") as launched:
        assert await launched.frames() == [(b"X", b"recurse=0\0")]
        launched.end_command()
    assert not world.tree.published


@pytest.mark.logs("job-fell-back")
async def test_what_cannot_be_started_there_is_left_to_this_machine(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran(127, changes=(), exec_errno=2)))
    async with world.launcher("nosuch") as launched:
        assert await launched.frames() == [(b"X", b"recurse=0\0")]


@pytest.mark.logs("job-fell-back")
async def test_what_cannot_be_started_there_is_never_known_as_short(tmp_path: Path) -> None:
    cannot = script(end=ran(127, changes=(), exec_errno=2))
    world = with_short(World(tmp_path, *[cannot] * 3))
    for _ in range(3):
        async with world.launcher("nosuch") as launched:
            assert await launched.frames() == [(b"X", b"recurse=0\0")]
            launched.end_command()
            await world.until_no_slot_is_taken()
    counters = world.master.counters
    assert (counters.fallbacks, counters.short) == ({Reason.EXEC_FAILED: 3}, 0)
    assert world.master.short.took_s(Command(("nosuch",), "nosuch", True, "/", {}, "nosuch")) is None


@pytest.mark.logs("job-fell-back")
async def test_ways_of_what_cannot_be_started_do_not_count(tmp_path: Path) -> None:
    world = World(tmp_path, *[script(end=ran(127, changes=(), exec_errno=2))] * MIN_SAMPLES)
    for _ in range(MIN_SAMPLES):
        async with world.launcher("nosuch") as launched:
            await launched.frames()
            launched.end_command()
    assert world.master.short.limit_s == 0.0


@pytest.mark.logs("job-fell-back")
async def test_a_disk_that_refuses_the_results_makes_it_run_here(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()))
    world.tree.refuses = 28
    async with world.launcher("gcc") as launched:
        told = await launched.frames() or []
        assert b"No space left" in told[0][1]


@pytest.mark.parametrize("number", [0, 5])
async def test_the_journal_keeps_what_a_running_job_needs_from_its_first_number_on(tmp_path: Path, number: int) -> None:
    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        world.tree.number = 7
        needed.append(world.master.oldest_number)
        return ran()

    needed: list[int] = []
    world = World(tmp_path, run)
    world.tree.number = number
    await world.say("gcc")
    assert [*needed, world.master.oldest_number] == [number, 7]


@pytest.mark.logs("job-retried")
async def test_a_job_that_has_read_its_input_is_fed_again_from_memory(tmp_path: Path) -> None:
    read: list[bytes] = []
    world = World(tmp_path)

    def reading(end: Ran | Exception) -> Script:
        async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
            read.append(await world.master.jobs[message.job].stdin.read(2))
            read.append(await world.master.jobs[message.job].stdin.read(9))
            if isinstance(end, Exception):
                raise end
            return end

        return run

    world.master.pool = cast(Pool, FakePool([reading(lost_worker()), reading(ran())], world.steps))
    async with world.launcher("sort") as launched:
        assert await launched.frames() == [(b"R", pack_numbers(taken=0, size=2, peek=0))]
        await launched.send(launcher_frames.STDIN, b"abc")  # more than was asked for is not lost
        assert await launched.frames() == [(b"E", b"code=0\0")]
    assert read == [b"ab", b"c", b"ab", b"c"]


@pytest.mark.logs("job-fell-back", "job-retried")
async def test_a_job_that_has_read_its_input_is_never_run_here(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await world.master.jobs[message.job].stdin.read(2)
        raise lost_worker()

    world.master.pool = cast(Pool, FakePool([run], world.steps))
    async with world.launcher("sort") as launched:
        await launched.frames()
        await launched.send(launcher_frames.STDIN, b"ab")
        told = await launched.rest()
    assert told[-1] == (b"E", b"code=101\0")


def stdin_of(world: World, message: Run) -> JobStdin:
    return world.master.jobs[message.job].stdin


@pytest.mark.logs("job-retried")
async def test_what_was_only_peeked_is_fed_again_and_what_was_taken_of_it_is_told_at_the_end(tmp_path: Path) -> None:
    read: list[bytes] = []
    world = World(tmp_path)

    async def lost(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        read.append(await stdin_of(world, message).read(9, peek=True))
        raise lost_worker()

    async def done(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        read.append(await stdin_of(world, message).read(2))
        read.append(await stdin_of(world, message).read(9))
        await stdin_of(world, message).consume(3)
        return msgspec.structs.replace(ran(), stdin_taken=4)

    world.master.pool = cast(Pool, FakePool([lost, done], world.steps))
    async with world.launcher("sort") as launched:
        assert await launched.frames() == [(b"R", pack_numbers(taken=0, size=9, peek=1))]
        await launched.send(launcher_frames.PEEKED, b"abcdef")
        told = await launched.rest()
    assert told == [(b"R", b"taken=3\0"), (b"E", b"stdin_taken=1\0code=0\0")]
    assert read == [b"abcdef", b"ab", b"cdef"]


@pytest.mark.logs("job-fell-back", "job-retried")
async def test_a_job_that_has_only_peeked_may_run_here(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await stdin_of(world, message).read(9, peek=True)
        raise lost_worker()

    world.master.pool = cast(Pool, FakePool([run], world.steps))
    async with world.launcher("sort") as launched:
        await launched.frames()
        await launched.send(launcher_frames.PEEKED, b"ab")
        told = await launched.first(2)
        assert [kind for kind, _ in told] == [b"N", b"X"]
        launched.end_command()


async def reads_and_is_cancelled(world: World, message: Run) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stdin_of(world, message).read, 2)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()


WITHDRAWN = b"errno=125\0"


@pytest.mark.parametrize(
    "answer",
    [(launcher_frames.UNREADABLE, WITHDRAWN), (launcher_frames.STDIN, b"ab"), (launcher_frames.STDIN, b"")],
    ids=str,
)
async def test_a_read_that_nobody_waits_for_any_more_is_taken_back_before_the_end(
    tmp_path: Path, answer: tuple[bytes, bytes]
) -> None:
    world = World(tmp_path)

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await reads_and_is_cancelled(world, message)
        return ran()

    world.master.pool = cast(Pool, FakePool([run], world.steps))
    async with world.launcher("sort") as launched:
        assert (await launched.first(2))[1:] == [(b"R", b"size=0\0")]
        assert not world.tree.published, "the plan would not know how the standard input is left"
        await launched.send(*answer)
        assert await launched.rest() == [(b"E", b"code=0\0")]
        assert world.tree.published


@pytest.mark.logs("job-retried")
async def test_the_answer_to_a_read_that_was_cancelled_is_the_next_runs_first_piece(tmp_path: Path) -> None:
    world, read = World(tmp_path), list[bytes]()

    async def lost(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await reads_and_is_cancelled(world, message)
        raise lost_worker()

    async def done(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        read.append(await stdin_of(world, message).read(9))
        read.append(await stdin_of(world, message).read(9))
        return ran()

    world.master.pool = cast(Pool, FakePool([lost, done], world.steps))
    async with world.launcher("sort") as launched:
        assert await launched.frames() == [(b"R", pack_numbers(taken=0, size=2, peek=0))]
        await launched.send(launcher_frames.STDIN, b"ab")
        assert await launched.frames() == [(b"R", pack_numbers(taken=0, size=9, peek=0))]
        await launched.send(launcher_frames.STDIN, b"cd")
        assert await launched.rest() == [(b"E", b"code=0\0")]
    assert read == [b"ab", b"cd"]


@pytest.mark.logs("job-fell-back", "job-retried")
@pytest.mark.parametrize(
    ("answer", "ends"),
    [((launcher_frames.UNREADABLE, WITHDRAWN), [b"N", b"X"]), ((launcher_frames.STDIN, b"ab"), [b"N", b"E"])],
    ids=str,
)
async def test_before_it_runs_here_a_read_is_taken_back_and_what_came_of_it_counts(
    tmp_path: Path, answer: tuple[bytes, bytes], ends: list[bytes]
) -> None:
    world = World(tmp_path)

    async def lost(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await reads_and_is_cancelled(world, message)
        raise lost_worker()

    world.master.pool = cast(Pool, FakePool([lost], world.steps))
    async with world.launcher("sort") as launched:
        assert (await launched.first(2))[1:] == [(b"R", b"size=0\0")]
        await launched.send(*answer)
        assert [kind for kind, _ in await launched.rest()] == ends
        launched.end_command()


FILE = {"stdin": b"file", "stdin_size": b"9", "stdin_mode": b"100644", "stdin_mtime_ns": b"1", "stdin_block": b"4096"}


@pytest.mark.logs("job-retried")
async def test_a_file_is_read_by_position_in_every_run_and_left_where_the_last_one_left_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    read: list[bytes] = []

    def reading(end: Ran | Exception) -> Script:
        async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
            assert message.stdin_file == StdinFile(0o100644, 9, 1, 4096, 3)
            read.append(await stdin_of(world, message).read_at(7, 300_000))
            if isinstance(end, Exception):
                raise end
            return end

        return run

    end = msgspec.structs.replace(ran(), stdin_offset=9)
    world.master.pool = cast(Pool, FakePool([reading(lost_worker()), reading(end)], world.steps))
    async with world.launcher("sort", fields=FILE | {"stdin_offset": b"3"}) as launched:
        for _ in range(2):
            assert await launched.frames() == [(b"R", pack_numbers(size=262144, offset=7))]
            await launched.send(launcher_frames.STDIN, b"x" * 262144)
            assert await launched.frames() == [(b"R", pack_numbers(size=37856, offset=262151))]
            await launched.send(launcher_frames.STDIN, b"end")
        assert await launched.frames() == [(b"E", b"stdin_offset=9\0code=0\0")]
    assert read == [b"x" * 262144 + b"end"] * 2


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "stream"])
async def test_the_stdin_is_given_again_if_the_result_could_not_be_published(tmp_path: Path, is_file: bool) -> None:
    """The launcher's stdin is left at its final position before the plan is written."""
    world, read = World(tmp_path), list[bytes]()
    publish, failures = world.tree.publish, [Retryable(Reason.LOOK_FAILED, "'/p/x': Input/output error")]

    def reading(times: int) -> Script:
        async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
            stdin = stdin_of(world, message)
            read.extend([await (stdin.read_at(4, 4) if is_file else stdin.read(4)) for _ in range(times)])
            end = {"stdin_offset": 8} if is_file else {"stdin_taken": 4 * times}
            return msgspec.structs.replace(ran(), **end)

        return run

    async def publish_after_failures(
        changes: Sequence[Change], contents: Mapping[bytes, bytes | Path], timing: Timing, ticket: Ticket
    ) -> Published:
        if failures:
            raise failures.pop()
        return await publish(changes, contents, timing, ticket)

    world.tree.publish = publish_after_failures  # type: ignore[method-assign]
    world.master.pool = cast(Pool, FakePool([reading(1), reading(2)], world.steps))
    fields = FILE | {"stdin_offset": b"0"} if is_file else {"stdin": b"read"}
    async with world.launcher("sort", fields=fields) as launched:
        for answer in [b"four"] * 3 if is_file else [b"four", b"more"]:  # a stream is kept for the second run
            assert [kind for kind, _ in await launched.frames() or []] == [b"R"]
            await launched.send(launcher_frames.STDIN, answer)
        assert await launched.rest() == [(b"E", (b"stdin_offset=8\0" if is_file else b"") + b"code=0\0")]
    assert read == ([b"four"] * 3 if is_file else [b"four", b"four", b"more"])


async def test_what_cannot_be_read_fails_with_the_launchers_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    failures: list[int] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        try:
            await stdin_of(world, message).read_at(0, 1)
        except FsError as error:
            failures.append(error.errno)
        return ran()

    world.master.pool = cast(Pool, FakePool([run], world.steps))
    async with world.launcher("sort", fields=FILE | {"stdin_offset": b"0"}) as launched:
        await launched.frames()
        await launched.send(launcher_frames.UNREADABLE, b"errno=21\0")
        assert await launched.rest() == [(b"E", b"code=0\0")]
    assert failures == [21]


@pytest.mark.parametrize("missing", ["stdin_size", "stdin_mode", "stdin_offset"])
async def test_a_file_that_is_not_described_is_no_invocation(
    tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    fields = {key: value for key, value in (FILE | {"stdin_offset": b"0"}).items() if key != missing}
    async with world.launcher("sort", fields=fields) as launched:
        assert await launched.frames() is None
    assert missing in caplog.text


async def test_a_cancelled_job_stops_leaves_nothing_and_then_says_so(tmp_path: Path) -> None:
    begun, stopped = trio.Event(), trio.Event()

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1begun")
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()
        raise AssertionError

    world = World(tmp_path, run)
    async with world.launcher("gcc") as launched:
        await begun.wait()
        await launched.send(launcher_frames.CANCEL, b"signal=2\0")
        assert await launched.frames() == [(b"1", b"begun"), (b"E", b"signal=2\0")]
    assert stopped.is_set()
    assert world.tree.published == []
    assert not world.master.jobs


async def test_a_launcher_that_vanishes_cancels_its_job(tmp_path: Path) -> None:
    begun = trio.Event()

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"1begun")
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    world = World(tmp_path, run)
    async with world.launcher("gcc"):
        await begun.wait()
    assert world.tree.published == []
    assert not world.master.jobs


@pytest.mark.logs("job-failed", "job-fell-back")
async def test_a_bug_of_ours_costs_the_job_a_local_run(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ZeroDivisionError()))
    async with world.launcher("gcc") as launched:
        told = await launched.frames() or []
        assert b"an error inside termite" in told[0][1]


async def test_a_master_answers_that_it_lives_while_a_job_runs(tmp_path: Path) -> None:
    begun, may_end = trio.Event(), trio.Event()

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        begun.set()
        await may_end.wait()
        return ran(3)

    world = World(tmp_path, run)
    async with world.launcher("gcc") as launched:
        await begun.wait()
        with trio.fail_after(10):
            for _ in range(2):
                await launched.send(launcher_frames.ALIVE)
                assert await launched.frames() == [(launcher_frames.ALIVE, b"")]
        may_end.set()
        assert await launched.rest() == [(b"E", b"code=3\0")]


async def test_a_job_on_a_worker_inherits_what_its_launcher_has(tmp_path: Path) -> None:
    inherited: list[tuple[str, int, int]] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        inherited.append((message.limits, message.nice, message.ignored))
        return ran()

    world = World(tmp_path, run, run)
    for fields in ({"limits": b"7:777:-", "nice": b"3", "ignored": b"4096"}, {}):
        async with world.launcher("gcc", fields=fields) as launched:
            await launched.rest()
    assert inherited == [("7:777:-", 3, 4096), ("", 0, 0)]


@pytest.mark.logs("job-fell-back")
async def test_a_command_that_names_a_descriptor_of_this_machine_runs_here(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.launcher("gcc", fields={"inherited": b"7"}) as launched:
        frames = await launched.rest()
    notice = f"termite: 1 command runs on this machine: {Reason.DESCRIPTOR_INHERITED.words}: descriptor 7\n"
    assert frames == [(b"N", notice.encode()), (b"X", b"recurse=0\0")]
    async with world.launcher("gcc", TERMITE_LOCAL="never", fields={"inherited": b"7"}) as launched:
        frames = await launched.rest()
    assert frames[-1] == (b"E", b"code=103\0")


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.is_for_here])
async def test_a_command_that_needs_this_machine_runs_here_at_once(tmp_path: Path, reason: Reason) -> None:
    runs: list[int] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        runs.append(message.job)
        raise Retryable(reason, "a detail")

    world = World(tmp_path, run, run, run)
    async with world.launcher("gcc") as launched:
        frames = await launched.rest()
    notice = f"termite: 1 command runs on this machine: {reason.words}: a detail\n"
    assert frames == [(b"N", notice.encode()), (b"X", b"recurse=0\0")]
    assert len(runs) == 1
    assert world.master.counters.fallbacks == {reason: 1}


@pytest.mark.logs("job-fell-back")
async def test_without_descriptors_for_newcomers_a_command_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, script(end=ran()))
    monkeypatch.setattr("termite.engine.host.descriptors.file_limit", lambda: 30)
    for is_first in (True, False):
        async with world.launcher("gcc") as launched:
            told = await launched.first(1 + is_first)
            assert told[-1][0] == b"X"
            assert not is_first or b"files are open (ulimit -n)" in told[0][1]
            launched.end_command()
    async with world.launcher("gcc", TERMITE_LOCAL="never") as launched:
        assert (await launched.rest())[-1] == (b"E", b"code=103\0")
    assert world.master.counters.fallbacks == {Reason.NO_RESOURCES: 3}
    assert world.steps == []


@pytest.mark.logs("launcher-dropped")
async def test_garbage_ends_its_own_connection_only(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()))
    for garbage in (
        b"",
        b"\xff" * 100,
        launcher_frames.frame(b"Z"),
        launcher_frames.frame(b"I", b"x"),
        launcher_frames.frame(b"C", b"[1]"),
    ):
        ours, theirs = socket.socketpair()
        ours.sendall(garbage)
        ours.shutdown(socket.SHUT_WR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.master.fd_watcher.run)
            world.let_in(theirs)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ours.recv(1) == b""
        ours.close()
    assert (await world.say("gcc"))[-1] == (b"E", b"code=0\0")


async def test_an_invocation_may_come_in_pieces_and_late(tmp_path: Path, nursery: trio.Nursery) -> None:
    world = World(tmp_path, script(end=ran(3)))
    nursery.start_soon(world.master.fd_watcher.run)
    ours, theirs = socket.socketpair()
    world.let_in(theirs)
    said = launcher_frames.frame(launcher_frames.INVOKE, pack_fields([*INVOKED, ("arg", b"gcc")]))
    with trio.fail_after(10):
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            for at in range(0, len(said), 9):
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(said[at : at + 9])
            assert await stream.receive_some() == launcher_frames.frame(launcher_frames.EXIT, b"code=3\0")


async def test_who_says_nothing_is_forgotten_when_it_hangs_up(tmp_path: Path, nursery: trio.Nursery) -> None:
    world = World(tmp_path)
    nursery.start_soon(world.master.fd_watcher.run)
    ours, theirs = socket.socketpair()
    world.let_in(theirs)
    await trio.testing.wait_all_tasks_blocked()
    ours.close()
    with trio.fail_after(10):
        while theirs.fileno() >= 0:  # noqa: ASYNC110  # it tells nobody
            await trio.sleep(0.01)


@pytest.mark.logs("rules-rejected")
async def test_bad_rules_are_told_of_before_a_command_runs_here(tmp_path: Path) -> None:
    rules = tmp_path / ".termite-localrc"
    rules.write_text('[{"Regexp": "^ar ", "Local": true}]')
    world = World(tmp_path)
    async with world.launcher("ar", "x") as launched:
        assert await launched.rest() == [(b"X", b"recurse=0\0")]
        launched.end_command()
    rules.write_text("nonsense")
    async with world.launcher("ar", "x") as launched:
        told = await launched.first(2)
        assert [kind for kind, _ in told] == [b"N", b"X"]
        assert b"the last good rules stay in force" in told[0][1]
        launched.end_command()
        await world.until_no_slot_is_taken()


@pytest.mark.logs("job-failed", "job-fell-back")
async def test_a_bug_of_ours_at_the_beginning_costs_the_job_a_local_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    with patch.object(world.master.plugins, "parse_with_plugin", side_effect=ZeroDivisionError):
        async with world.launcher("gcc") as launched:
            told = await launched.first(2)
            assert b"an error inside termite: ZeroDivisionError()" in told[0][1]
            assert told[1][0] == b"X"
            launched.end_command()
            await world.until_no_slot_is_taken()
    assert not world.master.jobs


async def test_who_asks_and_takes_it_back_at_once_is_not_run(tmp_path: Path, nursery: trio.Nursery) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^ar ", "Local": true}]')
    world = World(tmp_path)
    ours, theirs = socket.socketpair()
    said = [*INVOKED, ("arg", b"ar"), ("arg", b"x")]
    ours.sendall(
        launcher_frames.frame(launcher_frames.INVOKE, pack_fields(said))
        + launcher_frames.frame(launcher_frames.CANCEL, b"signal=2\0")
    )
    async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
        nursery.start_soon(world.master.fd_watcher.run)
        world.let_in(theirs)
        with trio.fail_after(10):
            assert await stream.receive_some() == launcher_frames.frame(launcher_frames.EXIT, b"signal=2\0")
    assert not world.master.jobs
    assert world.master.local_runs.slots.running == 0


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({"root": b"1:2:3:4"}, Reason.OTHER_ROOT),
        ({"root": b""}, Reason.OTHER_ROOT),
        ({"users": b"1"}, Reason.OTHER_USER),
        ({"here": b"1:2:3"}, Reason.OTHER_DIRECTORY),
        ({"host": b"another 6.1 i686"}, Reason.OTHER_HOST),
        ({"cwd": b"/no/such/directory"}, Reason.OTHER_DIRECTORY),
        ({"cwd": b"/no/such/directory", "here": b""}, Reason.OTHER_DIRECTORY),
    ],
)
async def test_a_launcher_that_sees_other_files_runs_its_command_and_says_so_once(
    tmp_path: Path, differs: dict[str, bytes], reason: Reason
) -> None:
    world = World(tmp_path, script(end=ran()))
    for count in (2, 1):
        async with world.launcher("gcc", fields={"stdin": b"null", **differs}) as launched:
            told = await launched.first(count)
        line = f"termite: 1 command runs on this machine: {reason.words}\n".encode()
        assert told == [(b"N", line), (b"X", b"recurse=0\0")][2 - count :]
    assert world.steps == [], "no worker has heard of it"
    assert world.master.counters.fallbacks == {reason: 2}
    assert await world.say("gcc") == [(b"E", b"code=0\0")]


@pytest.mark.logs("job-fell-back")
async def test_a_launcher_that_sees_other_files_and_must_not_run_its_command_fails(tmp_path: Path) -> None:
    world = World(tmp_path)
    fields = {"stdin": b"null", "root": b"1:2:3:4"}
    async with world.launcher("gcc", fields=fields, TERMITE_LOCAL="never") as launched:
        told = await launched.rest()
    line = f"termite: {Reason.OTHER_ROOT.words}; TERMITE_LOCAL=never forbids running the command on this machine\n"
    assert told == [(b"N", line.encode()), (b"E", b"code=103\0")]


async def test_what_a_rule_places_here_may_be_anywhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.launcher("make", "-C", "x", fields={"stdin": b"null", "root": b"1:2:3:4"}) as launched:
        assert await launched.rest() == [(b"X", b"recurse=1\0")]


@pytest.mark.parametrize("local", ["", "never"])
async def test_a_command_below_fakeroot_runs_here_whatever_is_known_of_it(tmp_path: Path, local: str) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^gcc", "Network": true}]')
    world = World(tmp_path, script(end=ran()))
    async with world.launcher("gcc", FAKEROOTKEY="1", TERMITE_LOCAL=local) as launched:
        assert await launched.rest() == [(b"X", b"recurse=0\0")]
    assert await world.say("gcc") == [(b"O", b""), (b"E", b"code=0\0")]
    counters = world.master.counters
    assert (counters.local, counters.tied, counters.remote, counters.fallbacks) == (
        1,
        {Reason.BELOW_FAKEROOT: 1},
        1,
        {},
    )


async def test_makes_below_fakeroot_go_on_asking(tmp_path: Path) -> None:
    async with World(tmp_path).launcher("make", "-C", "x", FAKEROOTKEY="1") as launched:
        assert await launched.rest() == [(b"X", b"recurse=1\0")]


async def test_a_job_for_a_worker_waits_for_the_look_at_settled_files(tmp_path: Path, nursery: trio.Nursery) -> None:
    world, looked = World(tmp_path, script(end=ran())), trio.Event()
    with patch.object(world.master, "settled_check", SettledCheck(looked.wait)):
        nursery.start_soon(world.master.settled_check.run)
        world.master.settled_check.request()
        async with world.launcher("gcc") as launched:
            await trio.testing.wait_all_tasks_blocked()
            assert world.steps == []
            looked.set()
            assert await launched.rest() == [(b"E", b"code=0\0")]


async def test_what_stays_there_is_named_by_what_it_is(tmp_path: Path) -> None:
    inside, outside = os.fsencode(tmp_path / "s").strip(b"/"), b"usr/lib/__pycache__/x"
    world = World(tmp_path, script(end=msgspec.structs.replace(ran(), dropped=(outside, inside))))
    told = await world.say("gcc")
    assert [frame for frame in told if frame[0] == b"N"] == [
        (b"N", b"termite: 1 command wrote to __pycache__, outside the tree: dropped\n"),
        (b"N", b"termite: 1 command left a socket on its worker: /%b (add a Local rule to run it here)\n" % inside),
    ]
    counters = world.master.counters
    assert (counters.remote, counters.dropped_writes, counters.sockets_left) == (1, 1, 1)


def wrote(*paths: bytes, code: int = 0) -> Script:
    """Return the script of a worker whose command prints something and writes outside the tree."""
    return script(b"1abc", end=msgspec.structs.replace(ran(code), dropped=paths))


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize("code", [0, 2])
async def test_what_wrote_outside_the_tree_runs_here_and_nothing_of_it_comes_home(tmp_path: Path, code: int) -> None:
    world = World(tmp_path, wrote(b"srv/x/a", b"srv/x/b", code=code))
    async with world.launcher("gcc", fields=PIPES) as launched:
        told = await launched.rest()
        launched.end_command()
    assert told[-1] == (b"X", b"recurse=0\0")
    assert not [content for kind, content in told if kind == b"O"], "the held output is dropped"
    assert told[0] == (b"N", HERE + b"writes outside the tree: /srv/x/a, /srv/x/b\n")
    assert world.tree.published == []
    counters = world.master.counters
    assert counters.fallbacks == {Reason.WRITES_OUTSIDE: 1} and counters.outside == {"/srv/x": 1}
    assert (counters.remote, counters.local, counters.dropped_writes) == (0, 1, 0)


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize("code", [0, 1])
async def test_what_meets_the_several_file_systems_of_a_job_runs_here(tmp_path: Path, code: int) -> None:
    said = b"2OSError: [Errno 18] Invalid cross-device link: 'a' -> 'b'\n"
    world = World(tmp_path, script(said, end=ran(code)))
    async with world.launcher("rename", "a", "b", fields=PIPES) as launched:
        told = await launched.rest()
        launched.end_command()
    assert [kind for kind, _ in told] == [b"N", b"X"], "the held output is dropped"
    assert world.tree.published == []
    assert world.master.counters.fallbacks == {Reason.CROSSED_DEVICES: 1}


@pytest.mark.logs("job-fell-back")
async def test_one_write_that_is_missed_among_droppable_ones_is_enough(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"root/.cache/a", b"root/.config/b", b"usr/__pycache__/c"))
    told = await world.say("gcc", HOME="/root")
    assert told[0] == (b"N", HERE + b"writes outside the tree: /root/.config/b\n")


@pytest.mark.logs("job-fell-back")
async def test_the_same_command_runs_here_at_once_and_so_does_one_that_names_the_place(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"), script(end=ran()), script(end=ran()))
    await world.say("cp", "a", "$D", D="/srv/x")
    world.steps.clear()
    assert await world.say("cp", "a", "$D", D="/srv/x") == [(b"X", b"recurse=0\0")]
    assert await world.say("cp", "b", "/srv/x/b") == [(b"X", b"recurse=0\0")]
    assert world.steps == []
    await world.say("cp", "a", "$D", D="here")
    await world.say("cp", "b", "c", DESTDIR="/srv/x")
    counters = world.master.counters
    assert (counters.remote, counters.local, counters.outside) == (2, 3, {"/srv/x": 3})
    assert counters.tied == {Reason.WRITES_OUTSIDE: 2}


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize("reason", [Reason.LINKED_FILE, Reason.FOREIGN_IDS])
async def test_the_summary_of_a_build_is_enough_for_commands_that_must_run_here(tmp_path: Path, reason: Reason) -> None:
    def refusals() -> tuple[Script, ...]:
        return tuple(script(end=Retryable(reason, detail)) for detail in ("'/p/f'", "'/p/f'", "'/p/g'"))

    world = World(tmp_path, *refusals())
    told = [await world.say("strip", name) for name in ("f", "f2", "g")]
    assert [len(lines) for lines in told] == [2, 1, 2], "each place is named once"
    assert told[0][0] == (b"N", HERE + f"{reason.words}: '/p/f'\n".encode())
    world = World(tmp_path, *refusals())
    world.master.builds = 1
    assert [await world.say("strip", name) for name in ("f", "f2", "g")] == 3 * [[(b"X", b"recurse=0\0")]]


@pytest.mark.logs("job-fell-back")
async def test_a_limit_that_is_too_high_is_named_once_in_a_build(tmp_path: Path) -> None:
    limits = ("open files (ulimit -n)", "open files (ulimit -n)", "CPU time (ulimit -t)")
    world = World(tmp_path, *(script(end=Retryable(Reason.LIMIT_TOO_HIGH, limit)) for limit in limits))
    world.master.builds = 1
    told = [await world.say("cc", name) for name in ("a", "b", "c")]
    words = HERE + Reason.LIMIT_TOO_HIGH.words.encode()
    assert [lines[0] for lines in told] == [
        (b"N", words + b": open files (ulimit -n)\n"),
        (b"X", b"recurse=0\0"),
        (b"N", words + b": CPU time (ulimit -t)\n"),
    ]


@pytest.mark.logs("job-fell-back")
async def test_in_the_next_build_only_the_same_command_is_known(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"), script(end=ran()))
    await world.say("cp", "a", "$D", D="/srv/x")
    world.master.begin_build()
    await world.say("cp", "b", "/srv/x/b")
    assert world.master.counters.remote == 1
    assert await world.say("cp", "a", "$D", D="/srv/x") == [(b"X", b"recurse=0\0")]


@pytest.mark.logs("job-fell-back")
async def test_the_next_master_knows_the_command_too(tmp_path: Path) -> None:
    def with_memory(*scripts: Script) -> World:
        world = World(tmp_path, *scripts)
        world.master.memory = CommandMemory(tmp_path / "short-p")
        world.master.refused = RefusalMemory(world.master.memory)
        return world

    first = with_memory(wrote(b"srv/x/a"))
    await first.say("cp")
    first.master.memory.save()
    assert await with_memory(script(end=ran())).say("cp") == [(b"X", b"recurse=0\0")]


@pytest.mark.logs("job-fell-back")
async def test_a_try_on_a_worker_that_writes_nothing_there_forgets_the_command(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"), script(end=ran()), script(end=ran()))
    await world.say("cp")
    world.master.begin_build()
    for _ in range(TRIES - 1):
        assert await world.say("cp") == [(b"X", b"recurse=0\0")]
    world.master.begin_build()
    await world.say("cp")
    await world.say("cp")
    assert world.master.counters.remote == 2


@pytest.mark.logs("job-fell-back")
async def test_a_result_that_would_run_code_later_is_remembered_unless_a_rule_trusts_it(tmp_path: Path) -> None:
    hook = Change(os.fsencode(tmp_path / ".git/hooks/x").strip(b"/"), Attr(0o100755, 0, 1, Digest(b"x" * 32, 0)))
    end = msgspec.structs.replace(ran(), changes=(hook,))
    world = World(tmp_path, script(end=end), script(end=ran()))
    assert (await world.say("git", "init"))[-1] == (b"X", b"recurse=0\0")
    assert await world.say("git", "init") == [(b"X", b"recurse=0\0")]
    counters = world.master.counters
    assert (counters.fallbacks, counters.tied) == ({Reason.LATER_CODE: 1}, {Reason.LATER_CODE: 1})
    assert (counters.outside, counters.unseen) == ({}, {})
    assert counters.named == {(PathEvent.LATER_CODE, ".git/hooks/x"): 2}, "the summary names it also without a new try"
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^git init", "Trusted": true}]')
    assert (await world.say("git", "init"))[-1] == (b"E", b"code=0\0")


@pytest.mark.logs("job-fell-back")
async def test_with_never_it_runs_nowhere_and_the_notice_says_where_it_wrote_and_what_helps(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"), wrote(b"srv/x/a"))
    for _ in range(2):  # what is known of a command is no rule of the user
        told = await world.say("gcc", TERMITE_LOCAL="never")
        cause = b"TERMITE_LOCAL=never forbids running the command on this machine"
        hint = b"(add a Local rule for it to .termite-localrc)"
        assert told == [
            (b"N", b"termite: writes outside the tree: /srv/x/a; %b %b\n" % (cause, hint)),
            (b"E", b"code=103\0"),
        ]
    assert world.tree.published == []
    assert world.master.counters.outside == {}


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize("local", ["", "never"])
async def test_a_command_that_turns_out_to_show_owners_runs_here_whatever_is_allowed(
    tmp_path: Path, local: str
) -> None:
    async def finds_another_owner(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        world.tree.notes.is_mixed = True
        return ran()

    world = World(tmp_path, finds_another_owner)
    assert (await world.say("git", "describe", TERMITE_LOCAL=local))[-1] == (b"X", b"recurse=0\0")
    assert world.tree.published == []


@pytest.mark.logs("job-fell-back")
async def test_a_command_that_had_the_network_and_wrote_outside_does_not_run_again(tmp_path: Path) -> None:
    (tmp_path / ".termite-localrc").write_text('[{"Regexp": "^wget", "Network": true}]')
    world = World(tmp_path, wrote(b"srv/x/a"))
    told = await world.say("wget", "a")
    assert told[-1] == (b"E", b"code=101\0")
    notice = next(content for kind, content in told if kind == b"N")
    assert b"writes outside the tree: /srv/x/a" in notice and b"network" in notice and b"Local rule" in notice
    assert world.tree.published == []
    # It has not run yet: the next one runs here.
    assert (await world.say("wget", "a"))[-1] == (b"X", b"recurse=0\0")


@pytest.mark.logs("job-fell-back")
async def test_a_command_that_has_read_its_input_and_wrote_outside_does_not_run_again(tmp_path: Path) -> None:
    async def reads(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await stdin_of(world, message).read(2)
        return msgspec.structs.replace(ran(), dropped=(b"srv/x/a",), stdin_taken=2)

    world = World(tmp_path, reads)
    async with world.launcher("cp") as launched:
        await launched.frames()
        await launched.send(launcher_frames.STDIN, b"in")
        told = await launched.rest()
    assert told[-1] == (b"E", b"code=101\0")
    assert b"writes outside the tree: /srv/x/a; the command has read its input" in told[-2][1]


async def test_a_command_that_names_a_private_path_runs_here(tmp_path: Path) -> None:
    world = World(tmp_path, script(end=ran()))
    assert await world.say("cat", "/home/u/private/x") == [(b"X", b"recurse=0\0")]
    assert world.steps == []
    assert (await world.say("cat", "/home/u/private/x", TERMITE_LOCAL="never"))[-1] == (b"E", b"code=0\0")
    counters = world.master.counters
    assert (counters.remote, counters.local) == (1, 1)
    assert counters.tied == {Reason.NAMES_PRIVATE: 1}
    assert counters.private == {"/home/u/private": 1}


@pytest.mark.logs("job-fell-back")
async def test_if_watches_may_miss_what_it_wrote_the_next_job_waits_for_a_check(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"), script(end=ran()), script(end=ran()))
    checks = []

    async def check() -> None:
        checks.append(len(world.steps))

    world.master.settled_check = SettledCheck(check)
    nursery.start_soon(world.master.settled_check.run)
    world.tree.misses_changes = True
    for command in (("cp",), ("cp",), ("cat", "/srv/x/a")):  # refused, known, and at a known place
        async with world.launcher(*command) as launched:
            assert (await launched.rest())[-1] == (b"X", b"recurse=0\0")
            launched.end_command()
            await world.until_no_slot_is_taken()
        await trio.testing.wait_all_tasks_blocked()
    assert len(checks) == 3
    await world.say("gcc")
    assert len(checks) == 3


async def test_a_command_that_exceeded_its_time_does_not_run_here_without_one(tmp_path: Path) -> None:
    end = msgspec.structs.replace(ran(0, 9), dropped=(b"srv/x/a",), timed_out=True)
    world = World(tmp_path, script(end=end))
    told = await world.say("gcc")
    assert told[-1][0] == b"E"
    assert world.master.counters.dropped_writes == 1


@pytest.mark.logs("job-fell-back")
async def test_in_a_build_the_place_is_left_to_the_summary(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"))
    world.master.builds = 1
    assert await world.say("gcc") == [(b"X", b"recurse=0\0")]


@pytest.mark.logs("job-fell-back")
async def test_without_a_build_each_place_is_named_once(tmp_path: Path) -> None:
    world = World(tmp_path, wrote(b"srv/x/a"), wrote(b"srv/x/b"), wrote(b"opt/y"))
    notices = [[kind for kind, _ in await world.say(name)].count(b"N") for name in ("a", "b", "c")]
    assert notices == [1, 0, 1]


async def test_a_droppable_place_is_named_once_and_what_is_dropped_there_is_counted(tmp_path: Path) -> None:
    runs = [(b"root/.cache/ccache/%d/o" % n, b"root/.cache/stats") for n in range(5)] + [(b"usr/__pycache__/x",)]
    world = World(tmp_path, *(script(end=msgspec.structs.replace(ran(), dropped=dropped)) for dropped in runs))
    told = [frame for _ in runs for frame in await world.say("gcc", HOME="/root") if frame[0] == b"N"]
    assert told == [
        (b"N", b"termite: 1 command wrote to /root/.cache, outside the tree: dropped\n"),
        (b"N", b"termite: 1 command wrote to __pycache__, outside the tree: dropped\n"),
    ]
    assert world.master.counters.dropped_writes == 11


async def test_after_a_while_without_a_job_a_dropped_write_is_told_of_again(tmp_path: Path) -> None:
    there = script(end=msgspec.structs.replace(ran(), dropped=(b"usr/lib/__pycache__/x",)))
    world = World(tmp_path, there, there, there)
    notices = []
    for pause_s in (0, 0, 11):
        world.master.last_busy_s -= pause_s
        notices.append(sum(frame[0] == b"N" for frame in await world.say("gcc")))
    assert notices == [1, 0, 1]


@pytest.mark.logs("job-fell-back", "settled-check-failed")
async def test_what_is_not_known_of_settled_files_makes_a_job_run_here(tmp_path: Path, nursery: trio.Nursery) -> None:
    world = World(tmp_path, script(end=ran()))

    async def fail() -> None:
        raise OSError("disk")

    with patch.object(world.master, "settled_check", SettledCheck(fail)):
        nursery.start_soon(world.master.settled_check.run)
        world.master.settled_check.request()
        async with world.launcher("gcc") as launched:
            told = await launched.first(2)
            assert b"could not be checked: OSError('disk')" in told[0][1] and HERE in told[0][1]
            launched.end_command()
            await world.until_no_slot_is_taken()


@pytest.mark.logs("job-retried")
async def test_a_piece_that_comes_when_its_run_is_lost_is_the_next_runs(tmp_path: Path) -> None:
    """Begin the second run when the reader of the first one is already awake."""
    world, read = World(tmp_path), list[bytes]()

    async def lost(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        world.readers.start_soon(fail_to_read, message)
        await trio.testing.wait_all_tasks_blocked()
        raise lost_worker()

    async def fail_to_read(message: Run) -> None:
        with pytest.raises(FsError):
            await stdin_of(world, message).read(9)

    async def done(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await launched.send(launcher_frames.STDIN, b"ab")
        await trio.testing.wait_all_tasks_blocked()
        read.append(await stdin_of(world, message).read(9))
        return ran()

    world.master.pool = cast(Pool, FakePool([lost, done], world.steps))
    async with trio.open_nursery() as world.readers, world.launcher("sort") as launched:
        assert await launched.frames() == [(b"R", pack_numbers(taken=0, size=9, peek=0))]
        assert await launched.rest() == [(b"E", b"code=0\0")]
    assert read == [b"ab"]


@pytest.mark.logs("output-not-released")
async def test_a_bug_while_output_is_released_stops_neither_its_job_nor_the_outputs_of_others(
    tmp_path: Path, clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, shows(b"1first", end=ran()), shows(b"1second", end=ran(3)))
    release_due = JobOutput.release_due
    with patch.object(JobOutput, "release_due", side_effect=MemoryError):
        assert await outcome(world) == [(b"1", b"first"), (b"E", b"code=0\0")]
    assert "output-not-released" in caplog.text
    caplog.clear()
    async with world.launcher("gcc", fields=PIPES) as launched:
        assert JobOutput.release_due is release_due
        assert await launched.frames() == [(b"1", b"second")]
        assert await launched.frames() == [(b"E", b"code=3\0")]


async def test_held_output_of_a_job_that_has_ended_is_never_written(tmp_path: Path, clock: object) -> None:
    outputs: list[JobOutput] = []

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        outputs.append(world.master.jobs[message.job].output)
        await on_chunk(b"1begun")
        raise LauncherGone

    world = World(tmp_path, run)
    async with world.launcher("gcc", fields=PIPES) as launched:
        assert await launched.frames() is None
    assert [output.due_s for output in outputs] == [math.inf]
