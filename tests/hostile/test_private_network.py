"""A job with a private network reaches other machines, and nothing that only the worker reaches.

The worker's machine is a network namespace with a service on each address of its own, and with a
link-local one. The other machine is a second namespace, joined by a pair of veth. It has a service
on an address of its own, on a link-local address, and on groups of the link.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import trio

from termite.engine.errors import Retryable
from termite.engine.model import JobNetwork
from tests.e2e.mirrors import FakeMaster, MirrorProcess, Starter, mirror
from tests.e2e.places import held
from tests.hostile.attackers import NOBODY, place_of, said

PASTA = shutil.which("pasta", path="/usr/local/bin:/usr/bin")
pytestmark = [
    pytest.mark.needs_root("the network of two machines"),
    pytest.mark.skipif(PASTA is None, reason="pasta is not installed (Debian: passt)"),
]

PORT = 4711
# The namespace of a machine that says "ready" and lives as long as its standard input. An ordinary
# user may open its /dev/net/tun, as on Debian.
MACHINE = """mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200; ip link set lo up
ip address add 169.254.7.7/16 dev lo; ip address add 10.77.0.1/32 dev lo
ip route add local 10.78.0.0/16 dev lo; ip -6 route add local 2001:db8:78::/64 dev lo; echo ready; read -r _"""
# Answer "here" to everybody who connects, and write what comes as a datagram to stdout.
SERVICE = """import socket, struct, sys
tcp = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
for family, group in ((socket.AF_INET, "224.0.0.251"), (socket.AF_INET6, "ff02::fb")):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    udp.bind(("", int(sys.argv[1])))
    link = socket.if_nametoindex("veth") if len(sys.argv) > 2 else 0
    if link and family == socket.AF_INET:
        member = socket.inet_aton(group) + bytes(4) + struct.pack("@i", link)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    elif link:
        member = socket.inet_pton(family, group) + struct.pack("@I", link)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    def answer(udp=udp):
        while True:
            print("got", udp.recv(100).decode(), flush=True)
    __import__("threading").Thread(target=answer, daemon=True).start()
print("listens", flush=True)
while True:
    with tcp.accept()[0] as connection:
        connection.sendall(b"here")
"""
# Connect to each address, and send a datagram to each group.
REACH = """import socket, sys
port = int(sys.argv[1])
for address in sys.argv[2:]:
    host, _, link = address.partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    datagram = host.startswith(("ff02", "224."))
    with socket.socket(family, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM) as end:
        end.settimeout(5)
        try:
            where = (host, port, 0, socket.if_nametoindex(link)) if link else (host, port)
            end.connect(where)
            if datagram:
                end.send(address.encode())
            print("reached" if datagram or end.recv(4) == b"here" else "silent", address)
        except OSError as error:
            print("refused", address, error)
"""


@dataclass(frozen=True)
class Insider(Starter):
    """The starter of a mirror that lives on the worker's machine, as the user `lives_as`."""

    lives_as: int = NOBODY

    def owner(self) -> int:
        return self.lives_as


@dataclass(frozen=True)
class Link:
    """Two machines that are joined: their holders, and the other one's link-local address."""

    worker: int
    other: int
    link_local: str


def on(machine: int, *command: str) -> str:
    where = ["nsenter", f"--net=/proc/{machine}/ns/net"]
    return subprocess.run([*where, *command], check=True, timeout=10, capture_output=True, text=True).stdout


