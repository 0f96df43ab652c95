"""Test that messages of the other side are refused if they contain absurd values."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Attr, Change, Changeset, Digest, Exit, MachineFacts, StdinFile, Usage
from termite.engine.wire.protocol.failure_replies import Failed, Failure
from termite.engine.wire.protocol.fleet_messages import (
    DrainWorker,
    GetWorkerReport,
    LeaseReport,
    Register,
    Registered,
    SlotUse,
    StoreReport,
    WholeFarm,
    WorkerReport,
)
from termite.engine.wire.protocol.frames import Kind, encode_frame
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    MAX_CHANGES,
    MAX_DROPPED,
    Directory,
    GetBlob,
    GetFile,
    Leased,
    OpenLease,
    Ran,
    ReadStdin,
    Run,
    SetSlots,
    StdinTaken,
)
from termite.engine.wire.protocol.peer import Peer
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

HUGE = 2**63
NAN, INFINITE = float("nan"), float("inf")
FILE = Attr(0o100644, 5, 1)
RUN = Run(7, 3, (), (b"cc", b"-c"), b"cc", True, (b"PATH=/bin",), b"/home/u", 0o22, False, True)
LEASE = OpenLease(2, "master", 4, 1000, 1000, b"home/u", 0, 1, "home", bytes(32))
RAN = Ran(Exit(0), Usage(), (), {}, 1, 2)
REGISTER = Register(2, "worker", ":1235", 4, 0, 0.5, 1)
USED = LeaseReport("anna@desk", 1.0, 4, 1, 7, 2.5, 3.0, 2.0)

ABSURD: list[tuple[Message, dict[str, list[Any]]]] = [
    (
        RUN,
        {
            "argv": [(b"cc", b"a\0b"), (b"\0",)],
            "env": [(b"A=\0",), (b"A=1", b"\0stdin=/")],
            "exe": [b"cc\0"],
            "cwd": [b"/home\0lower=/etc", b"home", b""],
            "job": [-1, HUGE],
            "number": [-1, HUGE],
            "umask": [-1, 0o1000],
            "timeout_s": [NAN, INFINITE, -INFINITE, -1.0, 1e10],
            "memory_bytes": [-1, HUGE],
            "changesets": [(Changeset(-1, ()),), (Changeset(1, (Change(b"a", Attr(-1, 0, 1)),)),)],
            "stdin_file": [
                StdinFile(0o100644, -1, 1, 4096, 0),
                StdinFile(0o100644, HUGE, 1, 4096, 0),
                StdinFile(0o100644, 1, 1, -1, 0),
                StdinFile(0o100644, 1, 1, HUGE, 0),
                StdinFile(0o100644, 1, 1, 4096, -1),
            ],
        },
    ),
    (
        LEASE,
        {
            "master": ["two\nlines", "\x1b[2J", "\x7f", "\x9b", "\u2028", "n" * 256],
            "owner": [b"", bytes(31), bytes(33)],
            "hostname": ["a\0uid=0", "a\nb"],
            "slots": [-1, 10**9],
            "uid": [-1, 2**32 - 1],
            "gid": [-1, 2**32 - 1],
            "number": [-1],
        },
    ),
    (REGISTER, {"name": ["a\nb"], "address": ["\x1b]0;"], "slots": [-1, 10**9], "load": [NAN], "leased": [-1]}),
    (
        msgspec.structs.replace(REGISTER, uses=(SlotUse("a@b", 1, 1),)),
        {"uses": [(SlotUse("a\nb", 1, 1),), (SlotUse("a@b", -1, 1),), (SlotUse("a@b", 1, 1),) * 65], "release": ["\0"]},
    ),
    (DrainWorker(2, "w", True), {"name": ["a\nb", "n" * 256], "is_drained": [1, "yes"]}),
    (GetWorkerReport(2, "w"), {"name": ["\x1b[2J"], "key": ["text"], "is_private": [2]}),
    (ReadStdin(1, 1), {"job": [-1], "size": [-1, HUGE], "offset": [-2, HUGE]}),
    (StdinTaken(1, 1), {"taken": [-1, HUGE]}),
    (SetSlots(1), {"slots": [-1, 10**9]}),
    (GetFile(b"a", 1, 1), {"size": [-1], "candidate": [Digest(b"short", 1), Digest(b"d" * 32, -1)]}),
    (GetBlob(Digest(b"d" * 32, 1)), {"digest": [Digest(b"", 1), Digest(b"d" * 33, 1), Digest(b"d" * 32, HUGE)]}),
]
ABSURD_REPLIES: list[tuple[Message, dict[str, list[Any]]]] = [
    (
        RAN,
        {
            "exit": [Exit(-1), Exit(256), Exit(0, -9), Exit(0, 65)],
            "usage": [Usage(user_s=NAN), Usage(peak_memory_bytes=-1), Usage(wall_s=INFINITE)],
            "exec_errno": [-2, 10**6],
            "stdin_offset": [-2, HUGE],
            "stdin_taken": [-1],
        },
    ),
    (
        Directory(1, FILE, {}),
        {
            "attr": [
                Attr(1 << 40, 0, 1),
                Attr(0o100644, -5, 1),
                Attr(0o100644, HUGE, 1),
                Attr(0o100644, 5, 1, nlink=-1),
            ],
            "children": [{b"a": Attr(0o200000, 0, 1)}, {b"a": Attr(0o100644, 5, 1, Digest(b"x", 5))}],
        },
    ),
    (
        WorkerReport("w", False, 1.0, USED, (USED,), (StoreReport("cas", 1, 1, 1, 1),), ("a record",)),
        {
            "up_s": [NAN, -1.0, INFINITE],
            "total": [msgspec.structs.replace(USED, cpu_s=-1.0), msgspec.structs.replace(USED, user="a\nb")],
            "leases": [(USED,) * 65, (msgspec.structs.replace(USED, running=-1),)],
            "stores": [(StoreReport("\x1b", 1, 1, 1, 1),), (StoreReport("cas", -1, 1, 1, 1),)],
            "log": [("r",) * 201, ("r" * 70_000,), (1,)],
        },
    ),
    (WholeFarm((), 1.0), {"interval_s": [NAN, -1.0], "workers": [(1,)]}),
    (Registered(1.0), {"interval_s": [0.0, -1.0, NAN, INFINITE]}),
    (
        Leased("w", 1, 1, MachineFacts()),
        {"slots": [-1, 10**9], "worker": ["\r"], "machine": [MachineFacts(cores=-1), MachineFacts("\n")]},
    ),
    (Failed(Failure.FS, ""), {"errno": [-2, 10**6]}),
]


def sent(message: Message, **fields: Any) -> bytes:
    """Encode a message without checking its fields."""
    values = msgspec.to_builtins(message, builtin_types=(bytes,))
    assert isinstance(values, list | tuple)
    names = list(type(message).__struct_fields__)
    array = list(values)
    for name, content in fields.items():
        array[1 + names.index(name)] = content  # the first one is the tag
    return msgspec.msgpack.encode(array)


def take(payload: bytes, *, is_reply: bool) -> None:
    peer = Peer(client=True)
    if is_reply:
        peer.ask(GetBlob(Digest(b"d" * 32, 1)), chunks=True)
    list(peer.receive(encode_frame(Kind.REPLY if is_reply else Kind.REQUEST, 1 if is_reply else 2, payload)))


@each_row(("message", "is_reply"), [(m, False) for m, _ in ABSURD] + [(m, True) for m, _ in ABSURD_REPLIES])
def test_what_is_said_in_earnest_is_taken(message: Message, is_reply: bool) -> None:
    take(sent(message), is_reply=is_reply)


@pytest.mark.attack
@each_row(
    ("field", "content", "is_reply", "message"),
    [
        (field, content, is_reply, message)
        for cases, is_reply in ((ABSURD, False), (ABSURD_REPLIES, True))
        for message, fields in cases
        for field, contents in fields.items()
        for content in contents
    ],
)
def test_what_is_absurd_ends_the_connection(message: Message, is_reply: bool, field: str, content: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        take(sent(message, **{field: content}), is_reply=is_reply)


@pytest.mark.attack
@given(st.lists(st.binary(max_size=4), max_size=3), st.lists(st.binary(max_size=4), max_size=3), st.binary(max_size=4))
def test_a_command_has_no_nul_anywhere(argv: list[bytes], env: list[bytes], exe: bytes) -> None:
    fields = {"argv": argv, "env": env, "exe": exe}
    if any(b"\0" in word for word in (*argv, *env, exe)):
        with pytest.raises(RemoteProtocolError):
            take(sent(RUN, **fields), is_reply=False)
    else:
        take(sent(RUN, **fields), is_reply=False)


def test_the_senders_own_mistake_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        msgspec.structs.replace(RUN, env=(b"A=\0",))


@pytest.mark.attack
@pytest.mark.parametrize(
    ("changes", "inline", "dropped"),
    [(MAX_CHANGES + 1, 0, 0), (0, MAX_CHANGES + 1, 0), (0, 0, MAX_DROPPED + 1)],
)
def test_a_result_of_too_many_parts_is_refused(changes: int, inline: int, dropped: int) -> None:
    answer = ["Ran", [0], [], [[b"a", None]] * changes, {n.to_bytes(32): b"" for n in range(inline)}, 1, 2]
    with pytest.raises(msgspec.ValidationError, match="length <="):
        msgspec.msgpack.decode(msgspec.msgpack.encode([*answer, [b"d"] * dropped]), type=Ran)


SAID = [(sent(message), False) for message, _ in ABSURD] + [(sent(message), True) for message, _ in ABSURD_REPLIES]


@pytest.mark.attack
@given(st.sampled_from(SAID).flatmap(lambda said: st.tuples(mutations(said[0]), st.just(said[1]))))
def test_a_damaged_message_is_taken_or_ends_the_connection(said: tuple[bytes, bool]) -> None:
    payload, is_reply = said
    try:
        take(payload or b"\x90", is_reply=is_reply)
    except RemoteProtocolError as error:
        assert str(error)
