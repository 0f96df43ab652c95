"""A job takes memory that no process maps, and the control group of its worker spares others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from termite.engine.errors import Retryable, first_error
from termite.engine.host.own_cgroup import find_group
from termite.engine.worker.job_group import job_group, lease_group
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


# Mount the control group of the job, in namespaces of its own, and use all that is in it.
TAKE_OVER = """
import ctypes, os
libc, uid, gid = ctypes.CDLL(None), os.getuid(), os.getgid()
NEWUSER, NEWNS, NEWCGROUP = 0x10000000, 0x00020000, 0x02000000
assert libc.unshare(NEWUSER | NEWNS | NEWCGROUP) == 0
for name, text in ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"):
    open(f"/proc/self/{name}", "w").write(text)
os.mkdir("/tmp/group")
assert libc.mount(b"none", b"/tmp/group", b"cgroup2", 0, None) == 0
for name, text in ("memory.max", "max"), ("cgroup.freeze", "0"), ("cgroup.kill", "1"):
    try:
        os.makedirs(f"/tmp/group/{name}-was-here", exist_ok=True)
        open(f"/tmp/group/{name}", "w").write(text)
    except OSError as error:
        print(name, error)
"""


@contextmanager
def divided_group(mount: Path) -> Iterator[Path]:
    """Make a group of version 2 that an ordinary user's worker divides, as systemd gives one."""
    before = mount / Path("/proc/self/cgroup").read_text().partition("0::/")[2].partition("\n")[0]
    group = mount / f"termite-test-{os.getpid()}"
    for place in (group, group / "tests", group / "jobs"):
        place.mkdir()
        if place == group and "memory" in (group / "cgroup.controllers").read_text().split():
            (group / "cgroup.subtree_control").write_text("+memory")
        for path in (place, *(file for file in place.iterdir() if file.is_file())):
            os.chown(path, NOBODY, NOBODY)
    # A process moves only within a group that it may write to.
    (group / "tests/cgroup.procs").write_text(str(os.getpid()))
    try:
        yield group / "jobs"
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        for made, _, _ in os.walk(group, topdown=False):
            os.rmdir(made)


@pytest.fixture
def divided() -> Iterator[Path]:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    tops = [Path(line.split()[4]) for line in mounts if " - cgroup2 " in line]
    if not tops or not os.access(tops[0], os.W_OK):
        pytest.skip("needs a control group of version 2 that may be divided")
    with divided_group(tops[0]) as group:
        yield group


@pytest.fixture
def top() -> Iterator[Path]:
    """Yield a group with a limit of memory, of the version that has the memory on this machine."""
    found = find_group("memory")
    if found is None or not os.access(found[0], os.W_OK):
        pytest.skip("this machine has no control group with memory that may be divided")
    if (found[0] / "cgroup.controllers").exists():
        # Our own group has processes. Below the mount, systemd divides the memory.
        if "memory" not in (found[1] / "cgroup.subtree_control").read_text().split():
            pytest.skip("the groups of version 2 on this machine do not divide the memory")
        with divided_group(found[1]) as jobs:
            yield jobs
        return
    group = found[0] / f"termite-test-{os.getpid()}"
    group.mkdir()
    yield group
    group.rmdir()


def memory_of(group: Path) -> tuple[int, int]:
    """Return how often the kernel has killed in a group, and the most bytes that it has had.

    The files of both versions of control groups are known. Before Linux 5.19, version 2 does not
    note the most: its limit stands for that.
    """
    if (group / "memory.oom_control").exists():
        events, peak = group / "memory.oom_control", group / "memory.max_usage_in_bytes"
    else:
        events, peak = group / "memory.events", group / "memory.peak"
    counts = dict(line.split() for line in events.read_text().splitlines())
    return int(counts["oom_kill"]), int((peak if peak.exists() else group / "memory.max").read_text())


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
        kills, most_bytes = memory_of(procs.parent)
        async with mirror(master, place, inside):
            assert await master.said("/bin/echo", "served") == b"served\n"
    is_spared = kills == 0 or most_bytes > MOST_BYTES
    assert verdict(is_spared, "the kernel kills in the worker's group") == "HELD", (kills, most_bytes)


@pytest.mark.needs_root("makes a control group")
async def test_a_job_that_mounts_its_control_group_harms_its_own_lease_only(divided: Path) -> None:
    worker = WORKERS["an ordinary user's worker"]
    all_jobs = divided / "cgroup.procs"
    with place_of(worker) as place, lease_group(all_jobs) as one, lease_group(all_jobs) as other:
        attacker, victim = FakeMaster(place / "project"), FakeMaster(place / "project")
        for group in (one, other):
            assert group is not None
            for path in (group.parent, *(file for file in group.parent.iterdir() if file.is_file())):
                os.chown(path, NOBODY, NOBODY)  # the worker itself is root here
        for master, name in ((attacker, "attacker"), (victim, "victim")):
            (place / name).mkdir()
            os.chown(place / name, NOBODY, NOBODY)
            master.uid = master.gid = NOBODY
        async with mirror(victim, place / "victim", replace(worker, group=other)):
            with pytest.raises((Retryable, AssertionError)), first_error():
                async with mirror(attacker, place / "attacker", replace(worker, group=one)):
                    await attacker.run("/usr/bin/python3", "-c", TAKE_OVER)
            served = await victim.said("/bin/echo", "served")
    left = [name for name in os.listdir(divided) if name.startswith("lease-")]
    assert not left, "it is removed with what the job has made in it"
    what = "a job may kill what is in its control group: that of its own lease"
    assert verdict(served != b"served\n", what) == "HELD"
