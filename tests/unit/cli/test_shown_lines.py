"""Lines of logs and messages: nobody whose text is in them can forge another line or a colour."""

import io
import logging

import pytest

from termite.cli.build_commands.front_end import say
from termite.cli.flags import report
from termite.cli.logs.log_lines import LogFormatter
from termite.engine.errors import UserError

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
