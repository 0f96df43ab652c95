"""A job with a small file as its standard input may be recalled: the file is part of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from termite.engine.launch import job_stdin
from termite.engine.recall.look_up import evidence
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_numbers
from termite.engine.wire.protocol.messages import Ran, Run
from tests.edge.engine.master.test_recalled_jobs import DONE, STREAMS, CachingWorld, traced
from tests.edge.engine.master.test_run_job import FILE, ran, stdin_of

CONTENT = b"b\na\n"
LEFT_AT_END = [*DONE[:-1], (b"E", b"stdin_offset=4\0code=0\0")]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "APART_S", 0.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CachingWorld]:
    end = msgspec.structs.replace(ran(), stdin_offset=len(CONTENT))
    world = CachingWorld(tmp_path, *(traced(end) for _ in range(4)))
    yield world
    assert world.master.cache is not None
    world.master.cache.close()


async def feed(world: CachingWorld, content: bytes, mtime_ns: bytes = b"1") -> list[tuple[bytes, bytes]]:
    """Let a launcher run the command with a file as its standard input, and return its frames."""
    size = b"%d" % len(content)
    fields = {**STREAMS, **FILE, "stdin_size": size, "stdin_mtime_ns": mtime_ns, "stdin_offset": b"0"}
    async with world.launcher("gcc", "-c", "x.c", fields=fields, LANG="C") as launched:
        if 0 < len(content) <= job_stdin.HELD_FILE_BYTES:
            assert await launched.frames() == [(b"R", pack_numbers(size=len(content), offset=0))]
            await launched.send(launcher_frames.STDIN, content)
        told = await launched.rest()
    assert world.master.cache is not None
    for weak in world.master.cache._write():
        world.master.cache.twins.end(weak)
    return told


async def test_a_hit_leaves_the_file_where_the_command_has_left_it(world: CachingWorld) -> None:
    for _ in range(3):
        assert await feed(world, CONTENT) == LEFT_AT_END
    assert (world.master.counters.remote, world.master.counters.cached) == (2, 1)


async def test_a_job_reads_what_its_fingerprint_has_though_the_file_may_change(world: CachingWorld) -> None:
    read: list[bytes] = []
    run_traced = traced(ran())

    async def run(message: Run, on_chunk: Callable[[bytes], Awaitable[None]]) -> Ran:
        read.append(await stdin_of(world, message).read_at(2, 9))
        return await run_traced(message, on_chunk)

    world.master.pool._scripts.insert(0, (9, run))  # type: ignore[attr-defined]
    assert await feed(world, CONTENT) == DONE, "the launcher was not asked again"
    assert read == [CONTENT[2:]]


async def test_another_content_or_time_of_the_file_is_another_command(world: CachingWorld) -> None:
    for _ in range(2):
        await feed(world, CONTENT)
    await feed(world, b"b\nc\n")
    await feed(world, CONTENT, b"2")
    assert (world.master.counters.remote, world.master.counters.cached) == (4, 0)


async def test_a_large_file_is_not_read_and_its_command_not_stored(
    world: CachingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_stdin, "HELD_FILE_BYTES", 3)
    for _ in range(3):
        await feed(world, CONTENT)
    assert (world.master.counters.remote, world.counts()) == (3, {"waiting": 0})
