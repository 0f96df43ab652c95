"""A job uses up what the kernel counts for its user, or makes namespaces without end.

Other jobs, and other programs of the same user, still get their part.
"""

import errno
import resource
from pathlib import Path

import pytest
import trio

from termite.engine.errors import Retryable
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import NOBODY, WORKERS, place_of, said, verdict

NAMESPACES_MAX = 2048
OF_USER = Path("/proc/sys/user")
workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)

INOTIFY = """
import ctypes
libc, made = ctypes.CDLL(None), 0
while libc.inotify_init1(0) >= 0:
    made += 1
print(made)
"""
# Keep descriptors in sockets that nobody reads, until the kernel refuses more.
IN_FLIGHT = """
import array, os, resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
fd, sent, kept = os.open("/dev/null", os.O_RDONLY), 0, []
parts = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 250))]
try:
    while True:
        kept += socket.socketpair()
        kept[-1].setblocking(False)
        try:
            while True:
                kept[-1].sendmsg([b"x"], parts)
                sent += 250
        except BlockingIOError:
            pass
except OSError as error:
    print(sent, error.errno, hard)
sys.stdout.flush()
time.sleep(1)
"""
TERMINALS = """
import os
kept = []
try:
    while True:
        kept.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
except OSError as error:
    print(len(kept), error.errno)
"""
NAMESPACES = """
import ctypes, os
libc, kept = ctypes.CDLL(None), []
assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
while len(kept) < 3000 and libc.unshare(0x04000000) == 0:  # CLONE_NEWUTS
    kept.append(os.open("/proc/self/ns/uts", os.O_RDONLY))
print(len(kept))
"""
RAISE_FILES = "import resource as r; h = r.getrlimit(r.RLIMIT_NOFILE)[1]; r.setrlimit(r.RLIMIT_NOFILE, (h, h))"


async def one_job(worker: Starter, script: str) -> list[int]:
    with place_of(worker) as place:
        master, output = FakeMaster(place / "project"), list[bytes]()
        master.uid = master.gid = NOBODY  # root's jobs make no namespaces
        async with mirror(master, place, worker):
            assert (await master.run("/usr/bin/python3", "-c", script, output=output)).exit.code == 0
    return [int(word) for word in said(output).split()]


@workers
async def test_half_of_the_inotify_instances_stay_for_others(worker: Starter) -> None:
    most = int((OF_USER / "max_inotify_instances").read_text())
    (made,) = await one_job(worker, INOTIFY)
    assert verdict(made > most // 2, f"{made} of {most} inotify instances of the user") == "HELD"


@workers
async def test_three_quarters_of_the_terminals_stay_for_other_leases(worker: Starter) -> None:
    terminals = Path("/proc/sys/kernel/pty")
    most = int((terminals / "max").read_text()) - int((terminals / "reserve").read_text())
    made, error = await one_job(worker, f"{RAISE_FILES}\n{TERMINALS}")
    assert verdict(made > most // 4, f"{made} of {most} terminals for containers") == "HELD"
    assert (made, error) == (most // 4, errno.ENOSPC)


@workers
async def test_descriptors_in_flight_keep_no_other_job_from_its_start(worker: Starter) -> None:
    with place_of(worker) as place:
        master, output = FakeMaster(place / "project"), list[bytes]()
        async with mirror(master, place, worker), trio.open_nursery() as nursery:
            nursery.start_soon(lambda: master.run("/usr/bin/python3", "-c", IN_FLIGHT, output=output))
            while not output:  # noqa: ASYNC110  # the output of a job sets no event
                await trio.sleep(0.01)
            codes = list[int | str]()
            for _ in range(6):  # more than wait ready
                try:
                    codes.append((await master.run("/bin/true")).exit.code)
                except Retryable as error:
                    codes.append(str(error))
            sent, _, hard = map(int, said(output).split())
    assert sent >= hard, "the attack has reached its limit"
    assert verdict(codes != [0] * 6, "jobs start beside descriptors in flight") == "HELD", codes


@workers
async def test_namespaces_of_all_jobs_of_a_lease_have_an_end(worker: Starter) -> None:
    script = f"{RAISE_FILES}\n{NAMESPACES}"
    (made,) = await one_job(worker, script)
    assert verdict(made > NAMESPACES_MAX, f"{made} namespaces that use the memory of no process") == "HELD"
    assert made > NAMESPACES_MAX - 100


@workers
@pytest.mark.parametrize("name", ["RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE"])
async def test_half_of_the_queued_signals_and_messages_stay_for_others(worker: Starter, name: str) -> None:
    number = getattr(resource, name)
    most = resource.getrlimit(number)[1]
    if most == resource.RLIM_INFINITY:
        pytest.skip(f"{name} has no limit here")
    soft, hard = await one_job(worker, f"import resource; print(*resource.getrlimit({number}))")
    assert verdict(not soft <= hard == most // 2, f"half of {name}") == "HELD", (soft, hard, most)


@pytest.mark.needs_root("only its worker can forbid it")
@pytest.mark.skipif(
    not int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16) >> 24 & 1,
    reason="root has no CAP_SYS_RESOURCE here",
)
async def test_a_job_of_roots_worker_cannot_make_the_kernel_kill_others_first() -> None:
    script = "open('/proc/self/oom_score_adj', 'w').write('0')"
    with place_of(WORKERS["root's worker"]) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, WORKERS["root's worker"]):
            code = (await master.run("/usr/bin/python3", "-c", script)).exit.code
    assert verdict(code != 1, "the kernel kills the job first") == "HELD"
