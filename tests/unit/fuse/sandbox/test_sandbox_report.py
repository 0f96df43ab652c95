"""Test how the report of a sandbox is read: whole, cut at every offset, and damaged."""

import re
from pathlib import Path

import pytest
from hypothesis import given

from termite.engine.errors import NotAtRest, Reason, Retryable
from termite.engine.wire.protocol.fields import pack_numbers
from termite.fuse.sandbox.sandbox_report import HIGH_LIMITS, SandboxResult, parse_report, sandbox_result
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

REPORT = pack_numbers(
    started_ns=10**18, ended_ns=10**18 + 5, user_us=3, system_us=4, maxrss_kb=5, status=256, stdin_offset=7
)


def result_of(message: bytes) -> SandboxResult:
    return sandbox_result(parse_report(message), 1, timed_out=False, upper=Path("/upper"))


def test_a_report_says_how_the_command_ended() -> None:
    result = result_of(REPORT)
    assert (result.exit.code, result.stdin_offset, result.usage.peak_memory_bytes) == (1, 7, 5 * 1024)


@each_row("length", range(REPORT.index(b"status=256")))
def test_a_report_that_was_cut_before_its_status_runs_the_job_again(length: int) -> None:
    with pytest.raises(Retryable):
        result_of(REPORT[:length])


@each_row("text", [b"", b"x", b"9" * 5000, b"9" * 30, b"0x1", b"\xff"])
def test_a_text_in_place_of_a_number_runs_the_job_again(text: bytes) -> None:
    for key in (b"status", b"ended_ns", b"stdin_offset", b"maxrss_kb", b"exec"):
        with pytest.raises(Retryable):
            result_of(REPORT + key + b"=" + text + b"\0")


@given(mutations(REPORT))
def test_a_damaged_report_is_a_result_or_runs_the_job_again(damaged: bytes) -> None:
    try:
        assert 0 <= result_of(damaged).exit.code <= 255
    except (Retryable, NotAtRest) as error:
        assert str(error)


def test_a_report_of_a_limit_that_is_too_high_names_it() -> None:
    source = Path(__file__).parents[4] / "native/sandbox/user.c"
    assert set(re.findall(r'"(limit-\w)"', source.read_text())) == HIGH_LIMITS.keys()
    for word, name in HIGH_LIMITS.items():
        with pytest.raises(Retryable) as caught:
            result_of(f"here={word}\0".encode())
        assert (caught.value.reason, caught.value.detail) == (Reason.LIMIT_TOO_HIGH, name)


@pytest.mark.parametrize("status", ["-1", "65536", "10000000256"])
def test_a_status_that_wait_cannot_give_runs_the_job_again(status: str) -> None:
    with pytest.raises(Retryable, match="status"):
        sandbox_result({"status": status}, 0, False, Path("upper"))
