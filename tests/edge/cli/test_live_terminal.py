"""`termite-ctl top` on a real terminal draws what a master says, obeys keys, and cleans up."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from termite.cli.places import records_directory
from termite.engine.history.logic.job_record import Where
from termite.engine.history.logic.live_events import (
    JobEnded,
    JobHome,
    JobQueued,
    JobSent,
    WorkerChanged,
    WorkerState,
)
from tests.live_master import FakeMaster, serving
from tests.synthetic_builds import SyntheticBuild, events_of, synthetic_build, write_history

TOP = [sys.executable, "-m", "termite.cli.ctl", "top"]
LEAVE = b"\x1b[?1049l"


class Terminal:
    """A terminal with a program on it. `lines` is what a person would see."""

    def __init__(self, end: int) -> None:
        self._end = end
        self.sent = b""
        self.lines: dict[int, str] = {}

    async def until(self, text: str) -> None:
        """Read until a person would see `text`. Fail after ten seconds."""
        with trio.fail_after(10):
            while text not in self.shown:
                await self._read()

    @property
    def shown(self) -> str:
        """The text that is on the screen now."""
        return "\n".join(self.lines[row] for row in sorted(self.lines))

    async def until_sent(self, text: bytes) -> None:
        """Read until the program has sent these bytes. Fail after ten seconds."""
        with trio.fail_after(10):
            while text not in self.sent:
                await self._read()

    def settings(self) -> list[object]:
        """Return the settings of the terminal: whether it echoes, and so on."""
        return termios.tcgetattr(self._end)

    async def read_to_the_end(self, limit_s: float = 5) -> None:
        """Read until the program has closed the terminal, or the time is over."""
        with trio.move_on_after(limit_s), contextlib.suppress(OSError):
            while True:
                await self._read()

    async def _read(self) -> None:
        await trio.lowlevel.wait_readable(self._end)
        self.sent += os.read(self._end, 65536)
        for row, text in re.findall(rb"\x1b\[(\d+);1H([^\x1b]*(?:\x1b\[\d*m[^\x1b]*)*)", self.sent):
            self.lines[int(row)] = re.sub(rb"\x1b\[\d*m", b"", text).decode("utf-8", "replace")

    def press(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self._end, keys)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the terminal, as a person who drags its edge."""
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


@contextlib.contextmanager
def top_on_a_terminal(
    tree: Path, *flags: str, terminal_type: str = "xterm"
) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    end, inner = pty.openpty()
    terminal = Terminal(end)
    terminal.resize(24, 80)
    env = {**os.environ, "TERM": terminal_type, "TERMITE_SOCKET": str(tree / ".termite-socket")}
    process = subprocess.Popen(
        [*TOP, "--interval", "0.2", *flags], cwd=tree, env=env, stdin=inner, stdout=inner, stderr=inner,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inner)
    try:
        yield terminal, process
    finally:
        process.kill()
        process.wait()
        os.close(end)


def emit_all(master: FakeMaster, count: int) -> None:
    for event in events_of(synthetic_build(60))[:count]:
        master.emit(event)


async def test_it_shows_what_the_master_says_and_obeys_keys(tmp_path: Path) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 100)
        with top_on_a_terminal(tmp_path) as (terminal, process):
            running = [job for job in master.state.jobs.values() if job.sent_s]
            await terminal.until(f"{len(running)} running")
            for event in events_of(synthetic_build(60))[100:160]:
                master.emit(event)
            running = [job for job in master.state.jobs.values() if job.sent_s]
            await terminal.until(f"{len(running)} running, {len(master.state.jobs) - len(running)} waiting")
            terminal.press(b"\r")
            await terminal.until("directory /home/user/project/src")
            terminal.press(b"\x1b")
            await terminal.until("[running]")
            terminal.press(b"\t")
            await terminal.until("[waiting]")
            terminal.resize(10, 40)
            terminal.lines.clear()
            await terminal.until("[waiting]")
            terminal.press(b"q")
            await terminal.read_to_the_end()
            assert process.wait(5) == 0
            assert LEAVE in terminal.sent
            assert max(terminal.lines) <= 24


async def test_the_first_screen_is_true(tmp_path: Path) -> None:
    """With an interval of a minute, it is the only one that is drawn without a key."""
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 100)
        running = sum(1 for job in master.state.jobs.values() if job.sent_s)
        with top_on_a_terminal(tmp_path, "--interval", "60") as (terminal, _):
            await terminal.until("termite ")
            await terminal.until(f"{running} running")
            assert b"none: commands run on this machine" not in terminal.sent and b"master 0" not in terminal.sent


