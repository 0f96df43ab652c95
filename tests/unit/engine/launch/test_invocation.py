"""Test how the request of a launcher is parsed."""

import contextlib

import pytest
from hypothesis import given

from termite.engine.errors import RemoteProtocolError
from termite.engine.launch.invocation import Inheritance, ShellWish, parse_invoke
from termite.engine.model import TerminalWish, WindowSize
from termite.engine.wire.protocol.fields import pack_fields
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

FIELDS = [("v", b"6"), ("how", b"direct"), ("cwd", b"/p"), ("arg", b"gcc")]
ENV = [("env", b"A=1"), ("env", b"B=x=y"), ("env", b"EMPTY=")]


def test_commands_with_the_same_environment_share_it() -> None:
    first, second = (parse_invoke(pack_fields([*FIELDS, ("arg", word), *ENV])) for word in (b"x", b"y"))
    assert dict(first.invocation.env) == {"A": "1", "B": "x=y", "EMPTY": ""}
    assert first.invocation.env is second.invocation.env
    assert parse_invoke(pack_fields([*FIELDS, *ENV[1:]])).invocation.env["B"] == "x=y"


def test_there_may_be_no_environment() -> None:
    assert dict(parse_invoke(pack_fields(FIELDS)).invocation.env) == {}


@pytest.mark.parametrize("fields", [[*ENV, *FIELDS], [*FIELDS[:-1], *ENV, FIELDS[-1]]], ids=["in front", "amid"])
def test_an_environment_that_is_not_behind_all_else_is_refused(fields: list[tuple[str, bytes]]) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_invoke(pack_fields(fields))


def test_what_is_no_utf8_comes_through() -> None:
    asked = parse_invoke(pack_fields([*FIELDS, ("arg", b"\xff"), ("env", b"N=\xfe")]))
    assert asked.invocation.argv == ("gcc", "\udcff")
    assert asked.invocation.env["N"] == "\udcfe"


FILE = {
    "stdin_mode": b"100644",
    "stdin_size": b"5",
    "stdin_mtime_ns": b"1",
    "stdin_block": b"4096",
    "stdin_offset": b"0",
}


@each_row(
    ("key", "number"),
    [
        ("stdin_mode", b"-1"),
        ("stdin_mode", b"1000000"),
        ("stdin_size", b"-1"),
        ("stdin_size", b"9223372036854775808"),
        ("stdin_mtime_ns", b"99999999999999999999999"),
        ("stdin_block", b"-4096"),
        ("stdin_offset", b"-1"),
        ("stdin_offset", b"9" * 5000),
    ],
)
def test_an_absurd_number_of_a_launcher_is_refused(key: str, number: bytes) -> None:
    fields = [*FIELDS, ("stdin", b"file")]
    assert parse_invoke(pack_fields([*fields, *FILE.items()])).stdin_file is not None
    with pytest.raises(RemoteProtocolError):
        parse_invoke(pack_fields([*fields, *(FILE | {key: number}).items()]))


STDIN = [("stdin", b"file"), *FILE.items()]
MORE = [
    ("token", b"00ff"),
    ("umask", b"022"),
    ("limits", b"7:1024:-,3:-:-"),
    ("nice", b"3"),
    ("root", b"1:2:3"),
    ("out", b"tty"),
    ("window", b"24:80:0:0"),
    ("shell", b"7"),
]
WHOLE = pack_fields([*STDIN, *MORE, ("tool", b"make"), ("note", b"a=b"), *FIELDS, *ENV])


@given(mutations(WHOLE))
def test_a_damaged_invocation_is_a_request_or_refused(damaged: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        asked = parse_invoke(damaged)
        assert asked.invocation.argv and asked.invocation.cwd.startswith("/")
        assert 0 <= asked.umask <= 0o777 and 0 <= asked.inherited.nice < 20


def test_an_invocation_may_be_cut_nowhere_before_its_command() -> None:
    command = WHOLE.index(b"arg=")
    for length in range(command):
        with pytest.raises(RemoteProtocolError):
            parse_invoke(WHOLE[:length])


def test_what_a_command_inherits_is_told() -> None:
    told = [("limits", b"7:1024:-,3:8388608:99"), ("nice", b"3"), ("ignored", b"4097"), ("inherited", b"7")]
    assert parse_invoke(pack_fields([*FIELDS, *told])).inherited == Inheritance("7:1024:-,3:8388608:99", 3, 4097, 7)
    assert parse_invoke(pack_fields(FIELDS)).inherited == Inheritance()


@each_row(
    ("key", "text"),
    [
        *(("limits", text) for text in (b"7", b"7:1", b"7:1:2,", b"7:1:2;3:1:2", b"a:1:2", b"7:-1:2", b"7:1:2\n")),
        ("limits", b"7:1:2," * 200 + b"7:1:2"),
        *(("nice", number) for number in (b"20", b"-1", b"x")),
        *(("ignored", number) for number in (b"-1", b"2147483648")),
        *(("inherited", number) for number in (b"-1", b"2147483648")),
        *(("window", size) for size in (b"", b"1", b"1:2:3", b"1:2:3:4:5", b"-1:2:3:4", b"65536:0:0:0", b"a:b:c:d")),
        *(("shell", number) for number in (b"", b"-1", b"x", b"9223372036854775808")),
    ],
)
def test_an_absurd_inheritance_is_refused(key: str, text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_invoke(pack_fields([*FIELDS, (key, text)]))


OUT_AND_ERR = [("out", b"tty"), ("err", b"tty")]


@each_row(
    ("told", "streams"),
    [
        ([("out", b"tty")], (False, True, False, False)),
        ([("err", b"tty"), ("in", b"tty")], (True, False, True, False)),
        ([*OUT_AND_ERR, ("merge", b"1")], (False, True, True, False)),
        ([*OUT_AND_ERR, ("merge", b"0")], (False, True, True, True)),
        ([("in", b"tty")], None),
        ([], None),
    ],
)
def test_the_terminals_of_a_launcher_are_those_of_its_job(
    told: list[tuple[str, bytes]], streams: tuple[bool, ...] | None
) -> None:
    asked = parse_invoke(pack_fields([*FIELDS, *told, ("window", b"24:65535:0:1")]))
    expected = None if streams is None else TerminalWish(WindowSize(24, 65535, 0, 1), *streams)
    assert asked.terminal == expected
    assert parse_invoke(pack_fields([*FIELDS, *told])).terminal is None


def test_a_shell_is_told_with_its_job() -> None:
    assert parse_invoke(pack_fields([*FIELDS, ("shell", b"12"), ("keep", b"1")])).shell == ShellWish(12, keeps=True)
    assert parse_invoke(pack_fields([*FIELDS, ("shell", b"0")])).shell == ShellWish()
    assert parse_invoke(pack_fields(FIELDS)).shell is None
