"""Tests of the pool with a real coordinator and real connections, and a function as the worker."""

import socket
import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import trio

from termite.engine.errors import FsError, Reason, RemoteProtocolError, Retryable
from termite.engine.fleet.coordinator import CoordinatorConfig, serve_coordinator
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.logic import learnt_names
from termite.engine.fleet.logic.known_workers import LeaseWish
from termite.engine.fleet.logic.pool_config import PoolConfig
from termite.engine.fleet.pool import FAILURES_IN_A_ROW, NoWorker, Pool
from termite.engine.model import (
    Attr,
    Change,
    Digest,
    Exit,
    MachineFacts,
    PackedTrace,
    TraceGap,
    TraceMode,
    Usage,
)
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.identity import Identity
from termite.engine.wire.protocol.fleet_messages import ListedWorker, Register
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done, GetBlob, Leased, OpenLease, Ran, Run, SetSlots
from termite.engine.wire.transport import Connection, SendChunk, accepted, dial

SECRET = b"the secret of the tests"


class FakeWorker:
    """A worker that grants `slots`.

    A job whose first word is `die` ends the connection; one with `fail` fails before it starts, and
    one with `lie` ends with `lie`.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.opened: list[OpenLease] = []
        self.may_open = trio.Event()
        self.may_open.set()
        self.connections: list[Connection] = []
        self.lie = Ran(Exit(0), Usage(), (), {}, 1, 2)

    async def serve(self, stream: trio.SocketStream) -> None:
        scope = trio.CancelScope()

        async def answer(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
            match message:
                case OpenLease():
                    self.opened.append(message)
                    await self.may_open.wait()
                    return Leased("w", min(self.slots, message.slots), time.time_ns(), MachineFacts())
                case Run(argv=(b"die",)):
                    scope.cancel()
                case Run(argv=(b"fail",)):
                    raise Retryable(Reason.DISK_FULL, "no space for the store")
                case Run(argv=(b"lie",)):
                    return self.lie
                case Run():
                    return Ran(Exit(0), Usage(), (), {}, 1, 2)
                case GetBlob():
                    await send_chunk(b"content")
            return Done()

        with suppress(Retryable), scope:
            async with accepted(stream, mint(SECRET, "w", Role.MIRROR), answer) as connection:
                self.connections.append(connection)
                await connection.lost.wait()


async def _nothing(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


async def _refuse(lease: Lease, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


@asynccontextmanager
async def pool(worker: FakeWorker | None, keepalive_s: float = 60.0, odd: str = "") -> AsyncIterator[Pool]:
    """`odd` is the address of one more worker, which comes first."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, "127.0.0.1", 0))
            host, port = split_address(address, 0)
            if worker is not None:
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, worker.serve, listeners)
                there = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
                async with dial(host, port, mint(SECRET, "w", Role.CLIENT), _nothing) as connection:
                    if odd:
                        await connection.request(Register(PROTOCOL, "a", odd, 99, 0, 0.0, 0))
                    await connection.request(Register(PROTOCOL, "w", there, worker.slots, 0, 0.0, 0))
            config = PoolConfig((host, port), SECRET, "m", 0, 1000, 1000, b"home/me", b"", keepalive_s)
            made = Pool(config, lambda: 7, _refuse)
            nursery.start_soon(made.run)
            yield made
            nursery.cancel_scope.cancel()


def run(*argv: bytes, number: int = 7) -> Run:
    return Run(1, number, (), argv, argv[0], False, (), b"/", 0o22, False, False)


async def _ignore(chunk: bytes) -> None:
    raise AssertionError(chunk)


async def test_a_lease_is_opened_when_a_job_waits_and_its_cursor_follows_the_replies() -> None:
    worker = FakeWorker(2)
    async with pool(worker) as made:
        assert worker.opened == []
        async with made.slot() as lease:
            assert (await lease.run(run(b"gcc", number=9), _ignore)).exit == Exit(0)
            assert lease.cursor == made.oldest_cursor() == 9
        (opened,) = worker.opened
        assert (opened.number, opened.uid, opened.writable_root) == (7, 1000, b"home/me")


@pytest.mark.parametrize("odd", ["a..b:1", "x" * 70 + ":1", "%:1", "127.0.0.1:1"])
async def test_a_worker_with_an_odd_address_keeps_no_job_from_the_others(odd: str) -> None:
    async with pool(FakeWorker(2), odd=odd) as made:
        for _ in range(2):
            async with made.slot() as lease:
                assert (await lease.run(run(b"gcc"), _ignore)).exit == Exit(0)


