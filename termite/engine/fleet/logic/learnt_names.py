"""Learn the names in the traces of a lease, and check the traces, which come from a worker."""

import re
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import MAX_ACCESSES, MAX_TRACED_BYTES, MAX_TRACED_NAMES, PackedTrace

MAX_NAME_BYTES = 8192  # a path and the directory at which it begins, PATH_MAX each
KINDS = 1 << 18  # all kinds are below this
FEW_BYTES = 1 << 14  # of names that are checked at once: 5,000 of the shortest take two milliseconds
# What the kernel and termite-sandbox make: no empty name, no ".", no slash at the end.
_NAME = re.compile(rb"/|(?:/(?!\.?(?:/|\Z))[^/\0]+)+", re.DOTALL)


class LearntNames:
    """The names of a lease that its traces have brought to the master so far."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._text_bytes = 0

    def __len__(self) -> int:
        """Return the number of names, for `Run.names_known`."""
        return len(self._names)

    def learn(self, trace: PackedTrace, names: Sequence[bytes] | None = None) -> None:
        """Take in the new names of a trace, and check all the rest of it.

        `names` are those of `unpack` or `unpack_at_once`. Raise RemoteProtocolError if the trace is
        none that a mirror makes.
        """
        if names is None:
            names = unpack(trace, len(self._names))
        if names:
            self._take(trace.first_name, names)
        try:
            numbers, kinds = _numbers_of(trace), _kinds_of(trace)
        except ValueError:
            raise RemoteProtocolError("a trace with a part of a number") from None
        if len(numbers) != len(kinds) or len(numbers) > MAX_ACCESSES:
            raise RemoteProtocolError("a trace with more names than kinds, or too many")
        if numbers and (max(numbers) >= len(self._names) or max(kinds) >= len(trace.pairs)):
            raise RemoteProtocolError("a trace with a number that nobody knows")
        if any(not 0 <= kind < KINDS for pair in trace.pairs for kind in pair):
            raise RemoteProtocolError("a trace with an unknown kind")

    def accesses(self, trace: PackedTrace) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Yield each path of a trace that was learnt, with its kinds: the first and all."""
        names, pairs = self._names, trace.pairs
        for number, kind in zip(_numbers_of(trace), _kinds_of(trace), strict=True):
            yield names[number], pairs[kind]

    def _take(self, first: int, names: Sequence[bytes]) -> None:
        if first > len(self._names) or first + len(names) > MAX_TRACED_NAMES:
            raise RemoteProtocolError("a trace with names that follow nothing, or with too many")
        new = names[len(self._names) - first :]
        self._names += new
        self._text_bytes += sum(map(len, new)) + len(new)
        if self._text_bytes > MAX_TRACED_BYTES:
            raise RemoteProtocolError("a trace with too many names")


def unpack_at_once(trace: PackedTrace) -> list[bytes] | None:
    """Return the checked names of a trace if they are few, as in most traces, and None otherwise.

    Raise RemoteProtocolError as `unpack` does.
    """
    if not trace.names:
        return []
    text = _unzipped(trace.names, FEW_BYTES)
    return None if text is None else _checked(text, 0)


def unpack(trace: PackedTrace, known: int = 0) -> list[bytes]:
    """Return the names of a trace, all of which are checked but those that were `known` before.

    A worker can pack a million names into a small message, so that this takes seconds.
    Raise RemoteProtocolError if they are none that a mirror sends.
    """
    if not trace.names:
        return []
    text = _unzipped(trace.names, MAX_TRACED_BYTES)
    if text is None:
        raise RemoteProtocolError("a trace with too many names")
    return _checked(text, known - trace.first_name)


def _unzipped(packed: bytes, most_bytes: int) -> bytes | None:
    """Return the text of packed names, or None if it is longer than `most_bytes`."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, most_bytes + 1)
    except zlib.error:
        raise RemoteProtocolError("a trace with names that cannot be unpacked") from None
    if len(text) > most_bytes:
        return None
    if not unpacker.eof or unpacker.unused_data or not text.endswith(b"\0"):
        raise RemoteProtocolError("a trace with cut names")
    return text


def _checked(text: bytes, known: int) -> list[bytes]:
    names = text[:-1].split(b"\0")
    for name in names[max(known, 0) :]:
        if len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
            raise RemoteProtocolError("a trace with a name that is no absolute path")
    return names


def _numbers_of(trace: PackedTrace) -> "array[int]":
    return _numbers(trace.numbers, "H" if trace.is_short else "I")


def _kinds_of(trace: PackedTrace) -> "array[int]":
    return _numbers(trace.kinds, "B" if len(trace.pairs) <= 1 << 8 else "H")


def _numbers(content: bytes, kind: str) -> "array[int]":
    numbers = array(kind, content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
