"""One end of a connection as a state machine: bytes in, events out, and the bytes to send for what we say.

Nothing waits here. Whoever sends chunks asks `room` first and waits for `Credited`; whoever gets some says `consumed`.
A request that we gave up stays known until its reply is in, so that what was under way for it is no error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from termite.engine.errors import ConnectionLost, Reason, RemoteProtocolError, Retryable
from termite.engine.wire.protocol.frames import Frame, FrameReader, Kind, encode_frame
from termite.engine.wire.protocol.messages import Message, Reply, Request

WINDOW_BYTES = 1024 * 1024  # how far a sender of chunks may be ahead; a 1 Gbit/s link with 8 ms of delay stays full
CREDIT_STEP_BYTES = WINDOW_BYTES // 4  # credit is given in steps, not for every chunk
MAX_OPEN = 10_000  # requests of the other side at once: far more than its slots times FUSE requests can be
_LAST_STREAM = 2**32 - 1

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


@dataclass(frozen=True, slots=True)
class Requested:
    """The other side asks `message` on a new stream."""

    stream: int
    message: Message


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to our request; the stream is closed."""

    stream: int
    message: Message


@dataclass(frozen=True, slots=True)
class Chunked:
    """A chunk on the stream of a request of ours. Say `consumed` when it is dealt with."""

    stream: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Credited:
    """There is room for more chunks on a stream that we answer."""

    stream: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The other side gave its request up. Answer it all the same."""

    stream: int


Event = Requested | Replied | Chunked | Credited | Cancelled


@dataclass(slots=True)
class _Asked:
    chunks: bool
    unconsumed: int = 0
    uncredited: int = 0
    given_up: bool = False


@dataclass(slots=True)
class _Answering:
    room: int = WINDOW_BYTES


class Peer:
    """The streams of one connection. `client` is the side that connected: it opens odd streams."""

    def __init__(self, *, client: bool) -> None:
        self._next = 1 if client else 2
        self._their_parity = 0 if client else 1
        self._their_last = 0
        self._asked: dict[int, _Asked] = {}
        self._answering: dict[int, _Answering] = {}
        self._reader = FrameReader()

    def ask(self, message: Message, *, chunks: bool) -> tuple[int, bytes]:
        """Open a stream for a request; `chunks`: its answer may bring some."""
        if self._next > _LAST_STREAM:
            raise ConnectionLost("the connection has used up its stream numbers")
        stream = self._next
        frame = encode_frame(Kind.REQUEST, stream, _encoded(message))
        self._next += 2
        self._asked[stream] = _Asked(chunks)
        return stream, frame

    def answer(self, stream: int, message: Message) -> bytes:
        """Close a stream of the other side with the reply."""
        frame = encode_frame(Kind.REPLY, stream, _encoded(message))
        del self._answering[stream]
        return frame

    def room(self, stream: int) -> int:
        """How many bytes of chunks may be sent now on a stream that we answer."""
        return self._answering[stream].room

    def chunk(self, stream: int, content: bytes) -> bytes:
        """Send a chunk; there must be room for it."""
        answering = self._answering[stream]
        assert len(content) <= answering.room
        frame = encode_frame(Kind.CHUNK, stream, content)
        answering.room -= len(content)
        return frame

    def consumed(self, stream: int, size_bytes: int) -> bytes:
        """Our side has dealt with so many bytes of chunks. Returns what to send, which may be nothing."""
        asked = self._asked.get(stream)
        if asked is None:
            return b""  # the reply has come: nothing more to allow
        asked.unconsumed -= size_bytes
        asked.uncredited += size_bytes
        if asked.uncredited < CREDIT_STEP_BYTES:
            return b""
        credit, asked.uncredited = asked.uncredited, 0
        return encode_frame(Kind.CREDIT, stream, credit.to_bytes(4, "big"))

    def give_up(self, stream: int) -> bytes:
        """We no longer want the answer. Returns what to send; nothing if the answer is there already."""
        asked = self._asked.get(stream)
        if asked is None or asked.given_up:
            return b""
        asked.given_up = True
        return encode_frame(Kind.CANCEL, stream, b"")

    def receive(self, received: bytes) -> Iterator[Event]:
        """Take in bytes of the other side. RemoteProtocolError: it is not to be talked to any more."""
        for frame in self._reader.receive(received):
            event = self._take(frame)
            if event is not None:
                yield event

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._reader.buffered_bytes

    @property
    def open_streams(self) -> tuple[int, int]:
        """How many requests of ours, and of theirs, wait for their answer."""
        return len(self._asked), len(self._answering)

    def _take(self, frame: Frame) -> Event | None:
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

    def _take_request(self, frame: Frame) -> Event:
        stream = frame.stream
        if stream % 2 != self._their_parity or stream <= self._their_last:
            raise RemoteProtocolError(f"a request on stream {stream}, which it may not open")
        if len(self._answering) >= MAX_OPEN:
            raise RemoteProtocolError(f"more than {MAX_OPEN} requests at once")
        self._their_last = stream
        message = _decode(_decode_request, frame)
        self._answering[stream] = _Answering()
        return Requested(stream, message)

    def _take_reply(self, frame: Frame) -> Event | None:
        asked = self._asked.get(frame.stream)
        if asked is None:
            raise RemoteProtocolError(f"a reply on stream {frame.stream}, where nothing was asked")
        message = _decode(_decode_reply, frame)
        del self._asked[frame.stream]
        return None if asked.given_up else Replied(frame.stream, message)

    def _take_chunk(self, frame: Frame) -> Event | None:
        asked = self._asked.get(frame.stream)
        if asked is None or not asked.chunks:
            raise RemoteProtocolError(f"a chunk on stream {frame.stream}, where none was asked for")
        asked.unconsumed += len(frame.payload)
        if asked.unconsumed + asked.uncredited > WINDOW_BYTES:
            raise RemoteProtocolError(f"more chunks on stream {frame.stream} than it has credit for")
        return None if asked.given_up else Chunked(frame.stream, frame.payload)

    def _take_credit(self, frame: Frame) -> Event | None:
        answering = self._their_stream(frame)
        if answering is None:
            return None
        credit = int.from_bytes(frame.payload, "big")
        if not 0 < credit <= WINDOW_BYTES - answering.room:
            raise RemoteProtocolError(f"a credit of {credit} bytes on stream {frame.stream}")
        answering.room += credit
        return Credited(frame.stream)

    def _take_cancel(self, frame: Frame) -> Event | None:
        return None if self._their_stream(frame) is None else Cancelled(frame.stream)

    def _their_stream(self, frame: Frame) -> _Answering | None:
        """None where it is answered already: what it says then has crossed our answer."""
        stream = frame.stream
        if stream % 2 != self._their_parity or not 0 < stream <= self._their_last:
            raise RemoteProtocolError(f"a {frame.kind.name.lower()} on stream {stream}, which it has not opened")
        return self._answering.get(stream)


def _encoded(message: Message) -> bytes:
    """Encode a message. Raises Retryable for what msgpack cannot say: a file dated after 2554, as a job can make it."""
    try:
        return _encode(message)
    except (OverflowError, UnicodeEncodeError) as error:
        raise Retryable(Reason.TOO_LARGE, f"a {type(message).__name__} that cannot be encoded") from error


def _decode(decode: Callable[[bytes], Message], frame: Frame) -> Message:
    try:
        return decode(frame.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a {frame.kind.name.lower()} that is no message: {error}") from error
