"""A job tries abstract sockets outside of it, such as those of the desktop of a worker's user.

A build may still make namespaces of its own.
"""

import shutil
import socket
import subprocess
import sys
import uuid
from contextlib import ExitStack

import pytest
import trio

from termite.engine.host.native_programs import native_program
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import (
    LIMIT_S,
    WITHOUT_LANDLOCK,
    WORKERS,
    attack,
    place_of,
    said,
    verdict,
    without_landlock,
)

KERNELS = {"with Landlock": lambda worker: worker, "without Landlock": without_landlock}
KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
# Each of these is what a nested sandbox is made of (bwrap, unshare, rootless containers).
NESTED = """
unshare -Urm sh -ec 'mount -t tmpfs t /tmp; mount --bind /usr /tmp; ls /tmp/bin >/dev/null; umount /tmp'
unshare -Urpf --mount-proc sh -ec 'test "$(ls /proc | grep -c "^[0-9]")" -lt 9'
unshare -Urn true
sleep 100 & kill $! && ! wait $!
"""

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())


@workers
@pytest.mark.parametrize(
    ("kernel", "network"), [("with Landlock", False), ("with Landlock", True), ("without Landlock", False)]
)
async def test_a_job_reaches_no_abstract_sockets_but_its_own(worker: Starter, kernel: str, network: bool) -> None:
    name, output = f"attack-{uuid.uuid4().hex}", list[bytes]()
    with place_of(worker) as place, ExitStack() as sockets, trio.fail_after(LIMIT_S):
        for kind in KINDS:
            outside = sockets.enter_context(socket.socket(socket.AF_UNIX, kind))
            outside.bind(f"\0{name}-{kind:d}")
            if kind == socket.SOCK_STREAM:
                outside.listen()
        master = FakeMaster(place / "project")
        async with mirror(master, place, KERNELS[kernel](worker)):
            await attack(master, "reach_socket.py", name, output=output, network=network)
    print(said(output))
    assert verdict("\nreached the worker's" in said(output), "a socket outside of a job") == "HELD"
    assert said(output).count("could not reach the worker's") == said(output).count("reached its own") == len(KINDS)


@workers
@pytest.mark.parametrize("kernel", KERNELS)
async def test_a_job_makes_namespaces_of_its_own_as_on_its_masters_machine(worker: Starter, kernel: str) -> None:
    lines = NESTED.strip().splitlines()
    if shutil.which("bwrap"):
        lines.append("bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all true")
    with place_of(worker) as place, trio.fail_after(LIMIT_S):
        master = FakeMaster(place / "project")
        master.uid = master.gid = 1000
        async with mirror(master, place, KERNELS[kernel](worker)):
            for line in lines:
                for network in (False, True):
                    output: list[bytes] = []
                    ran = await master.run("/bin/sh", "-c", line, output=output, network=network)
                    assert ran.exit.code == 0, (line, said(output))


@pytest.mark.parametrize("kernel", KERNELS)
async def test_jobs_of_a_lease_meet_on_their_loopback_only_where_landlock_keeps_them_apart(kernel: str) -> None:
    namespaces = set()
    with place_of(Starter()) as place, trio.fail_after(LIMIT_S):
        master = FakeMaster(place / "project")
        async with mirror(master, place, KERNELS[kernel](Starter())):
            for _ in range(2):
                namespaces.add(await master.said("readlink", "/proc/self/ns/net"))
                assert b"127.0.0.1" in await master.said("sh", "-c", "ip -4 addr show lo up || cat /proc/net/fib_trie")
    assert len(namespaces) == {"with Landlock": 1, "without Landlock": 2}[kernel]


@pytest.mark.parametrize(
    ("through", "guard", "told"),
    [((), "landlock", b"Landlock forbids it"), (WITHOUT_LANDLOCK, "namespaces", b"each has a network namespace")],
    ids=KERNELS.keys(),
)
def test_doctor_says_how_they_are_kept_apart(through: tuple[str, ...], guard: str, told: bytes) -> None:
    program = native_program("termite-sandbox")
    assert subprocess.check_output([*through, program, "sockets"], timeout=LIMIT_S).decode() == guard + "\n"
    doctor = [*through, sys.executable, "-c", "from termite.cli import ctl_command; ctl_command()", "doctor"]
    # The exit code tells of this machine's other faults, too.
    assert told in subprocess.run(doctor, capture_output=True, timeout=LIMIT_S, check=False).stdout
