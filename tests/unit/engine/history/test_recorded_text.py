"""Texts, outputs and names in a record are bounded and have no credential."""

import msgspec
import pytest

from termite.engine.decide.environment import Environment
from termite.engine.history.logic.job_record import FILES_BYTES, FILES_NAMED, OUTPUT_BYTES, TEXT_CHARACTERS, as_object
from termite.engine.history.logic.recorded_text import CUT, recorded_names, recorded_output, recorded_text
from tests.synthetic_builds import EVERY_KIND, synthetic_build


@pytest.mark.parametrize(
    "text",
    [
        "curl -u me --password hunter22",
        "API_TOKEN=hunter22 make",
        "git clone https://me:hunter22@example.org/x.git",
        "curl -H 'Authorization: Bearer hunter22'",
    ],
)
def test_a_credential_is_masked(text: str) -> None:
    assert "hunter22" not in recorded_text(text)
    assert b"hunter22" not in recorded_output(text.encode())


def test_the_values_of_excluded_variables_are_masked() -> None:
    hidden = Environment({"DEPLOY_KEY": "very-secret-value", "CFLAGS": "-O2"}).hidden(("DEPLOY_*",))
    assert recorded_text("echo very-secret-value -O2", hidden) == "echo *** -O2"
    assert recorded_output(b"very-secret-value -O2", hidden) == b"*** -O2"


def test_a_long_text_is_cut_after_it_was_masked() -> None:
    text = "x" * (TEXT_CHARACTERS - 10) + " --token " + "s" * 100
    recorded = recorded_text(text)
    assert len(recorded) <= TEXT_CHARACTERS + len(CUT)
    assert "sss" not in recorded


def test_a_text_that_is_no_utf_8_can_be_recorded() -> None:
    recorded = recorded_text("cc \udcff.c ü")
    assert recorded == "cc \\xff.c ü"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(recorded)) == recorded


def test_only_the_end_of_an_output_is_kept() -> None:
    output = bytes(range(256)) * 20
    assert recorded_output(output) == output[-OUTPUT_BYTES:]
    assert recorded_output(b"") == b""


def test_names_are_bounded_in_number_and_in_bytes() -> None:
    assert recorded_names(b"%d" % number for number in range(1000)) == tuple(b"%d" % n for n in range(FILES_NAMED))
    assert len(recorded_names([b"x" * 3000] * 10)) == FILES_BYTES // 3000
    assert recorded_names([]) == ()


def test_a_record_becomes_an_object_of_plain_values() -> None:
    build, jobs = synthetic_build(EVERY_KIND)
    for record in (build, *jobs):
        plain = as_object(record)
        assert list(plain) == list(record.__struct_fields__)
        assert msgspec.json.decode(msgspec.json.encode(plain)) == plain
    assert as_object(msgspec.structs.replace(jobs[0], files=(b"\xff",)))["files"] == ["\\xff"]
