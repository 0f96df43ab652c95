"""Pack the trace of a job for the wire: the paths that its system calls named, and how.

The jobs of a lease name the same paths again and again. Therefore the mirror numbers the names of a
lease, from 0, in the order in which jobs use them. A name travels once, later its number does. Each
Run says how many names the master has learnt (`Run.names_known`), and a trace brings those after
them. Traces may arrive in another order than they were made: names that come twice are ignored.

Numbers are little-endian. docs/develop/trace.md says what the bits of kinds mean.
"""

import enum
import re
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import Count

MAX_ACCESSES = 1 << 17  # of one trace; termite-sandbox notes no more
MAX_NAMES = 1 << 20  # of one lease
MAX_NAME_BYTES = 8192  # a path and the directory at which it begins, PATH_MAX each
MAX_TEXT_BYTES = 64 * 1024 * 1024  # of all names of a lease
MAX_PAIRS = 1 << 16
KINDS = 1 << 18  # all kinds are below this
SHORT, LONG, BYTE = "H", "I", "B"  # types of numbers of 2, 4 and 1 bytes

_NAME = re.compile(rb"/|(?:/(?!\.?(?:/|\Z))[^/\0]+)+", re.DOTALL)


class TraceGap(enum.IntFlag):
    """The reasons why the trace of a job may lack something that the job has used.

    The values up to PATHS are those of `enum gap` in native/sandbox/trace/path_calls.h.
    """

    MOUNT = 1 << 0  # it mounted or unmounted something in a namespace of its own
    CHROOT = 1 << 1
    NAMESPACE = 1 << 2  # it entered another namespace
    FILTER = 1 << 3  # a tracer of its own missed calls; such a job runs again without a trace
    UNREADABLE = 1 << 4  # the memory of a process could not be read
    PATHS = 1 << 5  # it named too many paths
    NAMES = 1 << 6  # the jobs of the lease have named too many paths
    IMPOSSIBLE = 1 << 7  # this worker cannot trace jobs

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the gaps, in lower case."""
        return tuple(str(gap.name).lower() for gap in TraceGap if gap in self)


class PackedTrace(msgspec.Struct, frozen=True, array_like=True):
    """The trace of one job, as it travels.

    * `calls` is the number of system calls that were noted, and `gaps` are bits of TraceGap.
    * `numbers` has the number of each name, in the order of first use: of 2 bytes each if
      `is_short`, else of 4.
    * `pairs` has the kinds that occur: of the first use, and of all uses. `kinds` has the index of
      a pair for each name: of 1 byte if there are at most 256 pairs, else of 2.
    * `names` has new names, the first of which has the number `first_name`: each with a NUL behind
      it, compressed by zlib; b"" means that there are none.
    """

    calls: Count
    gaps: Annotated[int, Meta(ge=0, lt=1 << 8)]
    is_short: bool = True
    numbers: Annotated[bytes, Meta(max_length=4 * MAX_ACCESSES)] = b""
    pairs: Annotated[tuple[tuple[int, int], ...], Meta(max_length=MAX_PAIRS)] = ()
    kinds: Annotated[bytes, Meta(max_length=2 * MAX_ACCESSES)] = b""
    first_name: Count = 0
    names: bytes = b""

    @property
    def count(self) -> int:
        """The number of paths."""
        return len(self.numbers) // (2 if self.is_short else 4)


def packed_array(numbers: Sequence[int], kind: str) -> bytes:
    """Return numbers of the type SHORT, LONG or BYTE."""
    packed = array(kind, numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def array_of(content: bytes, kind: str) -> "array[int]":
    """Return the numbers that `packed_array` has packed. Raises ValueError for a wrong length."""
    numbers = array(kind, content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


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
            text = unpacker.decompress(packed, MAX_TEXT_BYTES - self._text_bytes + 1)
        except zlib.error:
            raise RemoteProtocolError("a trace with names that cannot be unpacked") from None
        if not unpacker.eof or unpacker.unused_data or not text.endswith(b"\0"):
            raise RemoteProtocolError("a trace with cut names, or with too many")
        return text[:-1].split(b"\0")

    def _take(self, first: int, names: list[bytes]) -> None:
        if first > len(self._names) or first + len(names) > MAX_NAMES:
            raise RemoteProtocolError("a trace with names that follow nothing, or with too many")
        new = names[len(self._names) - first :]
        for name in new:
            if len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
                raise RemoteProtocolError("a trace with a name that is no absolute path")
        self._names += new
        self._text_bytes += sum(map(len, new)) + len(new)
        if self._text_bytes > MAX_TEXT_BYTES:
            raise RemoteProtocolError("a trace with too many names")


def _numbers_of(trace: PackedTrace) -> "array[int]":
    return array_of(trace.numbers, SHORT if trace.is_short else LONG)


def _kinds_of(trace: PackedTrace) -> "array[int]":
    return array_of(trace.kinds, BYTE if len(trace.pairs) <= 1 << 8 else SHORT)
