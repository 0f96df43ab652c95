"""Jobs that take the processes, the memory or the scratch space of a worker's machine.

Such a job is given back, whatever its exit code, and the honest job beside it goes on.
"""

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.host.process_state import children_of
from termite.engine.model import Exit, JobLimits
from termite.engine.wire.protocol.messages import Ran
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import NOBODY, WORKERS, place_of, said, verdict

PROCESSES = 300
# All of them wait, and end by themselves. Nobody makes more than 20,000 of them.
FORK_BOMB = """
import os, sys, time
end = time.monotonic() + 20
made = 0
while made < 20_000 and time.monotonic() < end:
    try:
        if os.fork() == 0:
            time.sleep(max(end - time.monotonic(), 0))
            os._exit(0)
        made += 1
    except BlockingIOError:
        {then}
sys.exit({code})
"""
THREAD_BOMB = """
import threading, time
for _ in range(20_000):
    threading.Thread(target=time.sleep, args=(0.05,)).start()
time.sleep(1)
"""
MOMENT = """
import os, signal
pids = []
try:
    while len(pids) < 20_000:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except BlockingIOError:
    pass
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
HOG = """
import time
held = []
for _ in range({mib} // 10):
    held.append(bytearray(b"x") * (10 << 20))
    time.sleep(0.02)
time.sleep(5)
"""
RAISE_LIMIT = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
assert soft == hard
try:
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard + 1))
except ValueError:
    print(soft, "refused")
"""
SHARERS = """
import os, time
held = bytearray(b"x") * (100 << 20)
for _ in range(8):
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
for _ in range(8):
    os.wait()
"""

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)


@asynccontextmanager
async def honest_job_beside(worker: Starter, limits: JobLimits) -> AsyncIterator[FakeMaster]:
    """Run a mirror in which a job without faults runs for 2 s."""
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        master.uid = master.gid = NOBODY  # root's jobs make no namespaces
        async with mirror(master, place, replace(worker, limits=limits)), trio.open_nursery() as nursery:
            nursery.start_soon(_be_honest, master)
            await trio.sleep(0.2)
            yield master


async def _be_honest(master: FakeMaster) -> None:
    assert (await master.run("sh", "-c", "for i in 1 2 3 4; do sleep 0.5; done; exit 7")).exit == Exit(7)


async def _answer(master: FakeMaster, script: str) -> Ran | Retryable:
    """Return the result of a job, or the error with which it is given back."""
    try:
        return await master.run("/usr/bin/python3", "-c", script)
    except Retryable as error:
        return error


def _hold(answers: Sequence[Ran | Retryable], reason: Reason, what: str) -> None:
    """Print whether all jobs were given back for this reason, and fail if they were not."""
    broken = [one for one in answers if not isinstance(one, Retryable) or one.reason is not reason]
    assert verdict(bool(broken), what) == "HELD", broken


@workers
@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("then", ["time.sleep(0.001)", "break"])
async def test_a_fork_bomb_is_given_back(worker: Starter, code: int, then: str) -> None:
    async with honest_job_beside(worker, JobLimits(processes=PROCESSES)) as master:
        began_s = time.monotonic()
        answer = await _answer(master, FORK_BOMB.format(code=code, then=then))
        took_s = time.monotonic() - began_s
    _hold([answer], Reason.PROCESSES_FULL, f"a fork bomb that ends with {code} is given back")
    assert took_s < 5
    assert "-job-processes" in str(answer)


@workers
async def test_a_job_whose_threads_were_refused_and_have_ended_is_given_back(worker: Starter) -> None:
    async with honest_job_beside(worker, JobLimits(processes=PROCESSES)) as master:
        answers = [await _answer(master, script) for script in (THREAD_BOMB, MOMENT)]
    what = "a bomb of threads is given back, and so is a job that met the limit for a moment"
    _hold(answers, Reason.PROCESSES_FULL, what)


