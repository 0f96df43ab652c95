"""Strangers connect to a worker and a coordinator, say nothing or nonsense, and stay.

They come from this machine, as the honest peer does: no address tells them apart.
"""

import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.wire import strangers as daemon_strangers
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import ListWorkers, Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Leased, OpenLease
from termite.engine.wire.strangers import Dropped, Strangers
from termite.engine.wire.transport import Connection, SendChunk, dial
from termite.engine.worker.worker_daemon import STRANGER_REST_S
from tests.e2e.cluster import HOST, Daemon, daemon, embedded, free_port, new_secret, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import IS_ROOT, Place

STRANGERS = 1000
SERVED_S = 2.0
HELLO = b"\x16\x03\x01\x00\x00"
HONEST_S = 1.0  # of CPU at most for a mirror that opens a lease and ends
ACCEPTS = 0x10000  # of a line of /proc/net/unix: the socket listens
SPENT_S = 1.0  # of CPU for a thousand strangers: three mirrors, and to accept connections


@pytest.fixture(params=["root", "ordinary"] if IS_ROOT else ["ordinary"])
def where(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Place]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        with make_place(request.param) as made:
            yield made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def crowd(port: int, *said: bytes, count: int = STRANGERS) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        strangers = []
        for number in range(count):
            strangers.append(stack.enter_context(socket.create_connection((HOST, port), 10)))
            if first := said[number % len(said)]:
                strangers[-1].send(first)
        yield strangers


async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


async def list_workers(port: int, secret: bytes) -> float:
    """Return how long the coordinator takes for an honest peer."""
    start_s = time.monotonic()
    async with dial(HOST, port, mint(secret, "honest", Role.CLIENT), refuse) as connection:
        assert isinstance(await connection.request(ListWorkers(PROTOCOL, 0)), Workers)
    return time.monotonic() - start_s


async def open_lease(port: int, secret: bytes, *, proves: bool = True) -> float:
    """Return how long the worker takes for a master. One of another version `proves` nothing."""
    start_s = time.monotonic()
    identity = mint(secret, "honest", Role.CLIENT)
    async with dial(HOST, port, identity if proves else replace(identity, member_key=b""), refuse) as connection:
        ask = OpenLease(PROTOCOL, "honest", 1, os.getuid(), os.getgid(), b"tmp/none", 0, 1, "home", bytes(32))
        assert isinstance(await connection.request(ask, timeout_s=10), Leased)
    return time.monotonic() - start_s


def cpu_s(daemon: Daemon) -> float:
    """Return the CPU seconds of a daemon and its children that have ended."""
    pid = int(Path(f"/proc/{daemon.process.pid}/stat").read_text().split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def attacked(where: Place, name: str) -> Iterator[tuple[Daemon, int, bytes]]:
    port, secret = free_port(), new_secret(where)
    flags = ["-port", str(port), "-secret", str(secret)]
    if name == "termite-worker":
        flags += ["-coordinator", "", "-cachedir", str(where.base / "cache"), "-jobs", "2"]
    with daemon(where, name, *flags) as running:
        yield running, port, secret.read_bytes().rstrip()


def whole_hello() -> bytes:
    """Return the whole first message of a client of TLS who knows nothing of the cluster."""
    context, sent = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


@pytest.mark.parametrize(
    "said",
    [(b"", b"", HELLO[:1], b"GET / HTTP/1.1\r\n\r\n"), (whole_hello(),)],
    ids=["silent, after one byte or nonsense, too", "silent after a whole hello"],
)
@pytest.mark.parametrize(("name", "ask"), [("termite-coordinator", list_workers), ("termite-worker", open_lease)])
def test_an_honest_peer_is_served_among_a_thousand(
    where: Place, name: str, ask: Callable[[int, bytes], Awaitable[float]], said: tuple[bytes, ...]
) -> None:
    with attacked(where, name) as (running, port, secret):
        alone_s = trio.run(ask, port, secret)
        alone_s = min(alone_s, SERVED_S)  # of a busy machine
        before_s, start_s = cpu_s(running), time.monotonic()
        with crowd(port, *said):
            took_s = [trio.run(ask, port, secret) for _ in range(3)]
            attack_s = time.monotonic() - start_s
            spent_s = cpu_s(running) - before_s
        print(f"served in {max(took_s):.2f} s among {STRANGERS}, {alone_s:.2f} s alone; {spent_s:.2f} s of CPU")
        assert max(took_s) < SERVED_S + alone_s
        assert spent_s < 3 * HONEST_S + SPENT_S + attack_s / 5, "also as long as they stay"
        assert trio.run(ask, port, secret) < SERVED_S + alone_s, "and after they have gone"
    print("HELD")


def test_a_queue_of_dead_strangers_costs_nothing(where: Place) -> None:
    """Test strangers that begin a handshake, so that they are let in, and then go."""
    with attacked(where, "termite-worker") as (running, port, secret):
        trio.run(open_lease, port, secret)
        before_s = cpu_s(running)
        with crowd(port, HELLO):
            pass
        time.sleep(3)  # the CPU of this time is what the attack costs
        spent_s = cpu_s(running) - before_s
        took_s = trio.run(partial(open_lease, port, secret, proves=False))
        print(f"{spent_s:.2f} s of CPU for {STRANGERS} dead strangers; then served in {took_s:.2f} s")
        assert spent_s < SPENT_S
        assert took_s < STRANGER_REST_S + SERVED_S + 1
    print("HELD")


async def _silent_for(strangers: Strangers, stream: trio.SocketStream) -> str:
    """Return why a silent stranger was dropped."""
    with pytest.raises(Dropped) as dropped:
        async with strangers.turn(stream):
            raise AssertionError("nobody may be examined who has said nothing")
    return str(dropped.value)


async def test_silent_strangers_make_room_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_strangers, "MAX_SILENT", 2)
    strangers, reasons = Strangers(1, b""), list[str]()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        ends = []
        for number in range(3):
            ends.append(await trio.open_tcp_stream(HOST, listener.socket.getsockname()[1]))
            accepted = await listener.accept()

            async def wait(stream: trio.SocketStream = accepted) -> None:
                reasons.append(await _silent_for(strangers, stream))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert len(reasons) == max(number - 1, 0)
        assert "others took its place" in reasons[0]
        nursery.cancel_scope.cancel()


def sockets_of(pid: int) -> set[str]:
    """Return the inode numbers of the sockets of a process."""
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it was closed just now
            link = os.readlink(entry.path)
            if link.startswith("socket:["):
                found.add(link.removeprefix("socket:[").removesuffix("]"))
    return found


def listening_on_tcp() -> set[str]:
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {fields[9] for fields in lines if fields[3] == "0A"}


def listening_unix_sockets() -> dict[str, str]:
    """Return the path of each socket that takes connections, by its inode number."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {fields[6]: fields[7] for fields in lines if int(fields[3], 16) & ACCEPTS and len(fields) > 7}


def test_an_embedded_cluster_has_no_port_and_no_socket_but_that_of_the_launchers(where: Place) -> None:
    with embedded(new_tree(where)) as tree:
        assert tree.termite("echo", "hello").stdout == b"hello\n"
        with socket.socket(socket.AF_UNIX) as launcher:
            launcher.connect(str(tree.path / ".termite-socket"))
            pid, _, _ = struct.unpack("3i", launcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        assert sockets_of(pid), "its sockets can be seen"
        assert sockets_of(pid) & listening_on_tcp() == set()
        named = listening_unix_sockets()
        reached = {named[inode] for inode in sockets_of(pid) & named.keys()}
        assert len(reached) == 1 and "/.termite-socket" in reached.pop()
    print("HELD")
