"""Lines of logs and messages: nobody whose text is in them can forge another line or a colour."""

import importlib
import io
import logging
from typing import NoReturn

import pytest

from termite.cli.build_commands.front_end import say
from termite.cli.ctl import run_words
from termite.cli.flags import report
from termite.cli.logs.log_lines import LogFormatter
from termite.cli.subcommands.builds import why
from termite.cli.subcommands.registry import FOLDERS
from termite.engine.errors import UserError
from termite.engine.status.report import Counters, Report, status_report

HOSTILE = "x\n2026-01-01 00:00:00 WARNING forged\x1b[31m\x9b2J\r\udce9"
SHOWN = "x\\x0a2026-01-01 00:00:00 WARNING forged\\x1b[31m\\x9b2J\\x0d\\xe9"


def logged(**options: bool) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("termite-test")
    log.addHandler(handler)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.warning("leftover-kept path=%s", HOSTILE, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_record_of_a_log_is_one_line_whatever_is_in_it() -> None:
    assert logged() == f"WARNING leftover-kept path={SHOWN}\n"


def test_no_line_of_a_traceback_begins_as_a_line_of_the_log() -> None:
    first, *others = logged(exc_info=True).splitlines()
    assert first == f"WARNING leftover-kept path={SHOWN}"
    assert others[0] == "    Traceback (most recent call last):"
    assert len(others) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_an_error_for_the_user_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report("termite-ctl", UserError(HOSTILE, hint=HOSTILE))
    assert capsys.readouterr().err == f"termite-ctl: {SHOWN}\n" * 2


def test_a_line_of_the_summary_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    assert capsys.readouterr().err == f"termite: {SHOWN}\n"


class FakeClient:
    """A client whose master gives the same answer to everything."""

    def __init__(self, answer: Report) -> None:
        self._answer = answer

    def ask(self, what: str, **fields: object) -> Report:
        return self._answer


def shown_by_ctl(
    answer: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> list[str]:
    """Return the lines that `termite-ctl` prints if the master answers so."""
    subcommand = importlib.import_module(f"termite.cli.subcommands.{FOLDERS[words[0]]}.{words[0]}")
    monkeypatch.setattr(subcommand, "connect_here", lambda: FakeClient(answer))
    assert run_words(words) == 0
    lines = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert all(map(str.isprintable, lines))
    return lines


def nothing_recorded() -> NoReturn:
    raise UserError("no build is recorded")


def test_a_row_of_the_status_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Masters, workers and coordinators choose names, and say what their trouble is."""
    rest = {"root": HOSTILE, "waiting": 0, "local_slots": {"busy": 0, "count": 1}, "elsewhere": HOSTILE}
    rest |= {"trouble": {"text": HOSTILE}, "known_workers": []}
    answer = status_report(Counters(), (), [{"name": HOSTILE, "slots": 1, "running": 0}], {}, {}, rest)
    lines = shown_by_ctl(answer, monkeypatch, capsys, "status")
    assert [line.split()[0] for line in lines if SHOWN in line] == ["tree", "worker", "elsewhere", "trouble"]


def test_each_line_of_why_is_shown_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command may have several lines. No other text begins a line."""
    facts = {"text": "sh -c 'a\nb\x1b[31m'", "plugin": "", "rule": None, "nothing": False, "tied": None, "local": False}
    monkeypatch.setattr(why, "recorded_builds_here", nothing_recorded)
    answer: Report = {**facts, "elsewhere": "", "workers": ["w\x1b[31m"], "bad_rules": "x\x9b2J"}
    lines = shown_by_ctl(answer, monkeypatch, capsys, "why", "sh", "-c", "x")
    assert lines[:2] == ["command    sh -c 'a", "b\\x1b[31m'"]
    assert lines[-2:] == ["workers    w\\x1b[31m", "rules      x\\x9b2J"]
