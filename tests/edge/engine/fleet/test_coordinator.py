"""Tests of the coordinator over loopback TLS: registrations, long polls, restarts, strangers."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from termite.engine.errors import ConnectionLost, UserError
from termite.engine.fleet.coordinator import CoordinatorConfig, serve_coordinator
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import Deregister, ListWorkers, Register, Registered, Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, GetDirectory
from termite.engine.wire.transport import Connection, SendChunk, dial
from termite.engine.worker import registration
from termite.engine.worker.registration import stay_registered

SECRET = b"the secret of the tests"
HOST = "127.0.0.1"


def beat(name: str = "w", address: str = ":1235") -> Register:
    return Register(PROTOCOL, name, address, 4, 1, 0.5, 2**30)


async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


def dialled(port: int, secret: bytes = SECRET) -> AbstractAsyncContextManager[Connection]:
    return dial(HOST, port, mint(secret, "test", Role.CLIENT), refuse)


@asynccontextmanager
async def coordinator(port: int = 0, interval_s: float = 0.05) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, HOST, port, interval_s))
        yield split_address(address, 0)[1]
        nursery.cancel_scope.cancel()


async def listed(connection: Connection, after: int = 0) -> Workers:
    workers = await connection.request(ListWorkers(PROTOCOL, after))
    assert isinstance(workers, Workers)
    return workers


async def test_a_registered_worker_is_listed_where_the_coordinator_sees_it() -> None:
    async with coordinator() as port, dialled(port) as worker, dialled(port) as master:
        assert await worker.request(beat()) == Registered(0.05)
        workers = await listed(master)
        assert [(w.name, w.address, w.slots, w.leased) for w in workers.workers] == [("w", f"{HOST}:1235", 4, 1)]


async def test_an_advertised_address_is_passed_on() -> None:
    async with coordinator() as port, dialled(port) as connection:
        await connection.request(beat(address="build7.example:99"))
        assert (await listed(connection)).workers[0].address == "build7.example:99"


async def test_an_address_that_is_none_is_refused_with_a_line() -> None:
    async with coordinator() as port, dialled(port) as connection:
        for bad in ("", "host", "host:x", ":0", ":99999"):
            with pytest.raises(UserError, match="is not an address"):
                await connection.request(beat(address=bad))


async def test_a_long_poll_is_answered_when_a_worker_comes_and_when_it_goes() -> None:
    async with coordinator() as port, dialled(port) as worker, dialled(port) as master:
        seen: list[list[str]] = []

        async def poll() -> None:
            version = 0
            for _ in range(3):
                workers = await listed(master, version)
                version = workers.version
                seen.append([w.name for w in workers.workers])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await wait_all_tasks_blocked()
            await worker.request(beat())
            await wait_all_tasks_blocked(0.01)
            await worker.request(Deregister("w"))
        assert seen == [[], ["w"], []]


async def test_nobody_deregisters_a_worker_but_itself() -> None:
    async with coordinator(interval_s=30) as port, dialled(port) as worker, dialled(port) as other:
        await worker.request(beat())
        await other.request(Deregister("w"))
        assert [w.name for w in (await listed(other)).workers] == ["w"]
        async with dialled(port) as again:  # it has lost its connection, and has another one
            await again.request(beat())
            await worker.request(Deregister("w"))
            assert [w.name for w in (await listed(other)).workers] == ["w"]
            await again.request(Deregister("w"))
            assert (await listed(other)).workers == ()


async def test_a_silent_worker_is_dropped_and_masters_hear_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with coordinator(interval_s=0.02) as port, dialled(port) as connection:
        await connection.request(beat())
        with trio.fail_after(5):
            workers = await listed(connection, (await listed(connection)).version)
        assert workers.workers == ()
    assert "worker-lost worker=w" in caplog.text


async def test_another_version_of_termite_is_told_so_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with coordinator() as port:
        for _ in range(2):  # a daemon connects again and again
            async with dialled(port) as connection:
                with pytest.raises(UserError, match="speaks protocol"):
                    await connection.request(ListWorkers(PROTOCOL + 1, 0))
    assert caplog.text.count("peer-refused") == 1
    assert f"this daemon speaks {PROTOCOL + 1}" in caplog.text and "reason=other-protocol" in caplog.text


async def test_what_a_coordinator_does_not_answer_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with coordinator() as port:
        async with dialled(port) as connection:
            with pytest.raises(ConnectionLost):
                await connection.request(GetDirectory(b"etc"))
        async with dialled(port) as connection:
            assert (await listed(connection)).workers == ()
    assert "does not answer GetDirectory" in caplog.text


async def test_another_secret_is_refused_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    async with coordinator() as port:
        with pytest.raises(UserError, match=f"{HOST}:{port}: the other side has another secret"):
            async with dialled(port, b"not the secret of the tests"):
                pass
        await wait_all_tasks_blocked(0.01)
    assert "the other side has another secret" in caplog.text


async def test_who_is_refused_again_and_again_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    async with coordinator() as port:
        for _ in range(3):
            with pytest.raises(UserError):
                async with dialled(port, b"not the secret of the tests"):
                    pass
        await wait_all_tasks_blocked(0.01)
        assert caplog.text.count("refused") == 1
        async with dialled(port) as connection:
            await listed(connection)
        with pytest.raises(UserError):
            async with dialled(port, b"not the secret of the tests"):
                pass
        await wait_all_tasks_blocked(0.01)
    assert caplog.text.count("refused") == 2


async def test_a_port_in_use_is_one_clear_line() -> None:
    async with coordinator() as port:
        with pytest.raises(UserError, match=f"port {port} is in use .*-port"):
            await serve_coordinator(CoordinatorConfig(SECRET, HOST, port))


async def test_a_worker_registers_again_when_the_coordinator_was_restarted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(registration, "FIRST_PAUSE_S", 0.2)  # in which the coordinator comes back
    async with trio.open_nursery() as nursery:
        async with coordinator() as port:
            nursery.start_soon(stay_registered, HOST, port, SECRET, "w", beat)
            async with dialled(port) as master:
                before = await listed(master, (await listed(master)).version)
        async with coordinator(port) as port, dialled(port) as master:
            with trio.fail_after(5):
                after = await listed(master, before.version)
                while not after.workers:
                    after = await listed(master, after.version)
            nursery.cancel_scope.cancel()
    assert [worker.name for worker in before.workers] == [worker.name for worker in after.workers] == ["w"]
    assert before.version != after.version
    assert caplog.text.count("coordinator-missing") == 1
    assert caplog.text.count("coordinator-found") == 2


async def test_a_worker_that_ends_says_goodbye() -> None:
    async with coordinator(interval_s=60) as port, dialled(port) as master:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay_registered, HOST, port, SECRET, "w", beat)
            before = await listed(master, (await listed(master)).version)
            nursery.cancel_scope.cancel()
        assert len(before.workers) == 1
        assert (await listed(master, before.version)).workers == ()