@workers
async def test_the_kernel_holds_the_limit_between_two_looks_and_a_job_cannot_raise_it(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, replace(worker, limits=JobLimits(processes=PROCESSES))):
            output: list[bytes] = []
            await master.run("/usr/bin/python3", "-c", RAISE_LIMIT, output=output)
    is_raised = said(output) != f"{PROCESSES} refused\n"
    what = "the kernel refuses processes beyond the limit, and a higher limit"
    assert verdict(is_raised, what) == "HELD", said(output)


@workers
async def test_many_processes_one_after_the_other_meet_no_limit(worker: Starter) -> None:
    script = f"i=0; while [ $i -lt {2 * PROCESSES} ]; do /bin/true; sleep 0.002; i=$((i+1)); done; exit 3"
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, replace(worker, limits=JobLimits(processes=PROCESSES))):
            assert (await master.run("sh", "-c", script)).exit == Exit(3)


@workers
async def test_a_memory_hog_is_given_back(worker: Starter) -> None:
    async with honest_job_beside(worker, JobLimits(memory_bytes=200 << 20)) as master:
        answer = await _answer(master, HOG.format(mib=600))
    _hold([answer], Reason.MEMORY_FULL, "a memory hog is given back")
    assert "200 MiB" in str(answer) and "-job-memory" in str(answer)


@workers
async def test_the_job_beyond_its_share_is_given_back_when_the_machine_runs_short(worker: Starter) -> None:
    limits = JobLimits(fair_bytes=200 << 20, reserve_bytes=1 << 60)
    async with honest_job_beside(worker, limits) as master:
        answer = await _answer(master, HOG.format(mib=600))
    _hold([answer], Reason.MEMORY_FULL, "the largest job gives way")


# Memory that no process maps: in a file without a name, and in a tmpfs of a namespace of the job.
MEMFD_HOG = """
import os, time
fd = os.memfd_create("x")
for _ in range(60):
    os.write(fd, b"x" * (10 << 20))
    time.sleep(0.02)
time.sleep(5)
"""
TMPFS_HOG = """
import os, time
os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
    "mount -t tmpfs none /mnt && cd / && dd if=/dev/zero of=/mnt/x bs=1M count=600 && sleep 5"])
"""
# The name of the tmpfs leads to a directory of which only the mirror knows what is in it.
TRAP = """
import os
os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
    "mkdir -p /mnt/trap && mount -t tmpfs none /mnt/trap && mount --bind /usr/share/doc /mnt && sleep 2"])
"""


@workers
async def test_a_name_of_a_job_that_leads_to_the_mirror_does_not_stop_it(worker: Starter) -> None:
    limits = JobLimits(fair_bytes=1 << 50, reserve_bytes=1 << 60)
    async with honest_job_beside(worker, limits) as master:
        exit = None
        with trio.move_on_after(20):
            exit = (await master.run("/usr/bin/python3", "-c", TRAP)).exit
    assert verdict(exit != Exit(0), "the mirror answers while it looks at memory") == "HELD", exit


@workers
@pytest.mark.parametrize("script", [MEMFD_HOG, TMPFS_HOG], ids=["memfd", "tmpfs"])
async def test_memory_that_no_process_maps_counts_when_the_machine_runs_short(worker: Starter, script: str) -> None:
    limits = JobLimits(fair_bytes=200 << 20, reserve_bytes=1 << 60)
    async with honest_job_beside(worker, limits) as master:
        answer = await _answer(master, script)
    _hold([answer], Reason.MEMORY_FULL, "memory that nobody maps is found")


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@workers
async def test_the_kernel_kills_jobs_before_the_programs_of_the_machine(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker) as process:
            of_job = int(await master.said("cat", "/proc/self/oom_score_adj"))
            (child,) = children_of(process.process.pid)
            found = (of_job, oom_score(child), oom_score(os.getpid()))
    is_spared = not found[0] == found[1] == max(found[2], 500)
    assert verdict(is_spared, "memory that nobody maps hits the jobs of termite first") == "HELD", found


@workers
async def test_memory_that_processes_share_counts_once(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, replace(worker, limits=JobLimits(memory_bytes=300 << 20))):
            assert (await master.run("/usr/bin/python3", "-c", SHARERS)).exit == Exit(0)
