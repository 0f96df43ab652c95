"""Jobs wait for a sandbox while the process that makes them fails. It is a script here."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import Retryable
from termite.fuse.sandbox.spawner import Spawner

MakeSpawner = Callable[[str], Spawner]


@pytest.fixture
def make_spawner(tmp_path: Path) -> Iterator[MakeSpawner]:
    made: list[Spawner] = []

    def make(script: str) -> Spawner:
        program = tmp_path / "termite-sandbox"
        program.write_text(f"#!/bin/sh\necho $$ >>{tmp_path}/pids\n{script}\n")
        program.chmod(0o755)
        made.append(Spawner(program, tmp_path))
        return made[-1]

    yield make
    for spawner in made:
        kill_all(tmp_path)
        spawner.close()


def kill_all(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    for pid in map(int, pids.read_text().split() if pids.exists() else []):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.logs("spawner-died")
async def test_one_that_dies_each_time_is_no_sandbox(make_spawner: MakeSpawner) -> None:
    with pytest.raises(Retryable, match="termite-sandbox has died"):
        await make_spawner("exit 1").take()


@pytest.mark.logs("spawner-stuck")
async def test_one_that_never_answers_is_given_up(
    make_spawner: MakeSpawner, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(Retryable, match="termite-sandbox has died"):
        await make_spawner("exec sleep 1000").take()


@pytest.mark.logs("spawner-died")
async def test_who_waits_hears_of_a_death_that_another_job_was_the_first_to_see(
    make_spawner: MakeSpawner, tmp_path: Path
) -> None:
    spawner = make_spawner(f"test -e {tmp_path}/2 && exit 1; touch {tmp_path}/2; exec sleep 1000")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(Retryable):
                    await spawner.take()

            nursery.start_soon(wait)
            while not (tmp_path / "2").exists():
                await trio.lowlevel.checkpoint()
            kill_all(tmp_path)
            spawner.refill(4)  # in the same turn of the scheduler


FAILING = """
import socket, sys
socket.socket(fileno=int(sys.argv[-2])).send(b"error=there is no network\\0")
"""


async def test_who_reads_only_after_its_end_still_hears_why_it_has_failed(
    make_spawner: MakeSpawner, tmp_path: Path
) -> None:
    """The kernel reports first that a request was not read, and only then the reason."""
    (tmp_path / "serve.py").write_text(FAILING)
    spawner = make_spawner(f'exec {sys.executable} {tmp_path}/serve.py "$@"')
    spawner.refill(1)
    while not (tmp_path / "pids").exists() or not (pid := (tmp_path / "pids").read_text()):
        await trio.lowlevel.checkpoint()
    pidfd = os.pidfd_open(int(pid))
    await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)
    with pytest.raises(Retryable, match="there is no network"):
        await spawner.take()


ANNOUNCING = """
import os, socket, sys
asked = socket.socket(fileno=int(sys.argv[-2]))
reason = b"unfiltered=no seccomp\\0unwatched=no listener\\0"
while count := len(asked.recv(64)):
    for _ in range(count):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(asked, [b"pid=%d\\0" % os.getpid() + reason], [theirs.fileno(), os.pidfd_open(os.getpid())])
        kept, reason = ours.detach(), b""
"""


async def test_a_worker_whose_kernel_cannot_deny_calls_says_so_once(
    make_spawner: MakeSpawner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "serve.py").write_text(ANNOUNCING)
    spawner = make_spawner(f'exec {sys.executable} {tmp_path}/serve.py "$@"')
    spawner.refill(3)
    with trio.fail_after(20):
        for _ in range(3):
            (await spawner.take()).close()
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("spawner-un")]
    assert [(words[0], " ".join(words[2:])) for words in map(str.split, told)] == [
        ("spawner-unfiltered", "reason=no seccomp"),
        ("spawner-unwatched", "reason=no listener"),
    ]


async def test_one_that_somebody_has_stopped_does_not_hold_up_the_end_of_a_lease(
    make_spawner: MakeSpawner, tmp_path: Path
) -> None:
    spawner = make_spawner("exec sleep 1000")
    with trio.move_on_after(1):
        await spawner.take()
    pid = int((tmp_path / "pids").read_text())
    os.kill(pid, signal.SIGSTOP)
    with trio.fail_after(5):
        await trio.to_thread.run_sync(spawner.close, abandon_on_cancel=True)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
