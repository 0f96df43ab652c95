"""A stranger with many addresses is one stranger, and members go first."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from termite.engine.wire import strangers as daemon_strangers
from termite.engine.wire.identity import make_proof
from termite.engine.wire.strangers import HERE, QUEUED, Dropped, Strangers, network_of

KEY = b"key"
HONEST = "2001:db8:1::1"


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        (HERE, "gone", False),
    ],
)
def test_addresses_that_one_host_may_have_are_one_network(one: str, other: str, are_one: bool) -> None:
    assert (network_of(one) == network_of(other)) is are_one


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Strangers:
    async def hello(connection: Any, source: str) -> bytes:
        return bytes(connection.hello)

    monkeypatch.setattr(daemon_strangers, "_hello", hello)
    monkeypatch.setattr(daemon_strangers, "_has_gone", lambda connection: False)
    return Strangers(16, KEY)


async def take_turn(
    strangers: Strangers, source: str, served: list[str], dropped: list[str], hello: bytes = b""
) -> None:
    stream = SimpleNamespace(socket=SimpleNamespace(getpeername=lambda: (source, 1), hello=hello))
    try:
        async with strangers.turn(cast(Any, stream)):
            served.append(source)
            await trio.sleep(3)
    except Dropped:
        dropped.append(source)


@pytest.mark.logs("strangers-crowd")
@pytest.mark.parametrize("attackers", ["2001:db8:2::{:x}", "2001:db8:1::2", "2001:db8:2::1"])
async def test_a_crowd_of_one_network_keeps_nobody_else_from_his_turn(
    strangers: Strangers, autojump_clock: trio.testing.MockClock, attackers: str
) -> None:
    served, dropped = list[str](), list[str]()
    async with trio.open_nursery() as nursery:
        for number in range(QUEUED):
            nursery.start_soon(take_turn, strangers, attackers.format(number), served, dropped)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take_turn, strangers, HONEST, served, dropped)
        for number in range(2 * QUEUED):
            nursery.start_soon(take_turn, strangers, attackers.format(QUEUED + number), served, dropped)
        with trio.fail_after(4):
            while HONEST not in served:  # noqa: ASYNC110
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert HONEST not in dropped and len(dropped) > QUEUED


@pytest.mark.logs("strangers-crowd")
async def test_members_do_not_wait_for_strangers_of_the_same_host(
    strangers: Strangers, autojump_clock: trio.testing.MockClock
) -> None:
    served, others, dropped = list[str](), list[str](), list[str]()
    proof = make_proof(KEY).encode()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turn, strangers, HONEST, served, dropped, proof)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(1000):
            nursery.start_soon(take_turn, strangers, HONEST, others, dropped, proof)  # seen on the way, and sent again
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(15):
            nursery.start_soon(take_turn, strangers, HONEST, served, dropped, make_proof(KEY).encode())
        await trio.testing.wait_all_tasks_blocked()
        assert (len(served), len(others)) == (16, 2)
        nursery.cancel_scope.cancel()


async def test_those_without_a_proof_are_examined_at_a_slow_rate(
    strangers: Strangers, autojump_clock: trio.testing.MockClock
) -> None:
    """A mirror that is started for each of them would take the CPU of the machine."""
    slow, served, times = Strangers(8, KEY, 3.0), list[str](), list[float]()

    async def be_examined() -> None:
        stream = SimpleNamespace(socket=SimpleNamespace(getpeername=lambda: (HONEST, 1), hello=b""))
        async with slow.turn(cast(Any, stream)):
            times.append(trio.current_time())

    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(be_examined)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take_turn, slow, HONEST, served, [], make_proof(KEY).encode())
        await trio.testing.wait_all_tasks_blocked()
        assert served == [HONEST], "a member need not wait"
    assert [time_s - start_s for time_s in times] == pytest.approx([0, 3, 6, 9])
