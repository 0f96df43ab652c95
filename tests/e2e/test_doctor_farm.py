"""The doctor names each planted fault of a farm, and tries its workers side by side."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cluster import HOST, Daemon, copy_secret, daemon, free_port, new_secret, start_worker
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.places import COMMANDS, Place
from tests.e2e.test_doctor import UNFIT, doctor
from tests.e2e.test_hosts import bridged, ip
from tests.e2e.waiting import wait_until

BOUND_S = 20.0  # a doctor's run here takes 3 s on an idle machine; a worker that stands still costs 5 s more
# A coordinator of real code that says another number, and whose clock is five seconds ahead.
OTHER_COORDINATOR = """
import sys, time
import termite.engine.fleet.coordinator as coordinator
from termite.cli import daemons
coordinator.PROTOCOL += {protocol}
real_ns = time.time_ns
time.time_ns = lambda: real_ns() + {ahead_s} * 10**9
sys.exit(daemons.coordinator(sys.argv[1:]))
"""
AHEAD = "import time\nreal_ns = time.time_ns\ntime.time_ns = lambda: real_ns() + 5 * 10**9\n"


@dataclass
class Farm:
    """A farm whose workers have one fault each."""

    where: Place
    secret: Path
    address: str
    coordinator: Daemon
    workers: dict[str, Daemon]


@pytest.fixture(scope="module")
def farm(make_place: MakePlace) -> Iterator[Farm]:
    """Yield two sound workers, two of one name, and one for each other fault."""
    with make_place("ordinary") as where, ExitStack() as stack:
        secret, port = new_secret(where), free_port()
        words = ("-port", str(port), "-secret", str(secret))
        coordinator = stack.enter_context(daemon(where, "termite-coordinator", *words))
        address = f"{HOST}:{port}"
        (ahead := where.base / "ahead").mkdir()
        (ahead / "sitecustomize.py").write_text(AHEAD)
        workers = {}
        for name in ("first", "second", "twin", "twin 2", "still", "killed", "ahead"):
            at = where
            if name == "ahead":
                env = {**where.env, "PYTHONPATH": str(ahead)}
                at = Place(where.enter, where.become, where.uid, where.base, env, where.holder)
            shown = name.partition(" ")[0]
            workers[name] = stack.enter_context(start_worker(at, secret, address, shown, "-listen", HOST))
        yield Farm(where, secret, address, coordinator, workers)


def test_each_fault_of_a_worker_is_named_beside_workers_that_are_sound(farm: Farm) -> None:
    farm.coordinator.wait_for("worker-name-twice worker=twin address=")  # the twins have registered in turns
    farm.workers["still"].process.send_signal(signal.SIGSTOP)
    farm.workers["killed"].stop(signal.SIGKILL)
    began_s = time.monotonic()
    try:
        found = doctor(farm.where, "-coordinator", farm.address, "-secret", str(farm.secret))
    finally:
        farm.workers["still"].process.send_signal(signal.SIGCONT)
    took_s = time.monotonic() - began_s
    assert took_s < BOUND_S, (took_s, found)
    assert found.code == UNFIT
    for name in ("first", "second", "twin"):
        found.expect("job", "ok", "its result came back", "", f"worker {name}")
        found.expect("cache", "ok", "its store may have 20.0 GiB", "", f"worker {name}")
        found.expect("clock", "ok", "its clock differs by", "", f"worker {name}")
    found.expect("name", "failure", "two workers have this name", "-name ANOTHER", "worker twin")
    found.expect("clock", "failure", "its clock differs by +5.0 s", "timedatectl", "worker ahead")
    found.expect("reach", "failure", "does not answer in 5 s", "-CONT", "worker still")
    found.expect("reach", "failure", "Connection refused", "see that the daemon runs there", "worker killed")
    assert {entry["area"] for entry in found.findings if entry["level"] != "ok" and "worker" in entry["area"]} == {
        f"worker {name}" for name in ("twin", "ahead", "still", "killed")
    }


def test_faults_of_the_coordinator_and_the_secret_are_named(farm: Farm) -> None:
    where, own = farm.where, str(farm.secret)
    (other := where.base / "other.txt").write_text("0" * 64)
    other.chmod(0o600)
    if where.uid != os.geteuid():
        os.chown(other, where.uid, where.uid)
    area = f"coordinator {farm.address}"
    found = doctor(where, "-coordinator", farm.address, "-secret", str(other))
    found.expect("secret", "failure", "another secret", "copy one secret file to every machine", area)
    closed = f"{HOST}:{free_port()}"
    found = doctor(where, "-coordinator", closed, "-secret", own)
    found.expect("reach", "failure", "Connection refused", f"termite-coordinator -port {closed[10:]}", "coordinator")
    with socket.create_server((HOST, 0)) as deaf:  # as a port that another program has
        found = doctor(where, "-coordinator", f"{HOST}:{deaf.getsockname()[1]}", "-secret", own)
        found.expect("reach", "failure", "does not answer", "termite-coordinator", "coordinator")


@pytest.mark.parametrize(("protocol", "ahead_s"), [(1, 5)])
def test_a_coordinator_of_another_version_and_time_is_named(farm: Farm, protocol: int, ahead_s: int) -> None:
    where = farm.where
    with other_coordinator(where, farm.secret, protocol, ahead_s) as address:
        found = doctor(where, "-coordinator", address, "-secret", str(farm.secret))
    assert found.code == UNFIT
    found.expect("version", "failure", "the coordinator speaks protocol", "one version of termite", "coordinator")
    found.expect("clock", "failure", "+5.0 s", "timedatectl set-ntp true", "coordinator")


@contextmanager
def other_coordinator(where: Place, secret: Path, protocol: int, ahead_s: int) -> Iterator[str]:
    port = free_port()
    script = OTHER_COORDINATOR.format(protocol=protocol, ahead_s=ahead_s)
    words = ["-port", str(port), "-secret", str(secret)]
    log = where.base / "other-coordinator.log"
    with log.open("wb") as output:
        argv = [str(COMMANDS / "python"), "-c", script, *words]
        process = where.start(argv, where.base, stdout=output.fileno(), stderr=output.fileno())
    try:
        wait_until(lambda: b"listens" in log.read_bytes(), "it listens", log.read_text)
        yield f"{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_a_farm_without_workers_is_named(farm: Farm) -> None:
    port, secret = free_port(), str(farm.secret)
    with daemon(farm.where, "termite-coordinator", "-port", str(port), "-secret", secret):
        found = doctor(farm.where, "-coordinator", f"{HOST}:{port}", "-secret", secret)
    found.expect("workers", "failure", "no worker is registered", "termite-worker -coordinator", "coordinator")


@needs_root
def test_a_blocked_way_there_and_a_blocked_way_back_cost_three_seconds(make_place: MakePlace) -> None:
    with ExitStack() as stack:
        home, sound, cut, deaf = (stack.enter_context(make_place("ordinary", network=True)) for _ in range(4))
        addresses = stack.enter_context(bridged([home, sound, cut, deaf]))
        secret, port = new_secret(home), free_port()
        stack.enter_context(daemon(home, "termite-coordinator", "-port", str(port), "-secret", str(secret)))
        address = f"{addresses[0]}:{port}"
        for name, where in (("sound", sound), ("cut", cut), ("deaf", deaf)):
            stack.enter_context(start_worker(where, copy_secret(secret, where), address, name))
        flags = ("-coordinator", address, "-secret", str(secret))
        found = doctor(home, *flags)
        assert [found.of("job", f"worker {name}")["level"] for name in ("sound", "cut", "deaf")] == ["ok"] * 3
        farms = [entry for entry in found.findings if entry["area"] not in ("this machine", "your files")]
        assert {entry["level"] for entry in farms} == {"ok"}, found
        ip(cut.holder, "link set eth0 down")
        ip(deaf.holder, f"route add blackhole {addresses[0]}/32")  # it hears us, and its answers go nowhere
        began_s = time.monotonic()
        found = doctor(home, *flags)
        took_s = time.monotonic() - began_s
        assert took_s < BOUND_S / 2, (took_s, found)
        found.expect("job", "ok", "its result came back", "", "worker sound")
        for name in ("cut", "deaf"):
            mend = "firewalls let TCP port"
            found.expect("reach", "failure", "cannot be reached: the connection failed", mend, f"worker {name}")
            assert "routes lead back" in found.of("reach", f"worker {name}")["mend"]