@contextmanager
def two_machines() -> Iterator[Link]:
    namespaces = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c"]
    with (
        held([*namespaces, MACHINE]) as worker,
        held([*namespaces, "ip link set lo up; echo ready; read -r _"]) as other,
    ):
        on(worker, "ip", "link", "add", "veth", "type", "veth", "peer", "name", "veth", "netns", str(other))
        for machine, last in ((worker, 2), (other, 1)):
            on(machine, "ip", "link", "set", "veth", "up")  # first: the route of an address needs it
            on(machine, "ip", "address", "add", f"10.9.0.{last}/24", "dev", "veth")
            on(machine, "ip", "address", "add", f"fd99::{last}/64", "dev", "veth", "nodad")
        on(worker, "ip", "route", "add", "default", "via", "10.9.0.1")
        on(worker, "ip", "-6", "route", "add", "default", "via", "fd99::1")
        for address in ("192.0.2.1/32", "169.254.169.254/16", "2001:db8::1/128"):
            on(other, "ip", "address", "add", address, "dev", "veth")
        link_local = ["ip", "-6", "-oneline", "address", "show", "dev", "veth", "scope", "link"]
        for machine in (worker, other):
            while not (shown := on(machine, *link_local)):
                time.sleep(0.01)  # the kernel adds it in the background
        yield Link(worker, other, shown.split()[3].partition("/")[0])


@contextmanager
def service(machine: int, *words: str) -> Iterator["subprocess.Popen[str]"]:
    command = ["nsenter", f"--net=/proc/{machine}/ns/net", sys.executable, "-c", SERVICE, str(PORT), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "listens\n"
            yield process
        finally:
            process.kill()


def insider(link: Link, kind: str) -> Insider:
    assert PASTA is not None
    enter = ("nsenter", f"--target={link.worker}", "--net", "--mount")
    network = JobNetwork(is_given=True, pasta=PASTA)
    if kind == "root's worker":
        return Insider(uid=NOBODY, through=enter, network=network)
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return Insider(through=(*enter, *user), network=network)


def pasta_of(process: MirrorProcess) -> list[int]:
    """Return the pastas that run among the descendants of a mirror's starter."""
    found = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,stat=,comm="], check=True, capture_output=True, text=True
    ).stdout
    rows = [line.split(None, 3) for line in found.splitlines()]
    family = {process.process.pid}
    for pid, parent, _, _ in rows * 5:
        if int(parent) in family:
            family.add(int(pid))
    # The kernel calls it passt.avx2, too. One that has ended is there until somebody asks how.
    return [
        int(pid) for pid, _, state, name in rows if int(pid) in family and name.startswith("pas") and state[0] != "Z"
    ]


