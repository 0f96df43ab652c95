"""The datagrams of sd_notify(3), at a socket as systemd has it."""

import socket
import uuid
from pathlib import Path

import pytest

from termite.engine.host.service_manager import NOBODY, VARIABLE, take_service_manager


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_service_manager_is_notified_at_its_socket(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@termite-test-{uuid.uuid4().hex}" if is_abstract else str(tmp_path / "notify")
    env = {VARIABLE: name, "OTHER": "1"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name[1:]}" if is_abstract else name)
        systemd.settimeout(10)
        manager = take_service_manager(env)
        manager.notify_ready("listens on 0.0.0.0:1233\npages at http://x")
        manager.notify_stopping()
        assert systemd.recv(500) == b"READY=1\nSTATUS=listens on 0.0.0.0:1233 pages at http://x"
        assert systemd.recv(500) == b"STOPPING=1"
    assert env == {"OTHER": "1"}, "a child must not speak for its parent"


@pytest.mark.logs("service-manager-not-notified")
def test_a_daemon_serves_on_if_nobody_listens_at_the_socket(tmp_path: Path) -> None:
    take_service_manager({VARIABLE: str(tmp_path / "nothing")}).notify_ready("serves")


def test_a_daemon_without_a_service_manager_notifies_nobody() -> None:
    take_service_manager({}).notify_ready("serves")
    NOBODY.notify_stopping()
