"""What a launcher asks for."""

import pytest

from termite.engine.errors import RemoteProtocolError
from termite.engine.launch.invocation import parse_invoke
from termite.engine.wire.protocol.records import pack_records

FIELDS = [("v", b"3"), ("how", b"direct"), ("cwd", b"/p"), ("arg", b"gcc")]
ENV = [("env", b"A=1"), ("env", b"B=x=y"), ("env", b"EMPTY=")]


def test_commands_with_the_same_environment_share_it() -> None:
    first, second = (parse_invoke(pack_records([*FIELDS, ("arg", word), *ENV])) for word in (b"x", b"y"))
    assert dict(first.invocation.env) == {"A": "1", "B": "x=y", "EMPTY": ""}
    assert first.invocation.env is second.invocation.env
    assert parse_invoke(pack_records([*FIELDS, *ENV[1:]])).invocation.env["B"] == "x=y"


def test_there_may_be_no_environment() -> None:
    assert dict(parse_invoke(pack_records(FIELDS)).invocation.env) == {}


@pytest.mark.parametrize("records", [[*ENV, *FIELDS], [*FIELDS[:-1], *ENV, FIELDS[-1]]], ids=["in front", "amid"])
def test_an_environment_that_is_not_behind_all_else_is_refused(records: list[tuple[str, bytes]]) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_invoke(pack_records(records))


def test_what_is_no_utf8_comes_through() -> None:
    asked = parse_invoke(pack_records([*FIELDS, ("arg", b"\xff"), ("env", b"N=\xfe")]))
    assert asked.invocation.argv == ("gcc", "\udcff")
    assert asked.invocation.env["N"] == "\udcfe"
