"""A record of a log as JSON: its event and keys, whatever texts of others are in it."""

import json
import logging
from typing import Any

import pytest

from termite.cli.flags import print_line, report
from termite.cli.logs.log_lines import JsonFormatter, LogFormatter
from termite.engine.errors import UserError

HOSTILE = 'x\n{"event": "forged"}\x1b[31m\udce9'


def shown(message: str, *args: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("termite", logging.WARNING, "", 0, message, args, more.pop("exc_info", None))
    record.created = 1_800_000_000.25
    vars(record).update(more)
    text = JsonFormatter().format(record)
    assert "\n" not in text and text.isascii()
    found: dict[str, Any] = json.loads(text)
    assert found.pop("time") == "2027-01-15T08:00:00.250Z"
    assert found.pop("level") == "warning"
    return found


def test_an_event_and_its_keys_become_fields() -> None:
    message = "lease-opened lease=%s:%d slots=%d name=%r lost='yes' reason=%s"
    assert shown(message, "w", 3, 8, "a b", "because of x=y") == {
        "event": "lease-opened",
        "lease": "w:3",
        "slots": 8,
        "name": "'a b'",
        "lost": "'yes'",
        "reason": "because of x=y",
    }
    assert shown("master-ended path=/t reason=idle") == {"event": "master-ended", "path": "/t", "reason": "idle"}
    assert shown("job-failed") == {"event": "job-failed"}


@pytest.mark.parametrize("message", ["Something %s went wrong", "%s", "not-an-event, %s"])
def test_a_record_of_another_library_keeps_its_text(message: str) -> None:
    assert shown(message, "here") == {"text": message % "here"}


def test_texts_of_others_forge_nothing() -> None:
    assert shown("worker-lost worker=%s", HOSTILE)["worker"] == 'x\\x0a{"event": "forged"}\\x1b[31m\\xe9'


def test_a_traceback_and_further_lines_are_a_list() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        found = shown("job-failed job=%d", 7, exc_info=(ValueError, error, error.__traceback__))
    assert found["job"] == 7
    assert found["lines"][0] == "Traceback (most recent call last):"
    assert all(line.isprintable() for line in found["lines"])
    with_command = shown("job-failed job=%d", 7, exc_info=(ValueError, ValueError("curl --password hunter2"), None))
    assert with_command["lines"][-1] == "ValueError: curl --password ***"
    assert shown("tasks-shown tasks=%d", 2, further_lines=["a", "b\n"])["lines"] == ["a", "b\\x0a"]


def test_further_lines_are_indented_in_a_text() -> None:
    record = logging.LogRecord("termite", logging.INFO, "", 0, "tasks-shown tasks=%d", (2,), None)
    vars(record)["further_lines"] = ["main: x", "  child: y\n2026-01-01 00:00:00 forged"]
    assert LogFormatter("%(message)s").format(record) == (
        "tasks-shown tasks=2\n    main: x\n      child: y\\x0a2026-01-01 00:00:00 forged"
    )


def test_a_line_of_a_front_end_is_json_if_the_user_wants_that(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMITE_LOG_FORMAT", "json")
    print_line("termite-make", HOSTILE)
    report("termite-ctl", UserError("no", hint="see x"))
    said, wrong, hint = map(json.loads, capsys.readouterr().err.splitlines())
    assert (said["program"], said["level"], said["text"]) == (
        "termite-make",
        "info",
        'x\\x0a{"event": "forged"}\\x1b[31m\\xe9',
    )
    assert (wrong["program"], wrong["level"], wrong["text"], hint["text"]) == ("termite-ctl", "error", "no", "see x")
