"""Masters open several leases of a worker, and their jobs fill its memory with files.

The worker and its mirrors are real.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Exit
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.messages import Leased
from termite.engine.wire.transport import dial
from tests.e2e.cluster import HOST, daemon, free_port, new_secret
from tests.e2e.conftest import MakePlace
from tests.e2e.mirrors import FakeMaster
from tests.e2e.places import IS_ROOT, Place

ALL_MIB = 600  # of scratch space, for all leases
# By fstatfs, because a command that calls statfs is sent home.
# A command that asks this runs on the master's machine, unless its program is find(1). The worker's
# project therefore has a Python of this name.
SIZE = "import os; found = os.fstatvfs(os.open('.', os.O_RDONLY)); print(found.f_blocks * found.f_frsize >> 20)"

FREE_FILES = "import os; print(os.fstatvfs(os.open('.', os.O_RDONLY)).f_ffree)"


@pytest.fixture(params=["root", "ordinary"] if IS_ROOT else ["ordinary"])
def where(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Place]:
    with make_place(request.param) as made:
        yield made


class Worker:
    """A worker that runs, as its masters see it."""

    def __init__(self, port: int, secret: bytes, project: Path) -> None:
        self._port = port
        self._secret = secret
        self._project = project

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[FakeMaster]:
        master = FakeMaster(self._project)
        async with dial(HOST, self._port, mint(self._secret, "m", Role.CLIENT), master.answer) as connection:
            master.connection = connection
            assert isinstance(await connection.request(master.lease(), timeout_s=20), Leased)
            yield master


@pytest.fixture
def worker(where: Place) -> Iterator[Worker]:
    port, secret, project = free_port(), new_secret(where), where.base / "project"
    project.mkdir(mode=0o755)
    shutil.copy(os.path.realpath("/usr/bin/python3"), project / "find")
    flags = ["-port", str(port), "-secret", str(secret), "-coordinator", "", "-jobs", "4"]
    flags += ["-cachedir", str(where.base / "cache"), "-scratch", "tmpfs", "-scratch-size", f"{ALL_MIB}M"]
    with daemon(where, "termite-worker", *flags):
        yield Worker(port, secret.read_bytes().rstrip(), project)


async def size_mib(master: FakeMaster) -> int:
    return int(await master.said("./find", "-c", SIZE))


async def fill(master: FakeMaster, mib: int, then: str = "exit 0") -> Exit:
    script = f"dd if=/dev/zero of=filler bs=1M count={mib}; rm -f filler; {then}"
    return (await master.run("sh", "-c", script)).exit


async def test_two_leases_together_fill_no_more_than_the_worker_allows(worker: Worker) -> None:
    async with worker.lease() as first:
        assert await size_mib(first) == ALL_MIB
        async with worker.lease() as second, trio.open_nursery() as nursery:
            assert await size_mib(first) == await size_mib(second) == ALL_MIB // 2
            nursery.start_soon(_expect_full, first)
            nursery.start_soon(_expect_full, second)
        with trio.fail_after(20):
            await _wait_for_size(first, ALL_MIB)
        assert await fill(first, ALL_MIB // 2 + 50) == Exit(0)
    print("HELD")


async def _expect_full(master: FakeMaster) -> None:
    with pytest.raises(Retryable) as caught:
        await fill(master, ALL_MIB, "exit 1")
    assert caught.value.reason is Reason.SCRATCH_FULL


async def test_a_lease_that_has_more_than_its_new_share_gets_no_more(worker: Worker) -> None:
    async with worker.lease() as first, trio.open_nursery() as nursery:
        was_full = trio.Event()
        nursery.start_soon(_expect_full_later, first, was_full)
        await trio.sleep(1)
        async with worker.lease() as second:
            assert await size_mib(second) == ALL_MIB // 2
            assert await fill(second, 50) == Exit(0)
            with trio.fail_after(40):
                await was_full.wait()
                await _wait_for_size(first, ALL_MIB // 2)
    print("HELD")


async def _wait_for_size(master: FakeMaster, mib: int) -> None:
    is_so = False
    while not is_so:
        with suppress(Retryable):  # the files of a job that was given back are still being removed
            is_so = await size_mib(master) == mib


async def _expect_full_later(master: FakeMaster, was_full: trio.Event) -> None:
    with pytest.raises(Retryable) as caught:
        await master.run("sh", "-c", f"dd if=/dev/zero of=held bs=1M count={ALL_MIB // 2 + 50}; sleep 4; echo x > more")
    assert caught.value.reason is Reason.SCRATCH_FULL
    was_full.set()


async def test_many_empty_files_are_no_way_around_the_size(worker: Worker) -> None:
    async with worker.lease() as master:
        free = int(await master.said("./find", "-c", FREE_FILES))
        assert free < (ALL_MIB << 20) // 8000
    print("HELD")