@pytest.mark.parametrize("address", ["", "host", "host:", "host:port", "host:99999", "host:-1", ":", "host:\u0663"])
async def test_a_coordinators_odd_address_of_a_worker_is_a_worker_that_cannot_be_had(address: str) -> None:
    async with pool(FakeWorker(1)) as made:
        async with made.slot():
            pass
        made._fleet._opening["odd"] = 1
        await made._hold(LeaseWish(ListedWorker("odd", address, 1, 0, 0.0, 0, False), 1))
        assert made.trouble is not None


async def test_a_lease_that_is_being_opened_keeps_what_came_after_its_number() -> None:
    worker = FakeWorker(1)
    worker.may_open = trio.Event()  # the mirror starts slowly, while the journal grows
    async with pool(worker) as made, trio.open_nursery() as nursery:
        assert made.oldest_cursor() is None
        nursery.start_soon(_use_slot, made)
        while not worker.opened:
            await trio.lowlevel.checkpoint()
        assert made.leases == ()
        assert made.oldest_cursor() == worker.opened[0].number == 7
        worker.may_open.set()


async def _use_slot(made: Pool) -> None:
    async with made.slot():
        pass


@pytest.mark.logs("coordinator-found", "coordinator-missing")
async def test_a_coordinator_that_is_missing_is_explained_and_forgotten_when_it_is_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            made = Pool(
                PoolConfig(("127.0.0.1", port), SECRET, "m", 0, 1000, 1000, b"home/me", b""), lambda: 7, _refuse
            )
            nursery.start_soon(made.run)
            while "is termite-coordinator running there?" not in (made.trouble.text if made.trouble else ""):  # noqa: ASYNC110  # the pool does not notify anybody of this
                await trio.sleep(0.001)
            await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, "127.0.0.1", port))
            while made.trouble:  # noqa: ASYNC110  # as above
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()


async def test_never_more_jobs_than_slots_have_a_lease() -> None:
    async with pool(FakeWorker(2)) as made:
        async with made.slot(), made.slot():
            with trio.move_on_after(0.1) as third:
                async with made.slot():
                    raise AssertionError
            assert third.cancelled_caught
            assert made.waiting == 0
        async with made.slot():
            pass


async def test_a_worker_that_takes_slots_back_gets_fewer_jobs() -> None:
    worker = FakeWorker(2)
    async with pool(worker) as made, made.slot() as lease:
        await worker.connections[0].request(SetSlots(1))
        assert lease.slots == 1
        with trio.move_on_after(0.1) as second:
            async with made.slot():
                raise AssertionError
        assert second.cancelled_caught


async def test_a_lost_lease_fails_its_job_and_another_one_is_opened() -> None:
    worker = FakeWorker(1)
    async with pool(worker) as made:
        with pytest.raises(Retryable):
            async with made.slot() as lease:
                await lease.run(run(b"die"), _ignore)
        while lease in made.leases:  # a task of the pool notices the loss
            await trio.lowlevel.checkpoint()
        async with made.slot() as again:
            assert again is not lease
            await again.run(run(b"gcc"), _ignore)
    assert len(worker.opened) == 2


FILE = Attr(0o100644, 0, 1)
LONG = b"home/me" + b"/.git" * 25_000


@pytest.mark.parametrize(
    "lie",
    [
        {"changes": (Change(LONG, FILE),)},
        {"changes": (Change(LONG, None),)},
        {"changes": (Change(b"home/me/x", FILE, link_to=LONG),)},
        {"changes": (Change(b"home/me/../x", FILE),)},
        {"changes": (Change(b"home/me/x\0y", FILE),)},
        {"changes": (*(Change(b"home/me/%d" % n, FILE) for n in range(3000)), Change(b"/x", FILE))},
        {"dropped": (LONG,)},
        {"dropped": (b"tmp/x", b"tmp//x")},
    ],
)
async def test_a_result_with_a_path_that_no_mirror_reads_is_refused_before_anybody_looks_at_it(
    lie: dict[str, Any],
) -> None:
    worker = FakeWorker(1)
    worker.lie = msgspec.structs.replace(worker.lie, **lie)
    async with pool(worker) as made, made.slot() as lease:
        with pytest.raises(RemoteProtocolError, match="not a path"):
            await lease.run(run(b"lie"), _ignore)


def trace_of(count: int) -> PackedTrace:
    names = b"".join(b"/n%d\0" % number for number in range(count))
    return PackedTrace(1, 0, names=zlib.compress(names, 9))


