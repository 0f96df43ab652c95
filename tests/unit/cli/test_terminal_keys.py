"""Keys as terminals send them: one at a time, many at once, and cut by a slow line."""

from hypothesis import given
from hypothesis import strategies as st

from termite.cli.readers.terminal_keys import is_cut, keys_of
from tests.unit.tables import each_row

KEYS = {
    b"\x1b[A": "up", b"\x1bOB": "down", b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home",
    b"\x1bOF": "end", b"\r": "enter", b"\t": "tab", b"q": "q", b"?": "?", b"\x03": "q",
}  # fmt: skip
UNKNOWN = (b"\x1b[15~", b"\x1b[1;5C", b"\x1bx", b"\xc3", b"\x00", b"\x1b[<0;10;10M")


@given(st.lists(st.sampled_from([*KEYS, *UNKNOWN]), max_size=20))
def test_keys_that_come_together_are_told_apart(typed: list[bytes]) -> None:
    assert keys_of(b"".join(typed)) == [KEYS[key] for key in typed if key in KEYS]


@each_row("key", [key for key in [*KEYS, *UNKNOWN] if key.startswith(b"\x1b")])
def test_a_key_that_was_cut_is_waited_for(key: bytes) -> None:
    assert not is_cut(key)
    assert all(is_cut(b"j" + key[:size]) for size in range(1, len(key)))


def test_escape_alone_is_a_key() -> None:
    assert keys_of(b"\x1b") == ["escape"]
    assert keys_of(b"\x1b\x1b\x1b[B") == ["escape", "escape", "down"]
