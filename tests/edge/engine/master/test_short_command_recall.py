"""A short command is answered with a stored result, runs here, or goes to a worker to be traced."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from termite.engine.decide.short_commands import ShortCommands
from termite.engine.launch.local_runs import LocalSlots
from termite.engine.master.reuse import ended_jobs, short_command_recall
from termite.engine.recall.look_up import evidence
from tests.edge.engine.master.test_recalled_jobs import DONE, CachingWorld, traced
from tests.edge.engine.master.test_run_job import ran

RUNS_HERE = [(b"X", b"recurse=0\0")]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "APART_S", 0.0)
    monkeypatch.setattr(short_command_recall, "LEAST_S", 0.0)
    monkeypatch.setattr(short_command_recall, "TRACED_SHARE", 0.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CachingWorld]:
    world = CachingWorld(tmp_path, *(traced(ran()) for _ in range(4)))
    world.master.short = ShortCommands(0.0)
    world.master.local_runs.slots = LocalSlots(1, lambda pid: 0)
    yield world
    assert world.master.cache is not None
    world.master.cache.close()


def call_short(world: CachingWorld) -> None:
    """Let each command be known as short."""
    world.master.short = ShortCommands(1.0)
    time_of = world.master.short.time_of
    world.master.short.time_of = lambda key: time_of(key) or 0.01  # type: ignore[method-assign]


async def test_a_proved_result_of_a_short_command_is_used(world: CachingWorld) -> None:
    for _ in range(2):
        assert await world.compile() == DONE
    call_short(world)
    assert await world.compile() == DONE
    counters = world.master.counters
    assert (counters.remote, counters.cached, counters.short) == (2, 1, 0)


async def test_a_short_command_without_a_result_runs_here_at_once(world: CachingWorld) -> None:
    call_short(world)
    assert await world.compile() == RUNS_HERE
    assert world.counts() == {"waiting": 0}, "nobody has looked for a result"


async def test_a_short_command_whose_result_is_not_proved_runs_here(world: CachingWorld) -> None:
    await world.compile()
    call_short(world)
    assert await world.compile() == RUNS_HERE
    assert world.counts()["miss-shape"] == 1
    assert (world.master.counters.remote, world.master.counters.short) == (1, 1)


async def test_a_command_that_takes_less_time_than_a_hit_is_not_looked_up(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await world.compile()
    call_short(world)
    monkeypatch.setattr(short_command_recall, "LEAST_S", 0.02)
    assert await world.compile() == RUNS_HERE
    assert world.counts()["miss-shape"] == 1, "that of the second run"


async def test_a_few_short_commands_are_traced_while_a_slot_is_idle(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_idle = False
    monkeypatch.setattr(short_command_recall, "is_slot_idle", lambda master: is_idle)
    world.master.counters_of = lambda job: (world.master.counters,)  # type: ignore[method-assign]  # one build
    await world.compile()
    call_short(world)
    assert world.master.cache is not None
    monkeypatch.setattr(short_command_recall, "TRACED_SHARE", 0.1)
    assert await world.compile() == RUNS_HERE, "one of two commands is more than a tenth"
    world.master.cache.count_before = 11  # of the build before
    assert await world.compile() == RUNS_HERE, "no slot is idle"
    is_idle = True
    assert await world.compile() == DONE
    assert (world.counts()["proved"], world.master.counters.traced) == (1, 1)
    assert await world.compile() == DONE, "it is proved now"
    assert (world.master.counters.cached, world.master.counters.traced) == (1, 1)


async def test_a_command_whose_result_cannot_be_stored_is_not_traced_again(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_command_recall, "is_slot_idle", lambda master: True)
    monkeypatch.setattr(short_command_recall, "TRACED_SHARE", 1.0)
    world.master.counters_of = lambda job: (world.master.counters,)  # type: ignore[method-assign]  # one build
    with monkeypatch.context() as large:
        large.setattr(ended_jobs, "MOST_BYTES", -1)
        await world.compile()
    call_short(world)
    assert await world.compile() == RUNS_HERE
    assert world.master.counters.traced == 0
