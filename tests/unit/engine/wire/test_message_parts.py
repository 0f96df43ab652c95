"""Test that large messages come in small parts, and that nothing holds a process up for long."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError, Retryable
from termite.engine.model import Attr, Change, Changeset, Digest, Exit, Usage
from termite.engine.wire.protocol import message_parts, peer
from termite.engine.wire.protocol.failure_replies import Failed, Failure
from termite.engine.wire.protocol.fleet_messages import ListedWorker, Workers
from termite.engine.wire.protocol.frames import MAX_MESSAGE_BYTES, Kind, encode_frame
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    Directory,
    Done,
    GetDirectory,
    LogRecords,
    Ping,
    Ran,
    Run,
)
from termite.engine.wire.protocol.peer import Peer, Replied, Requested
from tests.unit.tables import each_row

PAUSE_S = 0.02
encode = msgspec.msgpack.encode
SHORT_RUN = Run(1, 2, (), (b"cc",), b"cc", True, (b"A=b",), b"/", 0o22, False, False)
SHORT_RAN = Ran(Exit(0), Usage(), (), {}, 1, 2)


def attr(number: int) -> Attr:
    return Attr(0o100644, number, 10**18 + number, Digest(number.to_bytes(32), number))


def some_changes(count: int) -> tuple[Change, ...]:
    return tuple(Change(b"directory/of/names/%06d" % number, attr(number)) for number in range(count))


def ask(side: Peer, message: Message) -> tuple[int, Iterator[bytes]]:
    stream, frame = side.ask(message, chunks=True)
    return stream, iter([frame]) if frame else side.parts(stream, message)


def answer(side: Peer, stream: int, message: Message) -> Iterator[bytes]:
    frame = side.answer(stream, message)
    return iter([frame]) if frame else side.parts(stream, message)


def asking() -> tuple[Peer, Peer, int]:
    """Return both sides, and the stream of a request that waits for its reply."""
    client, server = Peer(client=True), Peer(client=False)
    stream, request = client.ask(GetDirectory(b""), chunks=False)
    assert [type(event) for event in server.receive(request)] == [Requested]
    return client, server, stream


def replied(message: Message) -> Message:
    client, server, stream = asking()
    (event,) = [event for frame in answer(server, stream, message) for event in client.receive(frame)]
    assert isinstance(event, Replied)
    return event.message


def requested(message: Message) -> Message:
    client, server = Peer(client=True), Peer(client=False)
    _, outgoing = ask(client, message)
    (event,) = [event for frame in outgoing for event in server.receive(frame)]
    assert isinstance(event, Requested)
    return event.message


names = st.binary(min_size=1, max_size=40).map(lambda name: name.replace(b"\0", b"0"))
few_changes = st.lists(st.builds(Change, names, st.none() | st.just(attr(7))), max_size=9).map(tuple)
long_runs = st.builds(
    lambda sets, argv, env, contents: msgspec.structs.replace(
        SHORT_RUN,
        changesets=tuple(Changeset(number, changes) for number, changes in enumerate(sets, 3)),
        argv=tuple(argv),
        env=tuple(env),
        contents=contents,
    ),
    st.lists(few_changes, max_size=4),
    st.lists(names, max_size=9),
    st.lists(names, max_size=9),
    st.dictionaries(names, names, max_size=9),
)
long_replies = st.one_of(
    st.builds(
        lambda changes, inline, dropped: msgspec.structs.replace(
            SHORT_RAN, changes=changes, inline=inline, dropped=tuple(dropped)
        ),
        few_changes,
        st.dictionaries(st.binary(min_size=32, max_size=32), names, max_size=9),
        st.lists(names, max_size=9),
    ),
    st.builds(Directory, st.just(4), st.just(attr(1)), st.dictionaries(names, st.just(attr(2)), max_size=9)),
    st.builds(LogRecords, st.just(9), st.lists(st.text(max_size=40), max_size=9).map(tuple)),
    st.builds(
        Workers,
        st.just(1),
        st.lists(st.just(ListedWorker("w", "h:1", 1, 0, 0.5, 9, False)), max_size=9).map(tuple),
        st.just("1.0"),
    ),
)


@given(st.one_of(long_runs, long_replies), st.integers(1, 5), st.integers(250, 500))
def test_a_message_is_the_same_however_it_is_cut(message: Message, entries: int, most_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message_parts, "PART_ENTRIES", entries)
        patch.setattr(message_parts, "UNIT_CHANGES", 1)
        patch.setattr(message_parts, "MAX_MESSAGE_BYTES", most_bytes)
        patch.setattr(peer, "MAX_MESSAGE_BYTES", most_bytes)
        if isinstance(message, Run):
            assert requested(message) == message
        else:
            assert replied(message) == message


def test_no_part_is_longer_than_a_frame_may_be() -> None:
    wide = tuple(Change(b"/".join([b"n" * 200] * 80) + b"%d" % number, attr(number)) for number in range(100))
    ran = msgspec.structs.replace(SHORT_RAN, inline={n.to_bytes(32): b"c" * 65536 for n in range(16)}, changes=wide)
    run = msgspec.structs.replace(
        SHORT_RUN, changesets=(Changeset(3, wide),), argv=(b"w" * 131072,) * 20, env=(b"E=" + b"e" * 131000,) * 20
    )
    for message in (ran, run):
        payloads = [payload for payload, _ in message_parts.cut(message, encode)]
        assert max(map(len, payloads)) <= MAX_MESSAGE_BYTES
    assert replied(ran) == ran
    assert requested(run) == run


RAN_PART, RUN_PART = encode(SHORT_RAN), encode(SHORT_RUN)


@each_row(
    "frames",
    [
        [(Kind.PART, 1, RAN_PART), (Kind.PART, 3, RAN_PART)],
        [(Kind.PART, 1, RAN_PART), (Kind.REPLY, 1, encode(Done()))],
        [(Kind.PART, 1, RAN_PART), (Kind.REPLY, 1, encode(Directory(1, attr(0), {})))],
        [(Kind.PART, 1, encode(Done()))],
        [(Kind.PART, 1, RUN_PART)],
        [(Kind.PART, 2, RAN_PART)],
        [(Kind.PART, 2, encode(Ping()))],
        [(Kind.PART, 5, RAN_PART)],
        [(Kind.REQUEST, 4, encode(Ping())), (Kind.PART, 2, RUN_PART)],
        [(Kind.PART, 2, RUN_PART), (Kind.REQUEST, 2, encode(Ping()))],
        [(Kind.PART, 2, RUN_PART), (Kind.PART, 4, RUN_PART)],
        [(Kind.PART, 2, RUN_PART), (Kind.CANCEL, 2, b""), (Kind.REQUEST, 2, RUN_PART)],
        [(Kind.CANCEL, 2, b"")],
    ],
)
def test_parts_that_do_not_belong_together_end_the_connection(frames: list[tuple[Kind, int, bytes]]) -> None:
    client, _, _ = asking()
    client.ask(GetDirectory(b"b"), chunks=False)
    with pytest.raises(RemoteProtocolError):
        list(client.receive(b"".join(encode_frame(*frame) for frame in frames)))


def test_other_messages_pass_between_the_parts_of_one() -> None:
    client, server, stream = asking()
    outgoing = answer(server, stream, msgspec.structs.replace(SHORT_RAN, changes=some_changes(3000)))
    assert list(client.receive(next(outgoing))) == []
    _, ping = server.ask(Ping(), chunks=False)
    assert [type(event) for event in client.receive(ping)] == [Requested]
    assert [type(event) for frame in outgoing for event in client.receive(frame)] == [Replied]


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_a_request_that_is_given_up_between_two_parts_leaves_nothing(sent: int) -> None:
    client, server = Peer(client=True), Peer(client=False)
    run = msgspec.structs.replace(SHORT_RUN, argv=(b"word",) * 5000)
    stream, outgoing = ask(client, run)
    for _ in range(sent):
        assert list(server.receive(next(outgoing))) == []
    assert list(server.receive(client.give_up(stream))) == []
    assert client.give_up(stream) == b""
    assert client.open_streams == server.open_streams == (0, 0)
    (event,) = [event for frame in ask(client, run)[1] for event in server.receive(frame)]
    assert isinstance(event, Requested)
    assert event.message == run


def test_a_reply_that_fails_between_two_parts_is_the_failure() -> None:
    client, server, stream = asking()
    ran = msgspec.structs.replace(SHORT_RAN, changes=(*some_changes(2000), Change(b"late", Attr(0, 0, 2**64))))
    outgoing = answer(server, stream, ran)
    with pytest.raises(Retryable):
        for frame in outgoing:
            assert list(client.receive(frame)) == []
    failure = Failed(Failure.RETRYABLE, "too large")
    (frame,) = answer(server, stream, failure)
    assert list(client.receive(frame)) == [Replied(stream, failure)]
    assert client.open_streams == server.open_streams == (0, 0)
