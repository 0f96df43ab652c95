"""Test messages at the limits of size: they pass in short steps, and larger ones are refused."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from termite.engine.errors import Reason, RemoteProtocolError, Retryable
from termite.engine.model import Attr, Change, Changeset
from termite.engine.wire.protocol import message_parts
from termite.engine.wire.protocol.frames import MAX_MESSAGE_BYTES, Kind, encode_frame
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import MAX_CHANGES, MAX_DROPPED, Directory, Run
from termite.engine.wire.protocol.peer import PeerEvent, Replied, Requested
from termite.engine.wire.tls import READ_BYTES
from tests.unit.engine.wire.test_message_parts import (
    SHORT_RAN,
    SHORT_RUN,
    answer,
    ask,
    asking,
    attr,
    encode,
    some_changes,
)

PAUSE_S = 0.02
LARGEST: list[Message] = [
    msgspec.structs.replace(SHORT_RAN, changes=some_changes(150_000)),
    msgspec.structs.replace(SHORT_RAN, changes=tuple(Change(b"%x" % n, None) for n in range(MAX_CHANGES))),
    Directory(1, attr(0), {b"some-name-%06d" % number: attr(number) for number in range(130_000)}),
    Directory(1, attr(0), {b"%x" % number: Attr(0o100644, 1, 1) for number in range(500_000)}),
    msgspec.structs.replace(SHORT_RUN, changesets=tuple(Changeset(n, some_changes(15)) for n in range(3, 10_000))),
    msgspec.structs.replace(SHORT_RUN, argv=(b"",) * 500_000, env=(b"A=%d" % 1,) * 500_000),
]


def steps(message: Message) -> Iterator[float]:
    """Send the message, and yield the seconds of processor time of each step of either side."""
    client, server, stream = asking()
    if isinstance(message, Run):
        outgoing, receiver = ask(client, message)[1], server
    else:
        outgoing, receiver = answer(server, stream, message), client
    events: list[PeerEvent] = []
    while True:
        begun_s = time.thread_time()
        frame = next(outgoing, b"")
        yield time.thread_time() - begun_s
        for first in range(0, len(frame), READ_BYTES):
            begun_s = time.thread_time()
            events.extend(receiver.receive(frame[first : first + READ_BYTES]))
            yield time.thread_time() - begun_s
        if not frame:
            break
    (event,) = events
    assert isinstance(event, Replied | Requested)
    assert event.message == message


@pytest.mark.parametrize("message", LARGEST, ids=lambda message: type(message).__name__)
def test_the_largest_messages_are_sent_and_received_in_short_steps(message: Message) -> None:
    # Each step counts with the least time of three runs, because the machine may be busy.
    runs = [list(steps(message)) for _ in range(3)]
    assert max(map(min, *runs)) < PAUSE_S


def test_what_has_too_many_bytes_or_entries_is_the_schedulers_problem() -> None:
    many = msgspec.structs.replace(SHORT_RUN, argv=(b"a" * 100_000,) * 200)
    wide = msgspec.structs.replace(SHORT_RUN, argv=(b"a" * (MAX_MESSAGE_BYTES + 1),))
    full = Directory(1, attr(0), dict.fromkeys((b"%x" % number for number in range(500_001)), attr(0)))
    for message in (many, wide, full):
        with pytest.raises(Retryable) as caught:
            list(message_parts.cut(message, encode))
        assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("field", "content", "times"),
    [
        ("changes", tuple(Change(b"%x" % number, None) for number in range(10_000)), MAX_CHANGES // 10_000 + 1),
        ("dropped", (b"d",) * (MAX_DROPPED // 2), 3),
        ("inline", {bytes(32): b"c" * 250_000}, 68),
        ("inline", {}, 200_000),
    ],
)
def test_the_limits_hold_for_all_parts_together(field: str, content: object, times: int) -> None:
    client, _, stream = asking()
    part = encode_frame(Kind.PART, stream, encode(msgspec.structs.replace(SHORT_RAN, **{field: content})))
    with pytest.raises(RemoteProtocolError, match="more than"):
        for _ in range(times):
            list(client.receive(part))
