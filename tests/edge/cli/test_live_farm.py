"""`termite-ctl top -coordinator` with a real coordinator, on a real terminal and without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from termite.engine.fleet.coordinator import CoordinatorConfig, serve_coordinator
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import Register
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL
from termite.engine.wire.transport import Connection, SendChunk, dial
from tests.edge.cli.test_live_terminal import TOP, top_on_a_terminal


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    subprocess.run(
        [sys.executable, "-m", "termite.cli.ctl", "secret", path], check=True, capture_output=True, timeout=20
    )
    return path


async def register(port: int, secret: bytes, name: str) -> None:
    async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        raise AssertionError

    async with dial("127.0.0.1", port, mint(secret, name, Role.CLIENT), refuse, 10.0) as connection:
        await connection.request(Register(PROTOCOL, name, f"127.0.0.1:{port}", 8, 3, 0.5, 1 << 30), timeout_s=10)


async def test_a_farm_is_shown_as_its_coordinator_knows_it(tmp_path: Path, secret: Path) -> None:
    from termite.engine.wire.identity import read_secret

    key = read_secret(secret)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(key, "127.0.0.1", 0))
        port = int(address.rpartition(":")[2])
        await register(port, key, "anna")
        words = ["--coordinator", f"127.0.0.1:{port}", "--secret", str(secret)]
        done = await trio.run_process([*TOP, *words], capture_stdout=True, cwd=tmp_path)
        assert b"1 workers, 0 of them drained; 3 of 8 slots are leased" in done.stdout
        assert b"anna" in done.stdout
        with top_on_a_terminal(tmp_path, *words) as (terminal, process):
            await terminal.until("anna")
            assert b"no worker is registered" not in terminal.sent, "nobody had answered then"
            await register(port, key, "berta")
            await terminal.until("2 workers")
            terminal.press(b"q")
            await terminal.read_to_the_end()
            assert process.wait(5) == 0
        nursery.cancel_scope.cancel()
    lost = await trio.run_process([*TOP, *words], capture_stderr=True, check=False, cwd=tmp_path, env={**os.environ})
    assert lost.returncode == 100
    assert b"the coordinator does not answer" in lost.stderr