def crowd(master: FakeMaster, count: int, since_s: float = 1e9) -> None:
    """Let so many jobs run, for long enough texts to fill a screen."""
    _, jobs = synthetic_build(20)
    for number in range(1, count + 1):
        text = f"gcc {'-DX ' * 40}{number}"
        master.emit(
            JobSent(
                msgspec.structs.replace(
                    jobs[9], id=number, text=text, sent_s=since_s + number / 1000, home_s=0.0, ended_s=0.0
                )
            )
        )


async def test_a_terminal_that_takes_nothing_holds_up_neither_keys_nor_events(tmp_path: Path) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 20)
        with top_on_a_terminal(tmp_path) as (terminal, process):
            await terminal.until("running")
            terminal.resize(60, 220)
            before_kb = resident_kb(process.pid)
            for _ in range(20):  # nobody reads: the terminal is full after the first drawing
                crowd(master, 1000)
                await trio.sleep(0.1)
            assert resident_kb(process.pid) < before_kb + 20_000
            assert master.state.missed == 0
            terminal.press(b"q")
            assert await trio.to_thread.run_sync(process.wait, 10) == 0
            await terminal.read_to_the_end()
            assert terminal.sent.endswith(LEAVE)
            assert len(terminal.sent) < 60_000, "drawings wait for the terminal"