async def test_a_trace_that_nobody_has_asked_for_is_not_looked_at() -> None:
    worker = FakeWorker(1)
    for trace in (trace_of(3), PackedTrace(1, 0, names=b"no names"), PackedTrace(1, TraceGap.IMPOSSIBLE)):
        worker.lie = msgspec.structs.replace(worker.lie, trace=trace)
        async with pool(worker) as made, made.slot() as lease:
            ran = await lease.run(run(b"lie"), _ignore)
            assert (ran.trace, len(lease.traced_names), lease.cannot_trace) == (None, 0, False)


@pytest.mark.parametrize(("count", "is_apart"), [(3, False), (100_000, True)])
async def test_many_names_of_a_trace_are_unpacked_while_others_are_served(
    count: int, is_apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    checked = learnt_names._checked

    def noted(text: bytes, known: int) -> list[bytes]:
        threads.append(threading.current_thread())
        return checked(text, known)

    monkeypatch.setattr(learnt_names, "_checked", noted)
    worker = FakeWorker(1)
    worker.lie = msgspec.structs.replace(worker.lie, trace=trace_of(count))
    asked = msgspec.structs.replace(run(b"lie"), trace=TraceMode.EXACT)
    async with pool(worker) as made, made.slot() as lease:
        await lease.run(asked, _ignore)
        assert len(lease.traced_names) == count
    assert [thread is not threading.main_thread() for thread in threads] == [is_apart]


async def test_a_worker_that_only_fails_is_left_alone_and_then_asked_anew() -> None:
    """Test a worker that would otherwise always be free, and so get every job first."""

    async def fail(made: Pool) -> Lease:
        async with made.slot() as lease:
            with pytest.raises(Retryable) as caught:
                await lease.run(run(b"fail"), _ignore)
            made.failed(lease, caught.value)
            return lease

    worker = FakeWorker(1)
    async with pool(worker) as made:
        first = await fail(made)
        assert await fail(made) is first
        async with made.slot() as lease:
            await lease.run(run(b"gcc"), _ignore)
            made.succeeded(lease)
        for _ in range(FAILURES_IN_A_ROW):
            assert await fail(made) is first
        async with made.slot() as another:
            assert another is not first
            assert len(worker.opened) == 2


async def test_an_idle_lease_goes_back() -> None:
    worker = FakeWorker(1)
    async with pool(worker, keepalive_s=0.05) as made:
        async with made.slot():
            pass
        await worker.connections[0].lost.wait()
    assert made.leases == ()


async def test_the_traffic_of_leases_is_counted_also_when_they_have_ended() -> None:
    worker = FakeWorker(1)
    async with pool(worker) as made:
        for _ in range(2):
            async with made.slot() as lease:
                await lease.run(run(b"gcc"), _ignore)
                await worker.connections[-1].request(SetSlots(1))
                made.retire(lease)
            while lease in made.leases:
                await trio.lowlevel.checkpoint()
        traffic = made.traffic()
        # There are two leases, each with the Ping that compares the clocks.
        assert traffic.messages == {"OpenLease": 2, "Ping": 2, "Run": 2, "SetSlots": 2}
        assert traffic.counts["asked"] == 6
        assert traffic.counts["sent_bytes"] > 0


async def test_without_any_worker_a_job_is_told_so() -> None:
    async with pool(None) as made:
        with pytest.raises(NoWorker):
            async with made.slot():
                raise AssertionError


async def test_a_worker_that_accepts_and_never_answers_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel completes connections to a process that is stopped."""
    monkeypatch.setattr("termite.engine.fleet.logic.known_workers.SILENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with pool(FakeWorker(0), odd=f"127.0.0.1:{deaf.getsockname()[1]}") as made:
            start = trio.current_time()
            with pytest.raises(NoWorker):
                async with made.slot():
                    raise AssertionError
            assert 0.5 <= trio.current_time() - start < 3.0


async def test_every_connection_has_a_new_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test that a master may live longer than one certificate, for example for months."""
    shown: list[str] = []
    context = Identity.client_context

    def noted(identity: Identity) -> ssl.SSLContext:
        shown.append(identity.certificate)
        return context(identity)

    monkeypatch.setattr(Identity, "client_context", noted)
    worker = FakeWorker(1)
    async with pool(worker, keepalive_s=0.02) as made:
        for number in range(2):
            async with made.slot():
                pass
            await worker.connections[number].lost.wait()
    assert len(shown) >= 4  # of the worker, of the coordinator and of two leases
    assert len(set(shown)) == len(shown)


async def test_a_full_disk_here_is_not_the_workers_fault() -> None:
    async def refuse(chunk: bytes) -> None:
        raise FsError(28)

    async with pool(FakeWorker(1)) as made, made.slot() as lease:
        with pytest.raises(FsError, match="ENOSPC"):
            await lease.fetch(Digest(bytes(32), 7), refuse)
