"""A crash leaves a report without values of the environment, and one line says where it is."""

import logging
import re
import stat
from pathlib import Path

import pytest
import trio

from termite.cli import daemons
from termite.cli.flags import run_command, run_reporting
from termite.cli.logs import crash_reports
from termite.cli.logs.log_lines import LogFormatter
from termite.engine.errors import UserError
from termite.engine.host.log_tail import LogTail

SECRET = "hunter2-is-secret"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MY_TOKEN", SECRET)
    return tmp_path / "state" / "termite" / "crashes"


def crash() -> int:
    raise KeyError(f"no entry for {SECRET}")


def test_a_crash_leaves_a_report_and_one_line(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tail, root = LogTail(), logging.getLogger()
    tail.setFormatter(LogFormatter())
    root.addHandler(tail)
    try:
        logging.getLogger("somebody").error("worker-lost worker=%s", SECRET)
        assert run_command("termite-x", crash) == 100
    finally:
        root.removeHandler(tail)
    (path,) = state.iterdir()
    line = capsys.readouterr().err
    assert re.fullmatch(
        rf"termite-x: an error inside termite: KeyError.*; the report is {re.escape(str(path))}\n", line
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(state.stat().st_mode) == 0o700
    text = path.read_text()
    assert text.startswith("termite-x 0.1.0, Python 3.")
    assert "worker-lost worker=$MY_TOKEN" in text
    assert "Traceback (most recent call last)" in text and "in crash" in text
    assert SECRET not in text


def test_a_daemon_that_crashes_while_it_serves_leaves_a_report(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "start_sweep", lambda: None)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        task_status.started("here:1")
        async with trio.open_nursery():
            raise RuntimeError("a bug")

    assert run_reporting("termite-x", lambda: daemons.run_daemon("termite-x", serve, "{address}", {})) == 100
    (path,) = state.iterdir()
    assert "RuntimeError: a bug" in path.read_text()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith(f"the report is {path}\n") and "a bug" in said


def test_only_the_newest_reports_stay(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_reports, "MOST_REPORTS", 3)
    for number in range(5):
        monkeypatch.setattr("os.getpid", lambda number=number: 1000 + number)
        crash_reports.write_report("termite-x", ValueError("x"))
    assert [path.name[-4:] for path in sorted(state.iterdir())] == ["1002", "1003", "1004"]


def test_an_error_of_the_user_leaves_no_report(state: Path) -> None:
    def refuse() -> int:
        raise UserError("no")

    assert run_command("termite-x", refuse) == 100
    assert not state.exists()


def test_without_a_place_the_traceback_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crash_reports, "own_directory", lambda kind: tmp_path / "none" / "here")
    assert run_command("termite-x", crash) == 100
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "its report cannot be written" in said.splitlines()[-1]


def test_long_values_are_replaced_first_and_short_ones_not() -> None:
    env = {"HOME": "/home/me", "PROJECT": "/home/me/secret-project", "ONE": "1"}
    text = crash_reports.without_values("/home/me/secret-project/x /home/me/y 1", env)
    assert text == "$PROJECT/x $HOME/y 1"
