"""Test that a failed command runs again if an input changed, with the fakes of `test_run_job`."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import LateInput
from termite.engine.history.logic.missing_edges import missing_edge
from termite.engine.launch.output import HOLD_S
from termite.engine.master.job import Job
from termite.engine.master.recording.job_records import RecordSettings, record_of
from termite.engine.master.remote_runs.late_inputs import LONGEST_S
from termite.engine.master.reuse.run_observer import ObservedRun, RunObserver
from termite.engine.model import Attr, CacheMode, Change, Changeset, PackedTrace, TraceGap, TraceMode
from termite.engine.paths import from_root_down
from termite.engine.recall.logic.traced_paths import AccessKind
from termite.engine.tree.logic.attrs import Seen
from termite.engine.wire.protocol.messages import Ran, Run
from termite.fuse.view.trace_names import TraceNames
from tests.edge.engine.master.test_run_job import (
    CHANGE,
    COLLECTED,
    PIPES,
    TERMINAL,
    Launched,
    Script,
    World,
    ran,
    script,
)
from tests.unit.fuse.view.test_trace_names import noted

READ, STAT = AccessKind.READ | AccessKind.FOLLOW, AccessKind.STAT | AccessKind.FOLLOW
DIRECTORY, FILE = Attr(0o040755, 4096, 1), Attr(0o100644, 1, 1)
FAILED = ran(1, changes=())
NEEDS = b"2x.c needs gen.h"


class Workshop:
    """A master whose jobs are traced, and a tree in which `gen.h` may appear."""

    def __init__(self, tmp_path: Path, *scripts: Script, cache: CacheMode) -> None:
        self.world = World(tmp_path, *scripts, cache=cache)
        self.master, self.tree = self.world.master, self.world.tree
        self.master.config = replace(self.master.config, trace=TraceMode.EXACT)
        self.top = self.master.writable_root
        self.input = self.top + b"/gen.h"
        self.changesets: list[Changeset] = []
        self.undrained: list[Change] = []
        self.tree.drain = self._drain  # type: ignore[method-assign]
        self.tree.changesets_since = self._since  # type: ignore[method-assign]
        attrs = self.tree.attrs
        for directory in (b"", *from_root_down(self.top)):
            if directory:
                attrs.put(directory, Seen(DIRECTORY))
            attrs.serve(directory, {})
        self.jobs: list[Job] = []  # one for each traced run

    def _drain(self) -> int:
        self.world.steps.append("drain")
        for change in self.undrained:
            self.tree.attrs.put(change.path, Seen(FILE))
            self.tree.number += 1
            self.changesets.append(Changeset(self.tree.number, (change,)))
        self.undrained.clear()
        return self.tree.number

    def _since(self, cursor: int) -> tuple[Changeset, ...]:
        return tuple(changeset for changeset in self.changesets if changeset.number > cursor)

    def make(self, path: bytes, *, content: bool = True) -> None:
        """Let somebody write a file. The master hears of it when it drains."""
        self.undrained.append(Change(path, FILE, content=content))

    def trace(self, message: Run, gaps: int = 0, kinds: AccessKind = READ) -> PackedTrace:
        """Return the trace of a job that has named the input."""
        self.jobs.append(self.master.jobs[message.job])
        lease = self.jobs[-1].lease
        assert lease is not None
        trace = TraceNames().pack(noted([(b"/" + self.input, kinds, kinds)]), 1, gaps)
        lease.traced_names.learn(trace)
        return trace

    async def compile(self, fields: dict[str, bytes] = PIPES) -> list[tuple[bytes, bytes]]:
        """Run a command to its end, and return all frames that its launcher receives."""
        async with self.world.launcher("gcc", "-c", "x.c", "-o", "x.o", fields=fields) as launched:
            return await launched.rest()


Meanwhile = Callable[[Workshop], None]


def nothing(shop: Workshop) -> None:
    """Happen while a command runs."""


def the_input_comes(shop: Workshop) -> None:
    shop.make(shop.input)


def workshop(
    tmp_path: Path,
    meanwhile: Meanwhile = the_input_comes,
    first: Ran = FAILED,
    later: tuple[Script, ...] = (),
    gaps: int = 0,
    kinds: AccessKind = READ,
    cache: CacheMode = CacheMode.OFF,
) -> Workshop:
    """Return a workshop whose first command fails meanwhile; `later` are its other runs."""

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(NEEDS)
        meanwhile(shop)
        trace = shop.trace(message, gaps, kinds) if message.trace else None
        return msgspec.structs.replace(first, trace=trace)

    async def passes(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        return await script(b"1compiled", end=ran(changes=(made(shop),)))(message, on_chunk)

    shop = Workshop(tmp_path, run, *(later or (passes,)), cache=cache)
    return shop


def made(shop: Workshop) -> Change:
    """Return the change of the output."""
    return msgspec.structs.replace(CHANGE, path=shop.top + b"/x.o")


async def test_a_command_that_failed_before_its_input_was_there_runs_again_and_passes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "termite")
    shop = workshop(tmp_path)
    shop.tree.results[shop.input] = 6
    shop.master.authors.note(6, 41)
    assert await shop.compile() == [(b"1", b"compiled"), (b"E", b"code=0\0")], "nothing of the first run is shown"
    steps = [step for step in shop.world.steps if step != "drain"]
    assert steps == ["run on w0", "run on w1", "published"], "no worker is to blame"
    counters = shop.master.counters
    assert counters.retries == {Reason.INPUT_CHANGED: 1}
    assert (counters.moved, counters.repeated, counters.remote) == (0, 0, 1)
    line = "x.o failed, then passed when gen.h (made by job 41) was there: a dependency is missing"
    assert counters.missing_edges == {line: 1}
    record = record_of(shop.jobs[0], RecordSettings(shop.top))
    assert (record.late_inputs, record.ran_again) == ((LateInput("gen.h", job=41),), True)
    assert [(attempt.reason, attempt.detail) for attempt in record.attempts] == [
        ("input-changed", "gen.h (made by job 41)")
    ]
    assert missing_edge(record) == line
    assert [line.partition(" ")[0] for line in caplog.messages if line.startswith("job-")] == ["job-came-early"]


async def test_nothing_of_the_failed_run_is_published(tmp_path: Path) -> None:
    left_behind = Change(bytes(tmp_path).strip(b"/") + b"/half.o", FILE)
    shop = workshop(tmp_path, first=ran(1, changes=(left_behind,)))
    assert (await shop.compile())[-1] == (b"E", b"code=0\0")
    assert [[change.path for change in changes] for changes in shop.tree.published] == [[made(shop).path]]


@pytest.mark.parametrize("number", [0, 5])
async def test_an_input_that_no_job_has_made_last_has_no_author(tmp_path: Path, number: int) -> None:
    shop = workshop(tmp_path)
    shop.tree.results[shop.input] = number
    shop.master.authors.note(5, 41)
    await shop.compile()
    assert [found.job for found in shop.jobs[0].notes.late_inputs] == [0]


@pytest.mark.parametrize(
    ("meanwhile", "fields", "first"),
    [
        (nothing, PIPES, FAILED),
        (lambda shop: shop.make(shop.top + b"/other.h"), PIPES, FAILED),
        (lambda shop: shop.make(shop.input, content=False), PIPES, FAILED),
        (the_input_comes, TERMINAL, FAILED),
        (the_input_comes, PIPES, msgspec.structs.replace(FAILED, ended_ns=1 + int(LONGEST_S * 1e9))),
        (the_input_comes, PIPES, msgspec.structs.replace(FAILED, timed_out=True)),
        (the_input_comes, PIPES, ran(0, 9, changes=())),
        (the_input_comes, PIPES, ran(0, changes=())),
    ],
    ids=["nothing", "other-input", "times", "terminal", "long", "timed-out", "killed", "passed"],
)
async def test_a_command_does_not_run_again_without_need_or_if_it_may_be_noticed(
    tmp_path: Path, meanwhile: Meanwhile, fields: dict[str, bytes], first: Ran
) -> None:
    shop = workshop(tmp_path, meanwhile, first)
    told = await shop.compile(fields)
    assert told[-1][0] == b"E" and (b"2", NEEDS[1:]) in told
    assert [step for step in shop.world.steps if step.startswith("run")] == ["run on w0"]
    assert not shop.master.counters.retries


@pytest.mark.parametrize("gaps", [TraceGap.CHROOT, TraceGap.IMPOSSIBLE])
async def test_a_command_of_which_not_everything_is_known_does_not_run_again(tmp_path: Path, gaps: TraceGap) -> None:
    shop = workshop(tmp_path, gaps=int(gaps))
    assert (await shop.compile())[-1] == (b"E", b"code=1\0")


@pytest.mark.parametrize("cache", CacheMode)
async def test_without_traces_no_command_runs_again_though_its_result_would_be_stored(
    tmp_path: Path, cache: CacheMode
) -> None:
    shop = workshop(tmp_path, cache=cache)
    shop.master.config = replace(shop.master.config, trace=TraceMode.OFF)
    assert (await shop.compile())[-1] == (b"E", b"code=1\0")
    assert len(shop.jobs) == (cache is CacheMode.ON), "then it was traced"


async def test_a_file_that_was_only_looked_for_counts(tmp_path: Path) -> None:
    assert (await workshop(tmp_path, kinds=STAT).compile())[-1] == (b"E", b"code=0\0")


async def test_a_command_that_fails_twice_has_failed(tmp_path: Path) -> None:
    async def again(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        await on_chunk(b"2x.c is wrong")
        shop.make(shop.input)
        return msgspec.structs.replace(ran(2), trace=shop.trace(message))

    shop = workshop(tmp_path, later=(again,))
    assert await shop.compile() == [(b"2", b"x.c is wrong"), (b"E", b"code=2\0")]
    assert shop.master.counters.retries == {Reason.INPUT_CHANGED: 1}
    assert not shop.master.counters.missing_edges


@pytest.mark.logs("job-fell-back")
async def test_a_command_that_wrote_outside_the_tree_runs_here_and_not_there_again(tmp_path: Path) -> None:
    shop = workshop(tmp_path, first=msgspec.structs.replace(FAILED, dropped=(b"srv/x",)))
    assert (await shop.compile())[-1] == (b"X", b"recurse=0\0")
    assert [step for step in shop.world.steps if step.startswith("run")] == ["run on w0"]


@pytest.mark.logs("job-fell-back")
async def test_without_a_worker_for_the_second_run_the_command_runs_here(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    shop.master.pool._scripts[1:] = []  # type: ignore[attr-defined]
    told = await shop.compile()
    assert told[-1] == (b"X", b"recurse=0\0") and (b"2", NEEDS[1:]) not in told


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Jump over a second of waiting, but not while a process or socket of the test is busy."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


async def test_output_that_was_shown_while_the_tree_was_looked_at_keeps_the_command_from_running_again(
    tmp_path: Path, clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = RunObserver.observe

    async def observe(*arguments: object) -> ObservedRun:
        await trio.sleep(2 * HOLD_S)
        return await looked(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RunObserver, "observe", observe)
    shop = workshop(tmp_path)
    assert await shop.compile() == [(b"2", NEEDS[1:]), (b"E", b"code=1\0")]
    shop = workshop(tmp_path / "other")
    assert (await shop.compile(COLLECTED))[-1] == (b"E", b"code=0\0"), "nobody reads the output before the end"


async def test_a_command_whose_launcher_ends_meanwhile_does_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = trio.Event()

    async def observe(*_: object) -> ObservedRun:
        looks.set()
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(RunObserver, "observe", observe)
    shop = workshop(tmp_path)
    async with shop.world.launcher("gcc", fields=PIPES) as launched:
        await looks.wait()
        await ended(launched)
    assert [step for step in shop.world.steps if step.startswith("run")] == ["run on w0"]


async def ended(launched: Launched) -> None:
    """Close the launcher's connection."""
    await launched._stream.aclose()
