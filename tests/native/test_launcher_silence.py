"""The launcher when the master stands still: it says so, and a signal still ends it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.native.fake_master import Conversation, FakeMaster, exit_code, fields, finish, frame, started

NATIVE = Path(__file__).parents[2] / "native"
TICK_S = 0.2  # of the launcher of these tests; a real one has ten seconds
LIMIT_S = 5.0  # for a build after Ctrl-C; what it takes is printed


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile a launcher that loses its patience fifty times as fast."""
    program = tmp_path_factory.mktemp("hasty") / "termite"
    sources = sorted((NATIVE / "launcher").rglob("*.c"))
    defined = ["-D_GNU_SOURCE", '-DTERMITE_VERSION="x"', f"-DSILENCE_TICK_MS={int(TICK_S * 1000)}"]
    subprocess.run(["cc", "-std=gnu11", "-O1", *defined, *sources, "-o", program], check=True)
    return program


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block takes, and fail if that is too long."""
    start = time.monotonic()
    yield
    took_s = time.monotonic() - start
    print(f"{what}: {took_s:.2f} s")
    assert took_s < LIMIT_S, what


def read_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stderr is not None
    return process.stderr.readline()


# -- the line ---------------------------------------------------------------------------------------------------------


def test_a_master_that_does_not_answer_is_named_once(hasty: Path, tree: Path, master: FakeMaster) -> None:
    with started([hasty, "echo", "x"], tree) as process:
        talk = master.accept()
        assert talk.receive() == ("A", b"")
        line = read_line(process)
        assert (
            line
            == (
                f"termite: the master (process {os.getpid()}) has not answered for 0 s; "
                f"kill -9 {os.getpid()} ends the wait, TERMITE=off builds without it: echo\n"
            ).encode()
        )
        time.sleep(6 * TICK_S)  # it does not repeat itself, and asks no more
        talk.say(frame("1", b"far\n"), exit_code(3))
        assert finish(process) == (3, b"far\n", b"termite: the master answers again: echo\n")
    assert talk.is_closed()


def test_a_master_that_answers_may_run_a_job_for_long(hasty: Path, tree: Path, master: FakeMaster) -> None:
    with started([hasty, "echo", "x"], tree) as process:
        talk = master.accept()
        for _ in range(4):
            assert talk.receive() == ("A", b"")
            talk.say(frame("A"))
        talk.say(exit_code(3))
        assert finish(process) == (3, b"", b"")


def test_a_short_job_asks_nothing(hasty: Path, tree: Path, master: FakeMaster) -> None:
    with started([hasty, "echo", "x"], tree) as process:
        talk = master.accept()
        time.sleep(TICK_S * 1.5)  # shorter than the silence after which it asks
        talk.say(exit_code(0))
        assert finish(process) == (0, b"", b"")
    assert talk.is_closed()


def test_it_is_noticed_too_while_the_job_waits_for_input(hasty: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    with started([hasty, "cat"], tree, stdin=reader) as process:
        talk = master.accept()
        talk.say(frame("R", fields(("size", "256"))))
        assert talk.receive() == ("A", b"")
        assert b"has not answered" in read_line(process)
        os.write(writer, b"text")
        assert talk.receive() == ("S", b"text")
        talk.say(exit_code(0))
        assert finish(process)[0] == 0
    os.close(reader)
    os.close(writer)


def test_a_stopped_master_is_called_stopped(hasty: Path, tree: Path) -> None:
    """Stop a process of this test, because its own state cannot be "stopped" while it looks."""
    script = "import socket, signal, os, sys; s = socket.socket(socket.AF_UNIX); s.bind('.termite-socket'); s.listen()"
    script += "; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    with started(["/usr/bin/python3", "-c", script], tree) as stopped:
        assert stopped.stdout is not None and stopped.stdout.readline() == b"ready\n"
        with started([hasty, "echo", "here"], tree) as process:
            line = read_line(process)
            assert f"(process {stopped.pid}, which is stopped)".encode() in line
            assert f"kill -CONT {stopped.pid} resumes it, kill -9 {stopped.pid} ends the wait".encode() in line
            stopped.kill()  # as the line says
            status, out, _ = finish(process)
            assert (status, out) == (0, b"here\n")


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_launcher_of_a_silent_master(
    launcher: Path, tree: Path, master: FakeMaster, name: str
) -> None:
    with started([launcher, "sleep", "9"], tree) as process:
        talk = master.accept()
        wait_for_handlers(talk, process)
        with timed(f"{name}, the master is silent"):
            process.send_signal(signal.Signals[name])
            assert finish(process)[0] == -signal.Signals[name]


def test_a_signal_ends_it_while_the_master_does_not_take_the_input(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    """Each answer fills the socket; the launcher waits in the middle of a frame."""
    whole = tree / "input"
    whole.write_bytes(b"x" * (1 << 20))
    with whole.open("rb") as stdin, started([launcher, "cat"], tree, stdin=stdin.fileno()) as process:
        talk = master.accept()
        talk.say(*[frame("R", fields(("size", str(256 * 1024)), ("offset", "0")))] * 3)
        wait_until_it_sends(process.pid)
        with timed("SIGINT, the master does not read"):
            process.send_signal(signal.SIGINT)
            assert finish(process)[0] == -signal.SIGINT


def test_a_cancel_stands_behind_the_frame_that_it_interrupts(launcher: Path, tree: Path, master: FakeMaster) -> None:
    whole = tree / "input"
    whole.write_bytes(b"x" * (1 << 20))
    with whole.open("rb") as stdin, started([launcher, "cat"], tree, stdin=stdin.fileno()) as process:
        talk = master.accept()
        talk.say(*[frame("R", fields(("size", str(256 * 1024)), ("offset", "0")))] * 3)
        wait_until_it_sends(process.pid)
        process.send_signal(signal.SIGINT)
        kinds = []
        while "K" not in kinds:
            kind, payload = talk.receive()
            kinds.append(kind)
            assert (kind, len(payload)) in (("S", 256 * 1024), ("K", 10))
        talk.say(exit_code(0))
        assert finish(process)[0] == -signal.SIGINT


def wait_for_handlers(talk: Conversation, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the launcher has its signal handlers, which is before it passes on any output."""
    talk.say(frame("1", b"!"))
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1) == b"!"


def wait_until_it_sends(pid: int) -> None:
    """Wait until the process sleeps in a system call that sends."""
    deadline = time.monotonic() + LIMIT_S
    while "alloc" not in (waits := Path(f"/proc/{pid}/wchan").read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "alloc" in waits, waits
