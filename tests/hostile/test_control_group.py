"""A job takes memory that no process maps, and the control group of its worker spares others."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from termite.engine.errors import Retryable, first_error
from termite.engine.host.own_cgroup import find_group
from termite.engine.worker.job_group import job_group
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import NOBODY, WORKERS, place_of, verdict

MOST_BYTES = 300 << 20
# Fill files in memory that no process maps, as no look at processes notices.
UNMAPPED = """
import os
fd, block = os.memfd_create("hog"), bytes(1 << 20)
for _ in range(600):
    os.write(fd, block)
"""


@pytest.fixture
def top() -> Iterator[Path]:
    found = find_group("memory")
    if found is None or not os.access(found[0], os.W_OK):
        pytest.skip("this machine has no control group with memory that may be divided")
    group = found[0] / f"termite-test-{os.getpid()}"
    group.mkdir()
    yield group
    group.rmdir()


@pytest.mark.needs_root("makes a control group")
@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)
async def test_memory_that_no_process_maps_ends_at_the_limit_of_the_group(worker: Starter, top: Path) -> None:
    with job_group(str(top), MOST_BYTES) as procs, place_of(worker) as place:
        assert procs is not None
        os.chown(procs, worker.owner(), worker.owner())
        inside = replace(worker, group=procs)
        master = FakeMaster(place / "project")
        master.uid = master.gid = NOBODY
        # The mirror may be killed, too, and then ends with an error.
        with pytest.raises((Retryable, AssertionError)), first_error():
            async with mirror(master, place, inside):
                assert procs.read_text().split(), "the mirror is in the group"
                await master.run("/usr/bin/python3", "-c", UNMAPPED)
        kills = (procs.parent / "memory.oom_control").read_text()
        assert "oom_kill 0" not in kills, kills
        assert int((procs.parent / "memory.max_usage_in_bytes").read_text()) <= MOST_BYTES
        async with mirror(master, place, inside):
            assert await master.said("/bin/echo", "served") == b"served\n"
    verdict(False, "the kernel kills in the worker's group")
