"""Run the protocol of one side of a connection as a state machine.

Received bytes go in and events come out. Methods that speak return the bytes to send. Nothing waits
in this module. Before it sends a chunk, the caller asks `room` and waits for `Credited`; after it
has received a chunk, it calls `consumed`. A request that was given up is remembered until its reply
arrives, because chunks and a reply may already be under way.

A large message comes in parts (message_parts.py). Other messages may come between two of them, but
no parts of another message. Each side thus keeps one such message at most.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from termite.engine.errors import ConnectionLost, Reason, RemoteProtocolError, Retryable
from termite.engine.wire.protocol.frames import MAX_MESSAGE_BYTES, Frame, FrameReader, Kind, encode_frame
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.message_parts import JoinedMessage, can_be_cut, cut, has_many_entries
from termite.engine.wire.protocol.messages import Reply, Request

# The number of bytes that a sender of chunks may be ahead: enough for 1 Gbit/s with 8 ms of delay.
WINDOW_BYTES = 1024 * 1024
CREDIT_STEP_BYTES = WINDOW_BYTES // 4  # one credit allows so many bytes, not one chunk
MAX_OPEN = 10_000  # requests of the other side; its slots and FUSE requests need far fewer
_LAST_STREAM = 2**32 - 1

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


class Requested(msgspec.Struct, frozen=True):
    """An event: the other side sent the request `message` on a new stream."""

    stream: int
    message: Message


class Replied(msgspec.Struct, frozen=True):
    """An event: the reply to a request of ours came, and its stream is closed."""

    stream: int
    message: Message


class Chunked(msgspec.Struct, frozen=True):
    """An event: a chunk came for a request of ours. Call `consumed` when it was processed."""

    stream: int
    content: bytes


class Credited(msgspec.Struct, frozen=True):
    """An event: there is room for more chunks on a stream of the other side."""

    stream: int


class Cancelled(msgspec.Struct, frozen=True):
    """An event: the other side gave its request up. The request must still be answered."""

    stream: int


PeerEvent = Requested | Replied | Chunked | Credited | Cancelled


@dataclass(slots=True)
class _Asked:
    chunks: bool
    unconsumed: int = 0
    uncredited: int = 0
    given_up: bool = False
    parts: int = 0  # that are sent of a request
    is_whole: bool = True  # False while there are more


@dataclass(slots=True)
class _Answering:
    room: int = WINDOW_BYTES


class Peer:
    """The streams of one connection. The client, the side that connected, opens odd ones.

    `pieces` counts the chunks and the parts of messages that have come.
    """

    def __init__(self, *, client: bool) -> None:
        self.pieces = 0
        self._next = 1 if client else 2
        self._their_parity = 0 if client else 1
        self._their_last = 0
        self._asked: dict[int, _Asked] = {}
        self._answering: dict[int, _Answering] = {}
        self._joined: JoinedMessage | None = None  # of which parts have come
        self._reader = FrameReader()

    def ask(self, message: Message, *, chunks: bool) -> tuple[int, bytes]:
        """Open a stream for a request, and return its number and the bytes to send.

        `chunks`: chunks may come before the reply. No bytes: send the `parts` of the message. Raise
        ConnectionLost if no stream is left, and Retryable if the message is too large.
        """
        if self._next > _LAST_STREAM:
            raise ConnectionLost("the connection has used up its stream numbers")
        stream = self._next
        payload = _encoded_whole(message)
        frame = encode_frame(Kind.REQUEST, stream, payload) if payload else b""
        self._next += 2
        self._asked[stream] = _Asked(chunks, is_whole=bool(frame))
        return stream, frame

    def answer(self, stream: int, message: Message) -> bytes:
        """Close a stream of the other side with a reply, and return the bytes to send.

        No bytes: send the `parts` of the message. Raise Retryable if the reply is too large. The
        stream then stays open for another one.
        """
        payload = _encoded_whole(message)
        if not payload:
            return b""
        frame = encode_frame(Kind.REPLY, stream, payload)
        del self._answering[stream]
        return frame

    def parts(self, stream: int, message: Message) -> Iterator[bytes]:
        """Yield the bytes of each part of a message, which `ask` or `answer` did not send whole.

        Between two parts, other messages may be sent, but no other parts. Raise Retryable if the
        message is too large. After that, `give_up` a request, and `answer` otherwise.
        """
        asked = self._asked.get(stream)
        kind = Kind.REQUEST if asked else Kind.REPLY
        for payload, is_last in cut(message, _encoded):
            if asked:
                asked.parts += 1
                asked.is_whole = is_last
            elif is_last:
                del self._answering[stream]
            yield encode_frame(kind if is_last else Kind.PART, stream, payload)

    def room(self, stream: int) -> int:
        """Return how many bytes of chunks may be sent now on a stream of the other side."""
        return self._answering[stream].room

    def chunk(self, stream: int, content: bytes) -> bytes:
        """Return the bytes that send a chunk, for which there must be room."""
        answering = self._answering[stream]
        assert len(content) <= answering.room
        frame = encode_frame(Kind.CHUNK, stream, content)
        answering.room -= len(content)
        return frame

    def consumed(self, stream: int, size_bytes: int) -> bytes:
        """Note that `size_bytes` of chunks were processed, and return the bytes to send, or b""."""
        asked = self._asked.get(stream)
        if asked is None:
            return b""  # the reply has come, so no chunks will follow
        asked.unconsumed -= size_bytes
        asked.uncredited += size_bytes
        if asked.uncredited < CREDIT_STEP_BYTES:
            return b""
        credit, asked.uncredited = asked.uncredited, 0
        return encode_frame(Kind.CREDIT, stream, credit.to_bytes(4, "big"))

    def give_up(self, stream: int) -> bytes:
        """Give up a request of ours, and return the bytes to send, or b"" if it is answered."""
        asked = self._asked.get(stream)
        if asked is None or asked.given_up:
            return b""
        if not asked.is_whole:  # the other side knows nothing of it, or drops what it has: no reply comes
            del self._asked[stream]
            return encode_frame(Kind.CANCEL, stream, b"") if asked.parts else b""
        asked.given_up = True
        return encode_frame(Kind.CANCEL, stream, b"")

    def receive(self, received: bytes) -> Iterator[PeerEvent]:
        """Take in bytes of the other side, and yield the events that they cause.

        Raise RemoteProtocolError, upon which the connection is dropped, if they break the protocol.
        """
        for frame in self._reader.receive(received):
            event = self._take(frame)
            if event is not None:
                yield event

    @property
    def buffered_bytes(self) -> int:
        """The number of bytes of a frame that is not complete yet."""
        return self._reader.buffered_bytes

    @property
    def open_streams(self) -> tuple[int, int]:
        """The numbers of requests of ours, and of the other side, that wait for their answers."""
        return len(self._asked), len(self._answering)

    def _take(self, frame: Frame) -> PeerEvent | None:
        match frame.kind:
            case Kind.REQUEST:
                return self._take_request(frame)
            case Kind.REPLY:
                return self._take_reply(frame)
            case Kind.CHUNK:
                return self._take_chunk(frame)
            case Kind.CREDIT:
                return self._take_credit(frame)
            case Kind.CANCEL:
                return self._take_cancel(frame)
            case Kind.PART:
                self._take_part(frame)
                return None

    def _take_request(self, frame: Frame) -> PeerEvent:
        stream = frame.stream
        if self._joined is None or self._joined.stream != stream:
            self._open(stream)
        message = self._whole(_decode(_decode_request, frame), frame)
        self._answering[stream] = _Answering()
        return Requested(stream, message)

    def _open(self, stream: int) -> None:
        if stream % 2 != self._their_parity or stream <= self._their_last:
            raise RemoteProtocolError(f"a request on stream {stream}, which it may not open")
        if len(self._answering) >= MAX_OPEN:
            raise RemoteProtocolError(f"more than {MAX_OPEN} requests at once")
        self._their_last = stream

    def _take_reply(self, frame: Frame) -> PeerEvent | None:
        asked = self._asked_on(frame)
        message = self._whole(_decode(_decode_reply, frame), frame)
        del self._asked[frame.stream]
        return None if asked.given_up else Replied(frame.stream, message)

    def _asked_on(self, frame: Frame) -> _Asked:
        asked = self._asked.get(frame.stream)
        if asked is None or not asked.is_whole:
            raise RemoteProtocolError(f"a reply on stream {frame.stream}, where nothing was asked")
        return asked

    def _take_part(self, frame: Frame) -> None:
        stream = frame.stream
        self.pieces += 1
        is_request = stream % 2 == self._their_parity
        if self._joined is None:
            if is_request:
                self._open(stream)
            self._joined = JoinedMessage(stream)
        elif self._joined.stream != stream:
            raise RemoteProtocolError("parts of two messages at once")
        if not is_request:
            self._asked_on(frame)
        self._joined.add(_decode(_decode_request if is_request else _decode_reply, frame), len(frame.payload))

    def _whole(self, message: Message, frame: Frame) -> Message:
        """Return the message whose last part, or whole, this is."""
        joined = self._joined
        if joined is None or joined.stream != frame.stream:
            return message
        self._joined = None
        return joined.finish(message, len(frame.payload))

    def _take_chunk(self, frame: Frame) -> PeerEvent | None:
        self.pieces += 1
        asked = self._asked.get(frame.stream)
        if asked is None or not asked.chunks:
            raise RemoteProtocolError(f"a chunk on stream {frame.stream}, where none was asked for")
        asked.unconsumed += len(frame.payload)
        if asked.unconsumed + asked.uncredited > WINDOW_BYTES:
            raise RemoteProtocolError(f"more chunks on stream {frame.stream} than it has credit for")
        return None if asked.given_up else Chunked(frame.stream, frame.payload)

    def _take_credit(self, frame: Frame) -> PeerEvent | None:
        answering = self._their_stream(frame)
        if answering is None:
            return None
        credit = int.from_bytes(frame.payload, "big")
        if not 0 < credit <= WINDOW_BYTES - answering.room:
            raise RemoteProtocolError(f"a credit of {credit} bytes on stream {frame.stream}")
        answering.room += credit
        return Credited(frame.stream)

    def _take_cancel(self, frame: Frame) -> PeerEvent | None:
        if self._joined is not None and self._joined.stream == frame.stream and self._is_theirs(frame.stream):
            self._joined = None  # a request that was given up before its last part
            return None
        return None if self._their_stream(frame) is None else Cancelled(frame.stream)

    def _their_stream(self, frame: Frame) -> _Answering | None:
        """Return the state of the stream, or None if it is answered already.

        In the latter case the frame and our answer have crossed, which is legal.
        """
        stream = frame.stream
        if not self._is_theirs(stream):
            raise RemoteProtocolError(f"a {frame.kind.name.lower()} on stream {stream}, which it has not opened")
        return self._answering.get(stream)

    def _is_theirs(self, stream: int) -> bool:
        return stream % 2 == self._their_parity and 0 < stream <= self._their_last


def _encoded_whole(message: Message) -> bytes:
    """Encode a message, or return b"" if it must be sent in parts."""
    if has_many_entries(message):
        return b""
    payload = _encoded(message)
    return b"" if len(payload) > MAX_MESSAGE_BYTES and can_be_cut(message) else payload


def _encoded(message: Message) -> bytes:
    """Encode a message. Raise Retryable if a number is too large for msgpack.

    A job causes that if it makes a file with a date after 2554.
    """
    try:
        return _encode(message)
    except (OverflowError, UnicodeEncodeError) as error:
        raise Retryable(Reason.TOO_LARGE, f"a {type(message).__name__} that cannot be encoded") from error


def _decode(decode: Callable[[bytes], Message], frame: Frame) -> Message:
    try:
        return decode(frame.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a {frame.kind.name.lower()} that is no message: {error}") from error
