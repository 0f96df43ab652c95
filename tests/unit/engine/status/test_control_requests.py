"""Requests of termite-ctl and the front ends arrive as they were made, or get a clear refusal."""

import os

import pytest

from termite.engine.errors import Reason, UserError
from termite.engine.status.control_requests import (
    AskDrain,
    AskLogs,
    AskRefresh,
    AskShutdown,
    AskStatus,
    AskWatch,
    AskWhy,
    AskWorker,
    BeginBuild,
    ControlRequest,
    EndBuild,
    Vantage,
    parse_request,
)
from termite.engine.wire.protocol import launcher_frames
from tests.unit.tables import each_row

FOREIGN = os.fsdecode(b"caf\xe9\n")  # no UTF-8: a name of a file, or the value of a variable
BUILD = {"tool": "make", "args": ["-j4", FOREIGN], "env": {"PATH": "/bin", "X": FOREIGN}, "preload": {}, "pid": 7}
REQUESTS = [
    AskStatus(),
    AskRefresh(),
    AskShutdown(),
    AskWatch(),
    AskLogs("w1", 5, 1000),
    AskWorker("w1"),
    AskDrain("w1", True),
    AskWhy(["gcc", "-c", FOREIGN], {"A": "=", "B": FOREIGN}, "make", {"cmake": "link"}),
    BeginBuild(),
    BeginBuild("ninja", ["-k", "0"], {"A": "1"}, {"LD_PRELOAD": "/x"}, 77),
    EndBuild(2),
    EndBuild(-1, 9),
]


def facts(request: ControlRequest) -> object:
    vantage = [getattr(request.vantage, name) for name in Vantage.__slots__]
    return type(request), {**vars(request), "vantage": vantage}


@each_row("asked", REQUESTS)
def test_a_request_arrives_as_it_was_made(asked: ControlRequest) -> None:
    asked.cwd, asked.vantage = f"/w/{FOREIGN}", Vantage("1:8:2", "4026:0", "8:1:2", "host 6.1 x86_64")
    assert facts(parse_request(launcher_frames.parse_object(asked.pack()))) == facts(asked)


def test_every_kind_is_among_the_requests() -> None:
    assert {type(request) for request in REQUESTS} == set(ControlRequest.__subclasses__())


def test_a_request_may_lack_what_has_a_default() -> None:
    assert facts(parse_request({"command": "build-start"})) == facts(BeginBuild())


@each_row(
    ("sent", "said"),
    [
        ({}, "unknown command None"),
        ({"command": "statsu"}, "unknown command 'statsu'"),
        ({"command": ["status"]}, "unknown command ['status']"),
        ({"command": "status", "other": 1}, "unknown field `other`"),
        ({"command": "status", "cwd": 1}, "`$.cwd`"),
        ({"command": "status", "vantage": {"root": 1}}, "`$.vantage.root`"),
        ({"command": "status", "vantage": {"roof": ""}}, "unknown field `roof`"),
        ({"command": "logs", "worker": "", "most": 1}, "required field `after`"),
        ({"command": "logs", "worker": "", "most": 1, "after": "1"}, "`$.after`"),
        ({"command": "logs", "worker": "", "most": True, "after": 1}, "`$.most`"),
        ({"command": "drain", "worker": "w1"}, "required field `drained`"),
        ({"command": "drain", "worker": "w1", "drained": 1}, "`$.drained`"),
        ({"command": "worker", "worker": None}, "`$.worker`"),
        ({"command": "why", "argv": "gcc", "env": {}, "tool": "", "notes": {}}, "`$.argv`"),
        ({"command": "why", "argv": ["gcc", 1], "env": {}, "tool": "", "notes": {}}, "`$.argv[1]`"),
        ({"command": "build-start", **BUILD, "env": {"A": 1}}, "`$.env[...]`"),
        ({"command": "build-start", **BUILD, "pid": "7"}, "`$.pid`"),
        ({"command": "build-end", "exit_code": 0.5}, "`$.exit_code`"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(sent: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_request(sent)
    assert said in caught.value.message and "\n" not in caught.value.message
    assert caught.value.reason is Reason.OTHER_PROTOCOL and "termite-ctl shutdown" in caught.value.hint
