"""Test that any text is an address or a user's error."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import UserError
from termite.engine.wire.addresses import split_address
from tests.unit.tables import each_row

PARTS = ["[", "]", ":", "::1", "inproc:", "host", "80", "65536", "0", "-1", "\u0663", "\0", " ", "9" * 5000]


@each_row(
    ("address", "parts"),
    [
        ("host", ("host", 5)),
        ("host:80", ("host", 80)),
        (":80", ("", 80)),
        ("::1", ("::1", 5)),
        ("[::1]", ("::1", 5)),
        ("[::1]:80", ("::1", 80)),
        ("inproc:name:80", ("inproc:name:80", 0)),
    ],
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address, 5) == parts


@each_row("port", ["", "0", "65536", "-1", " 80", "8_0", "\u0663", "9" * 5000])
def test_what_is_no_port_is_a_users_error(port: str) -> None:
    with pytest.raises(UserError):
        split_address(f"host:{port}", 5)


@given(st.lists(st.sampled_from(PARTS), max_size=5).map("".join))
def test_any_text_is_an_address_or_a_users_error(text: str) -> None:
    with contextlib.suppress(UserError):
        host, port = split_address(text, 1234)
        assert port in range(1, 65536) or host.startswith("inproc:")
