"""The datagrams of sd_notify(3), at a socket as systemd has it."""

import socket
import uuid
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.host import service_manager
from termite.engine.host.service_manager import NOBODY, VARIABLE, take_service_manager


@pytest.mark.parametrize("is_abstract", [False, True])
async def test_a_service_manager_is_notified_at_its_socket(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@termite-test-{uuid.uuid4().hex}" if is_abstract else str(tmp_path / "notify")
    env = {VARIABLE: name, "OTHER": "1"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name[1:]}" if is_abstract else name)
        systemd.settimeout(10)
        manager = take_service_manager(env)
        await manager.notify_ready("listens on 0.0.0.0:1233\n1 slot")
        manager.notify_stopping()
        assert systemd.recv(500) == b"READY=1\nSTATUS=listens on 0.0.0.0:1233 1 slot"
        assert systemd.recv(500) == b"STOPPING=1"
    assert env == {"OTHER": "1"}, "a child must not speak for its parent"


def fill(name: str) -> int:
    """Send datagrams until no more fit. Return how many that were."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.connect(name)
        for count in range(100_000):
            try:
                other.send(b"STATUS=of another service")
            except BlockingIOError:
                return count
    raise AssertionError("the socket takes any number of datagrams")


async def test_a_busy_service_manager_learns_later_that_the_daemon_serves(tmp_path: Path) -> None:
    """Otherwise systemd would end a healthy daemon after its TimeoutStartSec."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(10)
        waiting = fill(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_service_manager({VARIABLE: name}).notify_ready, "serves")
            await trio.testing.wait_all_tasks_blocked()  # the event loop goes on meanwhile
            for _ in range(waiting):
                assert systemd.recv(500) == b"STATUS=of another service"
        assert systemd.recv(500) == b"READY=1\nSTATUS=serves"


@pytest.mark.logs("service-manager-not-notified")
async def test_a_daemon_serves_on_if_its_service_manager_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "READY_S", 0.01)
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        fill(name)
        manager = take_service_manager({VARIABLE: name})
        await manager.notify_ready("serves")
        manager.notify_stopping()


@pytest.mark.logs("service-manager-not-notified")
async def test_a_daemon_serves_on_if_nobody_listens_at_the_socket(tmp_path: Path) -> None:
    await take_service_manager({VARIABLE: str(tmp_path / "nothing")}).notify_ready("serves")


async def test_a_daemon_without_a_service_manager_notifies_nobody() -> None:
    await take_service_manager({}).notify_ready("serves")
    NOBODY.notify_stopping()
