"""Cut large messages into parts, and join parts to a message again.

While one payload is decoded, the whole process does nothing else: a decoder is one call, which no
thread can interrupt. Therefore a payload is small, and what is large comes in pieces. A part is a
message of the same kind that has some entries of one of its long fields. The last part has none,
and all of its other fields count. One decoder checks parts and whole messages alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from termite.engine.errors import Reason, RemoteProtocolError, Retryable
from termite.engine.model import Changeset
from termite.engine.paths import MOST_FRESH
from termite.engine.wire.protocol.failure_replies import Failed
from termite.engine.wire.protocol.fleet_messages import MOST_LOG_RECORDS, WholeFarm, WorkerReport, Workers
from termite.engine.wire.protocol.frames import MAX_MESSAGE_BYTES
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import MAX_CHANGES, MAX_DROPPED, Directory, LogRecords, Ran, Run

# Of a message in all its parts: a directory of 150,000 names fits, and memory has room for several.
MAX_JOINED_BYTES = 16 * 1024 * 1024
PART_ENTRIES = 1024  # about 100 KiB of changes, which are encoded in a fifth of a millisecond
PART_BYTES = 64  # what a part costs beside its payload, so that empty ones end as well
UNIT_CHANGES = 4  # of one changeset: with the longest paths that exist they fit into a payload

Encode = Callable[[Message], bytes]

# The long fields of each kind of message, with the number of entries that they may have in all. A
# dictionary of 500,000 entries grows in 12 ms, which is the longest pause of all.
_MOST = 500_000
_LONG: Mapping[type[Message], Mapping[str, int]] = {
    Run: {"changesets": _MOST, "argv": _MOST, "env": _MOST, "contents": _MOST, "fresh": MOST_FRESH},
    Ran: {"changes": MAX_CHANGES, "inline": MAX_CHANGES, "dropped": MAX_DROPPED},
    Directory: {"children": _MOST},
    LogRecords: {"records": _MOST},
    Workers: {"workers": _MOST},
    WholeFarm: {"workers": _MOST},
    WorkerReport: {"log": MOST_LOG_RECORDS},
}


def can_be_cut(message: Message) -> bool:
    """Return whether the message is of a kind that may come in parts."""
    return type(message) in _LONG


def has_many_entries(message: Message) -> bool:
    """Return whether the message must be cut, because to encode it at once would take long."""
    for name in _LONG.get(type(message), ()):
        if len(getattr(message, name)) > PART_ENTRIES:
            return True
    return isinstance(message, Run) and sum(len(some.changes) for some in message.changesets) > PART_ENTRIES


def cut(message: Message, encode: Encode) -> Iterator[tuple[bytes, bool]]:
    """Yield the payloads of the message's parts, and whether each is the last one.

    Raise Retryable if an entry is too large, or all together are.
    """
    long = _LONG[type(message)]
    for name, most in long.items():
        if len(getattr(message, name)) > most:
            raise Retryable(Reason.TOO_LARGE, f"a {type(message).__name__} with more than {most} {name}")
    rest = msgspec.structs.replace(message, **{name: type(getattr(message, name))() for name in long})
    left_bytes = MAX_JOINED_BYTES
    for name in long:
        for payload in _cut_field(rest, name, getattr(message, name), encode):
            left_bytes -= len(payload) + PART_BYTES
            if left_bytes < 0:
                raise Retryable(Reason.TOO_LARGE, f"a {type(message).__name__} of more than {MAX_JOINED_BYTES} bytes")
            yield payload, False
    yield _fitting(rest, encode(rest)), True


def _cut_field(rest: Message, name: str, entries: Any, encode: Encode) -> Iterator[bytes]:
    make: Callable[[Sequence[Any]], Any] = tuple
    size, units = PART_ENTRIES, iter(entries)
    if isinstance(entries, dict):
        make, units = dict, iter(entries.items())
    elif name == "changesets":
        size, units = PART_ENTRIES // UNIT_CHANGES, _units_of(entries)
    while some := list(islice(units, size)):
        yield from _cut_entries(rest, name, some, make, encode)


def _cut_entries(
    rest: Message, name: str, entries: Sequence[Any], make: Callable[[Sequence[Any]], Any], encode: Encode
) -> Iterator[bytes]:
    """Yield as many payloads as the entries need."""
    part = msgspec.structs.replace(rest, **{name: make(entries)})
    payload = encode(part)
    if len(payload) <= MAX_MESSAGE_BYTES or len(entries) == 1:
        yield _fitting(part, payload)
        return
    middle = len(entries) // 2
    yield from _cut_entries(rest, name, entries[:middle], make, encode)
    yield from _cut_entries(rest, name, entries[middle:], make, encode)


def _fitting(part: Message, payload: bytes) -> bytes:
    if len(payload) > MAX_MESSAGE_BYTES:
        raise Retryable(Reason.TOO_LARGE, f"a {type(part).__name__} with an entry of {len(payload)} bytes")
    return payload


def _units_of(changesets: Sequence[Changeset]) -> Iterator[Changeset]:
    for some in changesets:
        for first in range(0, max(len(some.changes), 1), UNIT_CHANGES):
            yield Changeset(some.number, some.changes[first : first + UNIT_CHANGES])


class JoinedMessage:
    """The entries of a message of which not all parts have come. `stream` is that of its frames."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self._left_bytes = MAX_JOINED_BYTES
        self._kind: type[Message] | None = None
        self._entries: dict[str, Any] = {}

    def add(self, part: Message, size_bytes: int) -> None:
        """Take in a part, whose payload has `size_bytes`.

        Raise RemoteProtocolError if it does not belong to the others, or if the limits of a message
        are exceeded.
        """
        kind = type(part)
        if kind not in _LONG or kind is not (self._kind or kind):
            raise RemoteProtocolError(f"a part that is a {kind.__name__}")
        self._kind = kind
        self._left_bytes -= size_bytes + PART_BYTES
        if self._left_bytes < 0:
            raise RemoteProtocolError(f"a {kind.__name__} of more than {MAX_JOINED_BYTES} bytes")
        for name, most in _LONG[kind].items():
            if entries := getattr(part, name):
                self._extend(name, entries)
                if len(self._entries[name]) > most:
                    raise RemoteProtocolError(f"a {kind.__name__} with more than {most} {name}")

    def _extend(self, name: str, entries: Any) -> None:
        if isinstance(entries, dict):
            self._entries.setdefault(name, {}).update(entries)
        elif name != "changesets":
            self._entries.setdefault(name, []).extend(entries)
        else:
            joined = self._entries.setdefault(name, [])
            for some in entries:
                if joined and joined[-1][0] == some.number:
                    joined[-1][1].extend(some.changes)
                else:
                    joined.append((some.number, list(some.changes)))

    def finish(self, last: Message, size_bytes: int) -> Message:
        """Return the whole message. Raise as `add` does.

        If the answering side failed before its last part, `last` is the failure alone.
        """
        if isinstance(last, Failed):
            return last
        self.add(last, size_bytes)
        # Nobody else has `last`, and its checks have passed for each part. Twice would take long.
        for name, entries in self._entries.items():
            whole = entries
            if name == "changesets":
                whole = tuple(Changeset(number, tuple(changes)) for number, changes in entries)
            elif isinstance(entries, list):
                whole = tuple(entries)
            msgspec.structs.force_setattr(last, name, whole)
        return last
