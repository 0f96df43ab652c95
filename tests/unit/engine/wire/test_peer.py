"""Test the state machine of a connection: two of them together, and one with a hostile peer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import ConnectionLost, Reason, RemoteProtocolError
from termite.engine.model import Attr, Change, Changeset, Digest
from termite.engine.wire.protocol import peer as peers
from termite.engine.wire.protocol.failure_replies import Failed, Failure
from termite.engine.wire.protocol.frames import Kind, encode_frame
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    Directory,
    Done,
    GetBlob,
    GetDirectory,
    Ping,
    Pong,
    ReadStdin,
    Run,
    StdinBytes,
)
from termite.engine.wire.protocol.peer import (
    CREDIT_STEP_BYTES,
    WINDOW_BYTES,
    Cancelled,
    Chunked,
    Credited,
    Peer,
    PeerEvent,
    Replied,
    Requested,
)
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

BLOB = GetBlob(Digest(b"\xff" * 32, 7))
RUN = Run(
    job=7,
    number=3,
    changesets=(Changeset(3, (Change(b"a\xff/\n", Attr(0o100644, 5, 2**62)), Change(b"gone", None))),),
    argv=(b"cc", b"-c", b"\xe9.c"),
    exe=b"cc",
    search=True,
    env=(b"PATH=/bin",),
    cwd=b"/home/u",
    umask=0o22,
    stdin=False,
    merge=True,
)


def pair() -> tuple[Peer, Peer]:
    return Peer(client=True), Peer(client=False)


def events(peer: Peer, received: bytes) -> list[PeerEvent]:
    return list(peer.receive(received))


def frame(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    return encode_frame(kind, stream, payload)


def test_a_request_is_answered_on_its_stream() -> None:
    client, server = pair()
    stream, request = client.ask(RUN, chunks=True)
    assert events(server, request) == [Requested(stream, RUN)]
    assert events(client, server.answer(stream, Done())) == [Replied(stream, Done())]
    assert client.open_streams == server.open_streams == (0, 0)


def test_both_sides_ask_at_once_without_mixing_streams() -> None:
    client, server = pair()
    (ours, one), (theirs, two) = client.ask(Ping(), chunks=False), server.ask(GetDirectory(b"\xff"), chunks=False)
    assert ours % 2 == 1
    assert theirs % 2 == 0
    assert events(server, one) == [Requested(ours, Ping())]
    assert events(client, two) == [Requested(theirs, GetDirectory(b"\xff"))]
    directory = Directory(4, Attr(0o40755, 0, 1), {b"\xff": Attr(0o120777, 1, 2, target=b"\xfe")})
    assert events(server, client.answer(theirs, directory)) == [Replied(theirs, directory)]
    assert events(client, server.answer(ours, Pong(9))) == [Replied(ours, Pong(9))]


def conversation() -> tuple[bytes, list[PeerEvent]]:
    client, _ = pair()
    said = b"".join([client.ask(RUN, chunks=True)[1], client.ask(BLOB, chunks=True)[1], client.give_up(1)])
    return said, [Requested(1, RUN), Requested(3, BLOB), Cancelled(1)]


def test_a_conversation_may_be_cut_at_every_offset() -> None:
    said, expected = conversation()
    for cut in range(len(said) + 1):
        server = Peer(client=False)
        assert events(server, said[:cut]) + events(server, said[cut:]) == expected


def test_a_conversation_may_come_byte_by_byte() -> None:
    said, expected = conversation()
    server = Peer(client=False)
    assert [event for byte in said for event in server.receive(bytes([byte]))] == expected


def test_chunks_stop_at_the_window_until_credit_comes() -> None:
    client, server = pair()
    stream, request = client.ask(BLOB, chunks=True)
    events(server, request)
    chunk = b"x" * (WINDOW_BYTES // 4)
    for _ in range(4):
        assert events(client, server.chunk(stream, chunk)) == [Chunked(stream, chunk)]
    assert server.room(stream) == 0
    assert client.consumed(stream, CREDIT_STEP_BYTES - 1) == b""
    assert events(server, client.consumed(stream, 1)) == [Credited(stream)]
    assert server.room(stream) == CREDIT_STEP_BYTES


def test_credit_that_crosses_the_reply_is_harmless() -> None:
    client, server = pair()
    stream, request = client.ask(BLOB, chunks=True)
    events(server, request)
    events(client, server.chunk(stream, b"x" * CREDIT_STEP_BYTES))
    credit = client.consumed(stream, CREDIT_STEP_BYTES)
    events(client, server.answer(stream, Done()))
    assert events(server, credit) == []
    assert client.consumed(stream, 5) == b""


def test_what_comes_for_a_request_that_was_given_up_is_ignored() -> None:
    client, server = pair()
    stream, request = client.ask(BLOB, chunks=True)
    events(server, request)
    under_way = server.chunk(stream, b"late") + server.answer(stream, Done())
    assert events(server, client.give_up(stream)) == []  # it had answered already
    assert client.give_up(stream) == b""
    assert events(client, under_way) == []
    assert client.open_streams == (0, 0)


def test_a_cancelled_request_is_told_once_and_still_answered() -> None:
    client, server = pair()
    stream, request = client.ask(BLOB, chunks=True)
    events(server, request)
    assert events(server, client.give_up(stream)) == [Cancelled(stream)]
    assert events(client, server.answer(stream, Failed(Failure.RETRYABLE, "", reason=Reason.CANCELLED))) == []
    assert server.open_streams == (0, 0)


REQUEST = encode_frame(Kind.REQUEST, 1, b"\x91\xa4Ping")


@pytest.mark.attack
@each_row(
    "lie",
    [
        frame(Kind.REQUEST, 2, b"\x91\xa4Ping"),  # not a stream of its side
        frame(Kind.REQUEST, 0, b"\x91\xa4Ping"),
        REQUEST + REQUEST,  # a stream used twice
        frame(Kind.REQUEST, 3, b"\x91\xa4Ping") + REQUEST,  # backwards
        frame(Kind.REQUEST, 1, b"\x91\xa4Pong\x01"),  # a reply where a request belongs
        frame(Kind.REQUEST, 1, b"\x91\xa7Unknown"),
        frame(Kind.REQUEST, 1, b"\x92\xaaReadStdin"),
        frame(Kind.REQUEST, 1, b"\x93\xa9ReadStdin\xa1x\x01"),  # a text where a number belongs
        frame(Kind.REQUEST, 1, b"\x91\xa4Ping\x00"),  # more than the message
        frame(Kind.REQUEST, 1, b"\xff" * 9),
        frame(Kind.REPLY, 1, b"\x91\xa4Done"),  # to nothing
        frame(Kind.REPLY, 2, b"\x91\xa4Done"),
        frame(Kind.CHUNK, 2, b"x"),
        frame(Kind.CREDIT, 1, b"\0\0\0\1"),  # on a stream that was never opened
        frame(Kind.CANCEL, 1),
        frame(Kind.CANCEL, 0),
        REQUEST + frame(Kind.CANCEL, 2),
        REQUEST + frame(Kind.CREDIT, 1, b"\0\0\0\1"),  # for nothing that was sent
        REQUEST + frame(Kind.CREDIT, 1, b"\0\0\0\0"),
        REQUEST + frame(Kind.CREDIT, 1, b"\xff\xff\xff\xff"),
    ],
)
def test_a_lie_ends_the_connection(lie: bytes) -> None:
    server = Peer(client=False)
    with pytest.raises(RemoteProtocolError):
        events(server, lie)


@pytest.mark.attack
def test_a_reply_that_is_no_reply_ends_the_connection() -> None:
    client, _ = pair()
    stream, _ = client.ask(Ping(), chunks=False)
    with pytest.raises(RemoteProtocolError):
        events(client, frame(Kind.REPLY, stream, b"\x91\xa4Ping"))


@pytest.mark.attack
def test_chunks_that_nobody_wants_end_the_connection() -> None:
    client, _ = pair()
    stream, _ = client.ask(Ping(), chunks=False)
    with pytest.raises(RemoteProtocolError):
        events(client, frame(Kind.CHUNK, stream, b"x"))


@pytest.mark.attack
def test_chunks_without_credit_end_the_connection() -> None:
    client, _ = pair()
    stream, _ = client.ask(BLOB, chunks=True)
    quarter = frame(Kind.CHUNK, stream, b"x" * (WINDOW_BYTES // 4))
    assert len(events(client, quarter * 4)) == 4
    with pytest.raises(RemoteProtocolError):
        events(client, frame(Kind.CHUNK, stream, b"x"))


@pytest.mark.attack
def test_a_flood_of_requests_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_OPEN", 3)
    client, server = pair()
    flood = b"".join(client.ask(Ping(), chunks=False)[1] for _ in range(4))
    with pytest.raises(RemoteProtocolError):
        events(server, flood)


def test_a_connection_that_has_used_up_its_streams_is_lost() -> None:
    client, _ = pair()
    client._next = 2**32 - 1
    assert client.ask(Ping(), chunks=False)[0] == 2**32 - 1
    with pytest.raises(ConnectionLost):
        client.ask(Ping(), chunks=False)


MESSAGES = st.one_of(
    st.builds(Ping),
    st.builds(GetDirectory, st.binary()),
    st.builds(ReadStdin, st.integers(0, 2**40), st.integers(0, 2**40)),
)


@given(st.lists(MESSAGES, max_size=8), st.data())
def test_any_requests_arrive_in_order_however_they_are_cut(asked: list[Message], data: st.DataObject) -> None:
    client, server = pair()
    said = b"".join(client.ask(message, chunks=False)[1] for message in asked)
    arrived: list[Message] = []
    while said:
        cut = data.draw(st.integers(1, len(said)))
        arrived += [event.message for event in server.receive(said[:cut]) if isinstance(event, Requested)]
        said = said[cut:]
    assert arrived == asked


@given(st.binary())
def test_any_payload_is_a_message_or_refused(payload: bytes) -> None:
    client, _ = pair()
    stream, _ = client.ask(ReadStdin(1, 2), chunks=False)
    try:
        (event,) = events(client, frame(Kind.REPLY, stream, payload or b"\x90"))
    except RemoteProtocolError:
        return
    assert isinstance(event, Replied)
    assert not isinstance(event.message, StdinBytes) or isinstance(event.message.content, bytes)


CONVERSATION = (
    REQUEST
    + frame(Kind.REQUEST, 3, b"\x93\xa9ReadStdin\x01\x02")
    + frame(Kind.CREDIT, 3, b"\0\0\0\1")
    + frame(Kind.CANCEL, 1)
    + frame(Kind.REQUEST, 5, b"\x91\xa4Ping")
)


@pytest.mark.attack
@given(mutations(CONVERSATION))
def test_a_damaged_conversation_is_understood_or_refused_alike_however_it_is_cut(damaged: bytes) -> None:
    outcomes = []
    for pieces in ([damaged], [damaged[at : at + 1] for at in range(len(damaged))]):
        server, heard = Peer(client=False), []
        try:
            for piece in pieces:
                heard += list(server.receive(piece))
            outcomes.append((heard, server.open_streams))
        except RemoteProtocolError:
            outcomes.append(([], (-1, -1)))
    assert str(outcomes[0]) == str(outcomes[1])
