"""The process that makes sandboxes is probed, resumed if it was stopped, and then given up."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from termite.engine.host.process_state import process_state
from termite.fuse.sandbox.standstill import PATIENCE_S, PROBE, PROBE_S, ServerStandstill

Stage = tuple[ServerStandstill, int, socket.socket]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Yield the watch over a process, its pid, and its end of the channel, which the test reads."""
    process = subprocess.Popen(["sleep", "1000"])
    pidfd = os.pidfd_open(process.pid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ServerStandstill(process.pid, pidfd, ours), process.pid, theirs
    process.kill()
    process.wait()
    os.close(pidfd)


def test_one_that_reads_its_probes_is_left_alone(stage: Stage) -> None:
    watch, _, theirs = stage
    for number in range(20):
        assert not watch.check(number * PROBE_S)
        assert theirs.recv(100) == PROBE


def test_probes_are_rare(stage: Stage) -> None:
    watch, _, theirs = stage
    watch.check(0.0)
    theirs.recv(100)
    watch.check(PROBE_S / 2)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_one_that_reads_nothing_is_given_up(stage: Stage) -> None:
    watch, _, _ = stage
    found = [watch.check(now_s) for now_s in (0.0, 1.0, 4.0, 8.0, PATIENCE_S, 1.0 + PATIENCE_S)]
    assert found == [False, False, False, False, False, True]


def test_time_in_which_nobody_looked_does_not_count(stage: Stage) -> None:
    """The last job of a build finds a request unread, and the first one of the next build, too."""
    watch, _, _ = stage
    assert [watch.check(now_s) for now_s in (0.0, 1.0, 1000.0, 1001.0)] == [False, False, False, False]


def test_one_that_reads_late_is_left_alone(stage: Stage) -> None:
    watch, _, theirs = stage
    for now_s in (0.0, 1.0, 4.0, 8.0):
        assert not watch.check(now_s)
    theirs.recv(100)
    for now_s in (PATIENCE_S, 1.2 * PATIENCE_S, 1.5 * PATIENCE_S):
        assert not watch.check(now_s)
        theirs.recv(100)


@pytest.mark.logs("spawner-stands-still")
def test_one_that_is_stopped_again_and_again_is_resumed_and_then_given_up(stage: Stage) -> None:
    watch, pid, _ = stage
    found = []
    for now_s in (0.0, PATIENCE_S / 2, PATIENCE_S):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        found.append(watch.check(now_s))
        os.waitid(os.P_PID, pid, os.WCONTINUED)
        assert process_state(pid) != "T"
    assert found == [False, False, True]


def test_one_that_has_died_is_left_to_who_wants_a_sandbox(stage: Stage) -> None:
    watch, _, theirs = stage
    theirs.close()
    assert not watch.check(0.0) and not watch.check(100.0)
