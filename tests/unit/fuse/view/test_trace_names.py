"""Traces of a lease reach the master whole, in few bytes, and in whatever order."""

import itertools
import zlib
from array import array
from collections.abc import Sequence

import msgspec
import pytest

from termite.engine.errors import RemoteProtocolError
from termite.engine.fleet.logic.learnt_names import KINDS, LearntNames
from termite.engine.model import MAX_ACCESSES, PackedTrace, TraceGap
from termite.fuse.view import trace_names
from termite.fuse.view.trace_names import TraceNames
from tests.unit.tables import each_row

Uses = Sequence[tuple[bytes, int, int]]
HEADERS = [(b"/usr/include/%d.h" % i, 1, 1) for i in range(300)]
READ, STAT, LIST = 1, 32, 512


def noted(uses: Uses) -> bytes:
    """Return what termite-sandbox writes."""
    kinds = array("I", [kind for _, first, all in uses for kind in (first, all)])
    return len(uses).to_bytes(4, "little") + kinds.tobytes() + b"".join(path + b"\0" for path, _, _ in uses)


def decoded(learnt: LearntNames, trace: PackedTrace) -> list[tuple[bytes, int, int]]:
    return [(path, *pair) for path, pair in learnt.accesses(trace)]


def sent(trace: PackedTrace) -> PackedTrace:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(trace), type=PackedTrace)


def test_a_trace_arrives_as_it_was_noted() -> None:
    names, learnt = TraceNames(), LearntNames()
    uses = [(b"/usr/bin/gcc", 256, 256 | READ), (b"/home/u/\xff\n", STAT, STAT), (b"/a/../b", READ, READ)]
    trace = sent(names.pack(noted(uses), 7, int(TraceGap.MOUNT | TraceGap.CHROOT)))
    learnt.learn(trace)
    assert decoded(learnt, trace) == uses
    assert (trace.calls, trace.count, TraceGap(trace.gaps).words) == (7, 3, ("mount", "chroot"))


def test_an_empty_trace_is_one() -> None:
    trace, learnt = TraceNames().pack(noted([]), 0, 0), LearntNames()
    learnt.learn(trace)
    assert (decoded(learnt, trace), trace.names, trace.gaps) == ([], b"", 0)


@pytest.mark.parametrize("path", [b"/proc", b"/proc/self/exe", b"/proc/7/fd/12", b"/dev/null", b"/sys/fs/selinux"])
def test_what_tells_nothing_about_the_worker_is_left_out(path: bytes) -> None:
    uses = [(path, READ, READ), (b"/development", READ, READ), (b"/processes", STAT, STAT)]
    trace, learnt = TraceNames().pack(noted(uses), 3, 0), LearntNames()
    learnt.learn(trace)
    assert decoded(learnt, trace) == uses[1:]


@each_row(
    "path", [b"/proc/uptime", b"/proc/self/stat", b"/proc/cpuinfo", b"/dev/urandom", b"/sys/devices", b"/dev/nullx"]
)
def test_what_may_tell_about_the_worker_travels(path: bytes) -> None:
    trace, learnt = TraceNames().pack(noted([(path, READ, READ)]), 1, 0), LearntNames()
    learnt.learn(trace)
    assert decoded(learnt, trace) == [(path, READ, READ)]


def test_a_listing_of_the_processes_travels() -> None:
    uses = [(b"/proc", READ, READ | LIST), (b"/dev", STAT, STAT)]
    trace, learnt = TraceNames().pack(noted(uses), 1, 0), LearntNames()
    learnt.learn(trace)
    assert decoded(learnt, trace) == uses[:1]


def test_a_name_travels_once() -> None:
    names, learnt = TraceNames(), LearntNames()
    for number in range(3):
        names.note_known(len(learnt))
        uses = [*HEADERS, (b"/home/u/%d.c" % number, READ, READ)]
        trace = sent(names.pack(noted(uses), 1, 0))
        learnt.learn(trace)
        assert decoded(learnt, trace) == uses
    assert len(msgspec.msgpack.encode(trace)) < 1024 + 64
    assert len(learnt) == len(HEADERS) + 3


@each_row("order", [*itertools.permutations(range(4))])
def test_traces_may_arrive_in_another_order_than_they_were_made(order: tuple[int, ...]) -> None:
    names, learnt = TraceNames(), LearntNames()
    uses = [[(b"/%d" % (start + i), READ, READ) for i in range(5)] for start in (0, 3, 1, 7)]
    traces = [names.pack(noted(some), 1, 0) for some in uses]
    for number in order:
        learnt.learn(traces[number])
        assert decoded(learnt, traces[number]) == uses[number]
    assert len(learnt) == 12


def test_too_many_names_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_names, "MAX_TRACED_NAMES", 250)
    names = TraceNames()
    assert names.pack(noted(HEADERS), 1, 1).gaps == TraceGap.NAMES | TraceGap.MOUNT
    assert names.pack(noted(HEADERS[:250]), 1, 0).gaps == 0
    assert names.statistics() == {"traced_names": 250}


def test_a_trace_that_could_not_be_written_is_a_gap() -> None:
    assert TraceNames().pack(b"", 5, 0) == PackedTrace(5, TraceGap.PATHS)


def test_a_cut_trace_is_refused_wherever_it_is_cut() -> None:
    whole = noted([(b"/a", READ, READ), (b"/b", STAT, STAT)])
    for end in range(1, len(whole)):
        with pytest.raises(ValueError, match=r"cut|multiple"):
            TraceNames().pack(whole[:end], 1, 0)


def packed(names: bytes = b"/a\0", first: int = 0, count: int = 1, **fields: object) -> PackedTrace:
    usual = PackedTrace(1, 0, True, bytes(2 * count), ((READ, READ),), bytes(count), first, zlib.compress(names))
    return msgspec.structs.replace(usual, **fields)


HOSTILE = {
    "relative": packed(b"a\0"),
    "empty": packed(b"\0"),
    "no NUL": packed(b"/a"),
    "empty component": packed(b"/a//b\0"),
    "dot": packed(b"/a/.\0"),
    "slash at the end": packed(b"/a/\0"),
    "too long": packed(b"/" + b"a" * 9000 + b"\0"),
    "not packed": packed(names=b"x"),
    "cut": packed(names=zlib.compress(b"/a\0")[:-3]),
    "more behind": packed(names=zlib.compress(b"/a\0") + b"x"),
    "names after a hole": packed(first=1),
    "unknown name": packed(numbers=b"\x01\0"),
    "unknown pair": packed(kinds=b"\x01"),
    "unknown kind": packed(pairs=((KINDS, 0),)),
    "negative kind": packed(pairs=((-1, 0),)),
    "half a number": packed(numbers=b"\0"),
    "fewer kinds": packed(kinds=b""),
    "too many": packed(count=MAX_ACCESSES + 1),
}


@each_row("what", HOSTILE)
def test_what_no_mirror_sends_is_refused(what: str) -> None:
    with pytest.raises(RemoteProtocolError):
        LearntNames().learn(HOSTILE[what])
    LearntNames().learn(packed())
