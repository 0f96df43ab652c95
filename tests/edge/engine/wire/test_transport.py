"""A connection to a port of this machine."""

import pytest

from termite.engine.errors import (
    ConnectionLost,
)
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.transport import dial
from tests.unit.engine.wire.test_transport import refuse


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\xe9" * 200, "a\0b", "", "ok host", "%", "fe80::1%nowhere"])
async def test_an_address_that_is_none_is_a_lost_connection(host: str) -> None:
    with pytest.raises(ConnectionLost):
        async with dial(host, 1, mint(b"0123456789abcdef", "m", Role.CLIENT), refuse):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_where_nobody_listens_the_reason_is_one_plain_line(host: str) -> None:
    with pytest.raises(ConnectionLost) as raised:
        async with dial(host, 1, mint(b"0123456789abcdef", "m", Role.CLIENT), refuse):
            pass
    assert str(raised.value) == f"the connection failed: {host}:1: Connection refused"
