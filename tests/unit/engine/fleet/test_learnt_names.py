"""Names of traces: what a worker sends is well-formed, or refused."""

import zlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.errors import RemoteProtocolError
from termite.engine.fleet.logic.learnt_names import FEW_BYTES, KINDS, LearntNames, unpack, unpack_at_once
from termite.engine.model import PackedTrace
from tests.unit.mutations import mutations

TEXT = b"/usr/bin/gcc\0/usr/include/a.h\0/home/u/x.c\0/\0"
PAIRS = ((1, 1), (32, 33), (KINDS - 1, 0))
TRACE = PackedTrace(7, 0, True, b"\0\0\1\0\2\0\3\0\1\0", PAIRS, b"\0\1\2\1\0", 0, zlib.compress(TEXT))
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "is_short": st.booleans(),
        "numbers": mutations(TRACE.numbers),
        "pairs": st.lists(st.tuples(*[st.integers(-(2**63), 2**64 - 1)] * 2), max_size=4).map(tuple),
        "kinds": mutations(TRACE.kinds),
        "first_name": st.integers(0, 5) | st.just(2**63 - 1),
        "names": mutations(TRACE.names) | mutations(TEXT).map(zlib.compress),
    },
)


@given(PARTS, st.booleans())
def test_a_damaged_trace_is_refused_or_names_absolute_paths(parts: dict[str, object], is_second: bool) -> None:
    trace, learnt = msgspec.structs.replace(TRACE, **parts), LearntNames()
    if is_second:
        learnt.learn(TRACE)
    try:
        learnt.learn(trace)
    except RemoteProtocolError:
        return
    for path, kinds in learnt.accesses(trace):
        names = path.split(b"/")
        assert path == b"/" or (names[0] == b"" and not {b"", b"."} & set(names[1:])), path
        assert b"\0" not in path and all(0 <= kind < KINDS for kind in kinds)


def test_a_trace_that_is_cut_anywhere_is_refused() -> None:
    for end in range(1, len(TRACE.names)):
        _is_refused(msgspec.structs.replace(TRACE, names=TRACE.names[:end]))
    for end in range(1, len(TEXT)):
        cut = msgspec.structs.replace(TRACE, names=zlib.compress(TEXT[:end]))
        if end < TEXT.rindex(b"/"):  # a name is missing
            _is_refused(cut)
    for end in range(len(TRACE.numbers)):
        _is_refused(msgspec.structs.replace(TRACE, numbers=TRACE.numbers[:end]))


def _is_refused(trace: PackedTrace) -> None:
    try:
        LearntNames().learn(trace)
    except RemoteProtocolError:
        return
    raise AssertionError(trace)


@given(mutations(TRACE.names) | mutations(TEXT).map(zlib.compress))
def test_few_names_are_the_same_at_once(names: bytes) -> None:
    trace = msgspec.structs.replace(TRACE, names=names)
    assert _or_error(unpack_at_once, trace) == _or_error(unpack, trace)


def _or_error(unpacked: object, trace: PackedTrace) -> object:
    try:
        return unpacked(trace)  # type: ignore[operator]
    except RemoteProtocolError as error:
        return str(error)


def test_more_names_are_left_to_a_thread() -> None:
    names = zlib.compress(b"/a\0" * (FEW_BYTES // 3 + 1))
    assert len(names) < 200
    assert unpack_at_once(msgspec.structs.replace(TRACE, names=names)) is None
    assert unpack_at_once(msgspec.structs.replace(TRACE, names=zlib.compress(b"/a\0" * (FEW_BYTES // 3)))) is not None
