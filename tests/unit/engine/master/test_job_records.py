"""No field of a record has a credential of its command, or a value that is left out of jobs."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec

from termite.engine.decide.environment import Environment
from termite.engine.decide.logic.command_mask import mask_command
from termite.engine.errors import Reason, Retryable
from termite.engine.history.logic.job_record import JobRecord
from termite.engine.launch.output_tail import OutputTail
from termite.engine.master.job import Job
from termite.engine.master.recording.attempt_failures import detail_text, reason_of
from termite.engine.master.recording.job_notes import JobNotes
from termite.engine.master.recording.job_records import RecordSettings, record_of
from termite.engine.master.reuse.result_look_up import miss_detail
from termite.engine.model import Command, How, Invocation, Verdict
from termite.engine.recall.look_up.differences import Difference, DifferenceKind, MissCause

EXCLUDED = "value-left-out"
SECRET = "hunter22"
ENV = Environment({"DEPLOY_KEY": EXCLUDED, "CFLAGS": "-O2"})
SETTINGS = RecordSettings(b"home/u/p", ("DEPLOY_*",))
ARGV = ("tool", "--password", SECRET, EXCLUDED)


def job(**more: Any) -> Job:
    invocation = Invocation(ARGV, "/bin/tool", True, "/home/u/p", ENV, How.DIRECT)
    fields: dict[str, Any] = {
        "id": 1,
        "notes": JobNotes(),
        "command": Command(ARGV, "/bin/tool", True, "/home/u/p", ENV, " ".join(ARGV)),
        "verdict": Verdict(local=False),
        "request": SimpleNamespace(invocation=invocation),
        "launcher": SimpleNamespace(pid=1, gone=None),
        "output": SimpleNamespace(tail=OutputTail()),
        "plugin": "",
        "place": "",
    }
    return cast(Job, SimpleNamespace(**{**fields, **more}))


def assert_hidden(record: JobRecord) -> None:
    packed = msgspec.json.encode(record).decode()
    assert SECRET not in packed and EXCLUDED not in packed


def test_a_command_is_masked_before_and_after_it_is_parsed() -> None:
    unparsed = job(command=None)
    assert_hidden(record_of(unparsed, SETTINGS))
    assert record_of(unparsed, SETTINGS).text == "tool --password *** ***"
    parsed = job(notes=unparsed.notes, command=Command(ARGV, "tool", True, "/", ENV, f"run {' '.join(ARGV)}"))
    assert_hidden(record_of(parsed, SETTINGS))
    assert record_of(parsed, SETTINGS).text == "run tool --password *** ***"


def test_a_word_that_has_a_space_or_a_sign_of_the_shell_is_masked_as_a_whole() -> None:
    argv = ("tool", "--password", "one two", "PASSWORD=three;four", "--token", "it's", "-o", "five six")
    command = Command(argv, "/bin/tool", True, "/home/u/p", ENV, " ".join(argv))
    expected = "tool --password *** PASSWORD=*** --token *** -o five six"
    assert record_of(job(command=command), SETTINGS).text == expected
    assert mask_command(command.text, ENV, (), argv) == expected


def test_the_text_of_an_error_is_masked() -> None:
    failed = job()
    for error in (ValueError(" ".join(ARGV)), Retryable(Reason.SANDBOX_FAILED, " ".join(ARGV))):
        reason, detail = reason_of(error, failed)
        failed.notes.reason, failed.notes.detail = reason, detail_text(detail)
        assert SECRET not in detail_text(detail)
        record = record_of(failed, SETTINGS)
        assert_hidden(record)
        assert "--password ***" in record.cause.detail


def test_a_difference_to_the_last_run_has_no_value_that_is_left_out() -> None:
    found = Difference(MissCause.ARGUMENT, b"new", b"--x=" + EXCLUDED.encode(), b"new", DifferenceKind.WORD)
    detail = miss_detail(found, ENV.hidden(SETTINGS.env_exclude))
    assert (detail.kind, detail.name, detail.old, detail.new) == ("word", "new", "--x=***", "new")
