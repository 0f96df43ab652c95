"""Learn the names in the traces of a lease, and check the traces, which come from a worker."""

import re
import sys
import zlib
from array import array
from collections.abc import Iterator

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import MAX_ACCESSES, MAX_TRACED_BYTES, MAX_TRACED_NAMES, PackedTrace

MAX_NAME_BYTES = 8192  # a path and the directory at which it begins, PATH_MAX each
KINDS = 1 << 18  # all kinds are below this
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

    def learn(self, trace: PackedTrace) -> None:
        """Take in the new names of a trace, and check all of it.

        Raise RemoteProtocolError if the trace is none that a mirror makes.
        """
        if trace.names:
            self._take(trace.first_name, self._unpacked(trace.names))
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

    def _unpacked(self, packed: bytes) -> list[bytes]:
        unpacker = zlib.decompressobj()
        try:
            text = unpacker.decompress(packed, MAX_TRACED_BYTES - self._text_bytes + 1)
        except zlib.error:
            raise RemoteProtocolError("a trace with names that cannot be unpacked") from None
        if not unpacker.eof or unpacker.unused_data or not text.endswith(b"\0"):
            raise RemoteProtocolError("a trace with cut names, or with too many")
        return text[:-1].split(b"\0")

    def _take(self, first: int, names: list[bytes]) -> None:
        if first > len(self._names) or first + len(names) > MAX_TRACED_NAMES:
            raise RemoteProtocolError("a trace with names that follow nothing, or with too many")
        new = names[len(self._names) - first :]
        for name in new:
            if len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
                raise RemoteProtocolError("a trace with a name that is no absolute path")
        self._names += new
        self._text_bytes += sum(map(len, new)) + len(new)
        if self._text_bytes > MAX_TRACED_BYTES:
            raise RemoteProtocolError("a trace with too many names")


def _numbers_of(trace: PackedTrace) -> "array[int]":
    return _numbers(trace.numbers, "H" if trace.is_short else "I")


def _kinds_of(trace: PackedTrace) -> "array[int]":
    return _numbers(trace.kinds, "B" if len(trace.pairs) <= 1 << 8 else "H")


def _numbers(content: bytes, kind: str) -> "array[int]":
    numbers = array(kind, content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
