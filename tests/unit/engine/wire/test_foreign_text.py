"""Test that texts of other processes are safe for logs and terminals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.wire.protocol.foreign_text import LONGEST, printable
from tests.unit.tables import each_row


@pytest.mark.parametrize("text", ["", "plain", "with spaces", "äöü 漢字 🙂", "a\\nb"])
def test_what_can_be_seen_stays(text: str) -> None:
    assert printable(text) == text


@each_row(
    ("text", "shown"),
    [
        ("a\nWARNING b", "a\\x0aWARNING b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J\x7f\0\r\t", "\\x9b2J\\x7f\\x00\\x0d\\x09"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
    ],
)
def test_what_a_terminal_obeys_or_a_log_ends_at_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=3 * LONGEST))
def test_any_text_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)
    shown.encode()
    assert len(shown) <= 6 * LONGEST + 3
