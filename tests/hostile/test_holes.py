"""A job makes files of terabytes that take no space, which the worker would read and send."""

import time

import pytest

from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import WORKERS, place_of, verdict

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)


@workers
@pytest.mark.parametrize("script", ["truncate -s 1T big", "for i in $(seq 100); do truncate -s 10G $i; done"])
async def test_a_result_of_holes_costs_nothing(worker: Starter, script: str) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker):
            began_s = time.monotonic()
            ran = await master.run("/bin/sh", "-c", script)
            sizes = [change.attr.size for change in ran.changes if change.attr and change.content]
            took_s = time.monotonic() - began_s
            stored = sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))
    assert sum(sizes) >= 1000 << 30, "the attack has taken place"
    assert verdict(took_s > 20 or stored > 100 << 20, script) == "HELD", (took_s, stored)


@workers
async def test_an_image_with_holes_comes_home(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker):
            ran = await master.run("/bin/sh", "-c", "truncate -s 200M image && echo content >>image")
            assert [change.attr.size for change in ran.changes if change.attr and change.content] == [(200 << 20) + 8]
