"""Frames of every kind, in every order, from a peer that keeps to no conversation."""

from hypothesis import given, settings
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError
from termite.engine.wire.protocol.frames import Kind
from tests.unit.engine.wire.test_peer import BLOB, events, frame, pair


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 5), st.binary(max_size=30)), max_size=6))
def test_any_legal_frames_are_understood_or_refused(frames: list[tuple[Kind, int, bytes]]) -> None:
    client, _ = pair()
    client.ask(BLOB, chunks=True)
    try:
        for kind, stream, payload in frames:
            size = {Kind.CANCEL: 0, Kind.CREDIT: 4}.get(kind)
            fitted = (payload or b"\x90") if size is None else payload[:size].ljust(size, b"\0")
            events(client, frame(kind, stream, fitted))
    except RemoteProtocolError as error:
        assert str(error)