def resident_kb(pid: int) -> int:
    """Return the memory of a process."""
    found = re.search(r"^VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def cpu_s(pid: int) -> float:
    """Return the CPU time that all threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def come_and_go(master: FakeMaster, numbers: Iterable[int]) -> None:
    """Let a job come home and another one start, twenty times a second."""
    _, jobs = synthetic_build(20)
    for number in numbers:
        old = master.state.jobs[number - 1000]
        now_s = time.time()
        master.emit(JobEnded(old.id, now_s - 1, now_s, 0))
        master.emit(JobHome(msgspec.structs.replace(jobs[9], id=old.id, text=old.text, home_s=now_s)))
        queued = msgspec.structs.replace(old, id=number, where=Where.UNDECIDED, sent_s=0.0, queued_s=now_s)
        master.emit(JobQueued(queued))
        master.emit(JobSent(msgspec.structs.replace(old, id=number, queued_s=now_s, sent_s=now_s)))
        await trio.sleep(0.05)


async def test_a_thousand_running_jobs_cost_less_than_two_percent_of_a_core(tmp_path: Path) -> None:
    """The cheapest of three times counts, because a busy machine makes CPU time dearer."""
    costs = []
    async with serving(tmp_path / ".termite-socket") as master:
        crowd(master, 1000, time.time() - 1)
        with top_on_a_terminal(tmp_path, "--interval", "1") as (terminal, process):
            terminal.resize(50, 160)
            await terminal.until("1000 running")
            terminal.sent = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(terminal.read_to_the_end, 60)
                for first in (1001, 1041, 1081):
                    before_s, began_s = cpu_s(process.pid), time.monotonic()
                    await come_and_go(master, range(first, first + 40))
                    costs.append((cpu_s(process.pid) - before_s) / (time.monotonic() - began_s))
                nursery.cancel_scope.cancel()
            assert "1000 running" in terminal.shown and " jobs/s" in terminal.shown
            assert terminal.sent.count(b"\x1b[7m") >= 5, "the times of the jobs have been drawn once a second"
    assert master.state.missed == 0
    assert 0 < min(costs) < 0.02, costs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_it_and_the_terminal_is_as_before(tmp_path: Path, number: signal.Signals) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 50)
        with top_on_a_terminal(tmp_path) as (terminal, process):
            before = terminal.settings()
            await terminal.until("running")
            assert terminal.settings() != before
            process.send_signal(number)
            await terminal.until_sent(LEAVE)
            assert await trio.to_thread.run_sync(process.wait, 5) == -number
            assert terminal.settings() == before


async def test_a_stop_gives_the_terminal_back_and_a_start_draws_again(tmp_path: Path) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 50)
        with top_on_a_terminal(tmp_path) as (terminal, process):
            before = terminal.settings()
            await terminal.until("running")
            process.send_signal(signal.SIGTSTP)
            await terminal.until_sent(LEAVE)
            assert await trio.to_thread.run_sync(os.waitpid, process.pid, os.WUNTRACED) == (process.pid, 0x137F)
            assert terminal.settings() == before
            terminal.sent = b""
            terminal.lines.clear()
            process.send_signal(signal.SIGCONT)
            await terminal.until("running")
            assert terminal.settings() != before


async def test_a_key_that_a_slow_line_has_cut_is_one_key(tmp_path: Path) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        crowd(master, 40)
        with top_on_a_terminal(tmp_path) as (terminal, _):
            await terminal.until("; 1 of 40")
            for piece in (b"\x1b", b"[", b"B\x1b[B\x1b", b"[B"):
                terminal.press(piece)
                await trio.sleep(0.01)
            await terminal.until("; 4 of 40")


async def test_what_came_home_before_it_was_started_is_shown_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    build, jobs = synthetic_build(60)
    write_history(records_directory(Path(build.tree)), [SyntheticBuild(build, jobs)])
    slowest = max((job for job in jobs if job.sent_s), key=lambda job: job.home_s - job.sent_s)
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 2)
        with top_on_a_terminal(tmp_path) as (terminal, _):
            await terminal.until("build 1")
            terminal.press(b"\t\t")
            await terminal.until(f"{slowest.id:>7}  {slowest.worker}:{slowest.slot}")
            terminal.press(b"\t")
            await terminal.until("rule ^ar ")


@pytest.mark.parametrize(("variable", "alarm"), [("", b"\x1b[31mzeta"), ("1", b"\x1b[1mzeta")])
async def test_alarms_are_seen_with_and_without_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, alarm: bytes
) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 20)
        master.emit(WorkerChanged(WorkerState(name="zeta", slots=1, running=1, silent_since_s=1e9)))
        with top_on_a_terminal(tmp_path) as (terminal, _):
            await terminal.until_sent(b"1 job waits for it")
            assert alarm in terminal.sent and (b"\x1b[31m" in terminal.sent) == (not variable)


async def test_a_terminal_without_a_screen_gets_the_state_once(tmp_path: Path) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        crowd(master, 5)
        with top_on_a_terminal(tmp_path, terminal_type="dumb") as (terminal, process):
            await terminal.read_to_the_end()
            assert process.wait(5) == 0
        assert b"\x1b" not in terminal.sent and b"5 running" in terminal.sent and b"TERM=dumb" in terminal.sent


async def test_it_ends_with_the_master_with_ctrl_c_and_with_a_signal(tmp_path: Path) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 50)
        with top_on_a_terminal(tmp_path) as (terminal, process):
            await terminal.until("running")
            terminal.press(b"\x03")
            await terminal.read_to_the_end()
            assert process.wait(5) in (0, 128 + signal.SIGINT, -signal.SIGINT)
            assert LEAVE in terminal.sent
        with top_on_a_terminal(tmp_path) as (terminal, process):
            await terminal.until("running")
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 50)
        shown = top_on_a_terminal(tmp_path)
        terminal, process = shown.__enter__()
        await terminal.until("running")
    try:
        await terminal.read_to_the_end()
        assert process.wait(5) == 100
        assert b"the master has ended" in terminal.sent
        assert terminal.sent.index(LEAVE) < terminal.sent.index(b"the master has ended")
    finally:
        shown.__exit__(None, None, None)


@pytest.mark.parametrize("flags", [(), ("--once",)])
async def test_without_a_terminal_it_prints_once(tmp_path: Path, flags: tuple[str, ...]) -> None:
    async with serving(tmp_path / ".termite-socket") as master:
        emit_all(master, 120)
        done = await trio.run_process(
            [*TOP, *flags], cwd=tmp_path, capture_stdout=True, env={**os.environ, "TERMITE_SOCKET": ".termite-socket"}
        )
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert all(f"\n{job.id:>7}  " in text for job in master.state.jobs.values() if job.sent_s)


async def test_a_wrong_interval_and_no_master_are_said(tmp_path: Path) -> None:
    for words, said in ((["--interval", "0"], b"-interval"), ([], b"no master runs")):
        done = await trio.run_process(
            [*TOP, *words], cwd=tmp_path, capture_stderr=True, check=False, env={**os.environ, "TERMITE_SOCKET": ""}
        )
        assert done.returncode == 100
        assert said in done.stderr
