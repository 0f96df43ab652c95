"""A job makes files of terabytes that take no space, which the worker would read and send."""

import time

import pytest

from termite.engine.errors import Reason, Retryable
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import WORKERS, place_of, verdict

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)


@workers
@pytest.mark.parametrize("script", ["truncate -s 1T big", "for i in $(seq 100); do truncate -s 10G $i; done"])
async def test_a_result_of_holes_is_given_back_at_once(worker: Starter, script: str) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker):
            began_s = time.monotonic()
            with pytest.raises(Retryable) as refused:
                await master.run("/bin/sh", "-c", script)
            assert refused.value.reason is Reason.TOO_LARGE
            assert time.monotonic() - began_s < 20
    verdict(False, script)


@workers
async def test_an_image_with_holes_comes_home(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker):
            ran = await master.run("/bin/sh", "-c", "truncate -s 200M image && echo content >>image")
            assert [change.attr.size for change in ran.changes if change.attr and change.content] == [(200 << 20) + 8]
