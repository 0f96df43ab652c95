"""A front end tells of a master that stands still, because ninja hides what the launchers say."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from termite.cli.build_commands.tool_process import LOOK_S, SILENT_S, MasterLook, run_process

LOOKS = round(SILENT_S / LOOK_S)  # then the time is up at the next one


@pytest.fixture
def master() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def test_a_master_that_stands_still_is_named_once(master: "subprocess.Popen[bytes]") -> None:
    look = MasterLook(master.pid)
    stop(master)
    said = [look.look() for _ in range(3 * LOOKS)]
    assert [bool(line) for line in said] == [number == LOOKS for number in range(3 * LOOKS)]
    assert said[LOOKS] == (
        f"the master (process {master.pid}, which is stopped) has not answered for 30 s; "
        f"kill -CONT {master.pid} resumes it, kill -9 {master.pid} ends the wait"
    )


def test_a_master_that_goes_on_in_time_is_not_named(master: "subprocess.Popen[bytes]") -> None:
    look = MasterLook(master.pid)
    for _ in range(3):
        stop(master)
        assert not any(look.look() for _ in range(LOOKS))
        master.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, master.pid, os.WCONTINUED)
        assert not look.look()


def test_a_master_that_is_gone_or_cannot_be_seen_is_not_named(master: "subprocess.Popen[bytes]") -> None:
    master.kill()
    master.wait()
    looks = [MasterLook(0), MasterLook(master.pid)]
    assert not any(look.look() for look in looks for _ in range(2 * LOOKS))


def test_a_tool_that_runs_for_longer_than_a_look_ends_as_ever(
    master: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("termite.cli.build_commands.tool_process.LOOK_S", 0.01)
    monkeypatch.setattr("termite.cli.build_commands.tool_process.SILENT_S", 0.02)
    stop(master)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        status, is_interrupted = run_process(["sh", "-c", "sleep 0.5; exit 3"], os.environ, master.pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (os.waitstatus_to_exitcode(status), is_interrupted) == (3, False)
    assert capfd.readouterr().err.count(f"termite: the master (process {master.pid}, which is stopped)") == 1