KINDS = ["an ordinary user's worker", "root's worker"]
ALLOWED = ["192.0.2.1", "10.9.0.1", "2001:db8::1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_it_reaches_other_machines_but_not_this_one_and_nothing_link_local(kind: str) -> None:
    with two_machines() as link, service(link.worker), service(link.other, "veth") as other:
        near = [
            "127.0.0.1",
            "::1",
            "10.77.0.1",
            "10.78.5.5",
            "2001:db8:78::5",
            "169.254.7.7",
            "10.9.0.2",
            "fd99::2",
            "169.254.169.254",
            "0.0.0.0",
        ]
        near += ["::ffff:169.254.169.254", "224.0.0.251", f"{link.link_local}%NIC", "ff02::fb%NIC"]
        starter = insider(link, kind)
        assert await reached(replace(starter, network=JobNetwork(is_given=True)), near, "veth") >= {
            *("127.0.0.1", "10.77.0.1", "10.78.5.5", "2001:db8:78::5", "169.254.7.7", "169.254.169.254", "224.0.0.251"),
            *(f"{link.link_local}%veth", "ff02::fb%veth"),
        }, "the attack works where it is allowed"
        assert other.stdout is not None
        assert {other.stdout.readline(), other.stdout.readline()} == {"got 224.0.0.251\n", "got ff02::fb%veth\n"}
        assert await reached(starter, [*ALLOWED, *near], "termite0") == set(ALLOWED)
        other.kill()
        assert other.stdout.read() == "", "no datagram of the job came"
    print("HELD")


async def reached(starter: Insider, addresses: list[str], link: str) -> set[str]:
    words = [address.replace("NIC", link) for address in addresses]
    with place_of(starter) as place:
        master, output = FakeMaster(place / "project"), list[bytes]()
        async with mirror(master, place, starter):
            await master.run("/usr/bin/python3", "-c", REACH, str(PORT), *words, output=output, network=True)
    print(said(output))
    lines = said(output).splitlines()
    assert len(lines) == len(addresses), lines
    return {line.split()[1] for line in lines if line.startswith("reached ")}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_address_that_the_machine_gets_later_is_refused_to_later_jobs(kind: str) -> None:
    with two_machines() as link, service(link.worker), service(link.other, "veth"):
        starter, addresses = insider(link, kind), ["192.0.2.1", "10.9.0.77", "10.79.5.5"]
        with place_of(starter) as place:
            master = FakeMaster(place / "project")

            async def reach() -> list[str]:
                output: list[bytes] = []
                await master.run("/usr/bin/python3", "-c", REACH, str(PORT), *addresses, output=output, network=True)
                return [line.split()[0] for line in said(output).splitlines()]

            async with mirror(master, place, starter):
                await master.run("/bin/true", network=True)
                on(link.worker, "ip", "address", "add", "10.9.0.77/32", "dev", "lo")
                on(link.worker, "ip", "route", "add", "local", "10.79.0.0/16", "dev", "lo")
                await master.run("/bin/true", network=True)  # a sandbox may have been made before
                assert await reach() == ["reached", "refused", "refused"]
                on(link.worker, "ip", "address", "del", "10.9.0.77/32", "dev", "lo")
    print("HELD")


async def test_a_job_cannot_change_the_rules_of_its_network() -> None:
    near = "to 169.254.0.0/16"
    change = f"ip rule del {near}; ip rule add pref 0 {near} lookup main; ip link set termite0 down"
    with two_machines() as link, service(link.other, "veth"):
        starter = insider(link, KINDS[0])
        with place_of(starter) as place:
            master, output = FakeMaster(place / "project"), list[bytes]()
            master.uid = master.gid = NOBODY  # root's jobs make no namespaces
            async with mirror(master, place, starter):
                script = f"{change}; unshare --user --map-root-user sh -c '{change}'; ip rule"
                ran = await master.run("/bin/sh", "-c", script, output=output, network=True)
                assert ran.exit.code == 0
                print(said(output))
                assert f"{near} prohibit" in said(output)
                assert f"{near} lookup main" not in said(output)
                assert said(output).count("not permitted") == 6


async def test_pasta_ends_with_the_mirror_and_without_it_a_job_is_given_back() -> None:
    with two_machines() as link:
        starter = insider(link, KINDS[0])
        with place_of(starter) as place:
            master = FakeMaster(place / "project")
            async with mirror(master, place, starter) as process:
                await master.run("/bin/true", network=True)
                (pasta,) = pasta_of(process)
                end = os.pidfd_open(pasta)
                os.kill(pasta, 9)
                await trio.lowlevel.wait_readable(end)
                os.close(end)
                with pytest.raises(Retryable):
                    await master.run("/bin/true", network=True)
                assert (await master.run("/bin/true")).exit.code == 0
                assert (await master.run("/bin/true", network=True)).exit.code == 0, "another pasta was started"
                (pasta,) = pasta_of(process)
            assert not await trio.Path(f"/proc/{pasta}").exists()


async def test_where_no_route_leads_to_other_machines_a_job_is_given_back() -> None:
    with two_machines() as link:
        for family in ("-4", "-6"):
            on(link.worker, "ip", family, "route", "del", "default")
        starter = insider(link, KINDS[0])
        with place_of(starter) as place:
            master = FakeMaster(place / "project")
            async with mirror(master, place, starter):
                with pytest.raises(Retryable, match="pasta"):
                    await master.run("/bin/true", network=True)
                assert (await master.run("/bin/true")).exit.code == 0
