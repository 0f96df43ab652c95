"""A process of termite is resumed if it was stopped, and killed if it stands still for long."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from termite.fuse.sandbox import standstill
from termite.fuse.sandbox.running_sandbox import KILL_ATTEMPTS, KILL_S
from termite.fuse.sandbox.spawner import WaitingSandbox
from termite.fuse.sandbox.standstill import DEATH_S, PATIENCE_S, SLOW_S, StandstillWatch

LIMIT_S = 5.0


@dataclass
class Stage:
    """A process in the part of a sandbox's pid 1, and the watch over it."""

    pid: int
    theirs: socket.socket
    ours: socket.socket
    watch: StandstillWatch
    calls: list[str] = field(default_factory=list)

    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait_for(self, states: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while self.state() not in states:
            assert time.monotonic() < deadline, self.state()
            time.sleep(0.005)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_for("T")


@pytest.fixture
def stage() -> Iterator[Stage]:
    process = subprocess.Popen(["sleep", "1000"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pidfd = os.pidfd_open(process.pid)
    calls: list[str] = []
    watch = StandstillWatch(
        1, WaitingSandbox(process.pid, pidfd, ours), lambda: calls.append("kill"), lambda: calls.append("give up")
    )
    yield Stage(process.pid, theirs, ours, watch, calls)
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
    os.close(pidfd)
    ours.close()
    theirs.close()


def test_one_that_waits_for_its_command_is_left_alone(stage: Stage) -> None:
    for now_s in (0.0, 1.0, PATIENCE_S, 10 * PATIENCE_S):
        stage.watch.check(now_s)
    stage.wait_for("S")
    assert stage.watch.verdict == "" and stage.calls == []


@pytest.mark.logs("sandbox-stands-still")
def test_a_stopped_one_is_resumed_at_once(stage: Stage) -> None:
    stage.stop()
    stage.watch.check(0.0)
    stage.wait_for("S")
    stage.watch.check(0.5)
    stage.stop()  # much later: this is another standstill
    stage.watch.check(PATIENCE_S + 1)
    stage.wait_for("S")
    assert stage.watch.verdict == "" and stage.calls == []


@pytest.mark.logs("sandbox-stands-still", "sandbox-killed")
def test_one_that_somebody_stops_again_and_again_is_killed(stage: Stage) -> None:
    for now_s in (0.0, PATIENCE_S / 2, PATIENCE_S):
        stage.stop()
        stage.watch.check(now_s)
        stage.wait_for("SZ")
    stage.wait_for("Z")
    assert stage.calls == ["kill"] and "was stopped by a signal" in stage.watch.verdict
    stage.watch.check(PATIENCE_S + DEATH_S)
    assert stage.calls == ["kill", "give up"]


@pytest.mark.logs("sandbox-stands-still", "sandbox-killed")
def test_one_that_does_not_read_its_order_is_killed(stage: Stage) -> None:
    stage.ours.send(b"order")
    stage.watch.check(0.0)
    stage.watch.check(PATIENCE_S - 1)
    stage.wait_for("S")
    stage.watch.check(PATIENCE_S)
    stage.wait_for("Z")
    assert "has not taken its job" in stage.watch.verdict


@pytest.mark.parametrize(
    "has_command", [True, pytest.param(False, marks=pytest.mark.logs("sandbox-stands-still", "sandbox-killed"))]
)
def test_one_that_nobody_can_kill_costs_its_job_less_than_thirty_seconds(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, has_command: bool
) -> None:
    """Let it wait in the kernel, before its command or behind it. A command may do so for ever."""
    monkeypatch.setattr(standstill, "process_state", lambda pid: "D")
    monkeypatch.setattr(standstill, "children_of", lambda pid: [1] * has_command)
    for now_s in (0.0, PATIENCE_S, PATIENCE_S + DEATH_S):
        stage.watch.check(now_s)
    if has_command:
        assert stage.calls == [] and stage.watch.verdict == ""
        return
    assert stage.calls == ["kill", "give up"] and "no command of it runs" in stage.watch.verdict
    assert PATIENCE_S + DEATH_S + KILL_ATTEMPTS * KILL_S < 30.0, "then the job is given back"


@pytest.mark.parametrize(
    "late_s", [0.5, pytest.param(SLOW_S, marks=pytest.mark.logs("sandbox-stands-still"))], ids=["a little", "long"]
)
def test_one_that_reads_its_order_late_is_left_alone(stage: Stage, late_s: float) -> None:
    stage.ours.send(b"order")
    stage.watch.check(0.0)
    stage.watch.check(late_s)
    stage.theirs.recv(100)
    stage.watch.check(PATIENCE_S)
    stage.watch.check(2 * PATIENCE_S)
    stage.wait_for("S")
    assert stage.watch.verdict == ""
