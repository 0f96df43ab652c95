"""Test the look-up: fingerprints, hits, and the first reason of a miss."""

import dataclasses
import shlex
import stat
from collections.abc import Iterable

import msgspec
import pytest

from termite.engine.model import Attr
from termite.engine.recall.logic.dependencies import DependencySet
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.logic.uses import Dependency, PathSet, Use, pack_path_set, states
from termite.engine.recall.look_up.differences import Difference, DifferenceKind, MissCause, explain_miss, last_run
from termite.engine.recall.look_up.fingerprints import (
    CommandIdentity,
    recall_name,
    strong_fingerprint,
    weak_fingerprint,
)
from termite.engine.recall.look_up.observation import Observation
from termite.engine.recall.look_up.recollection import MOST_PATH_SETS, Hit, Miss, recall
from termite.engine.recall.look_up.stored_rows import (
    NO_ROWS,
    LastRun,
    PathSetRow,
    RecordedResult,
    ResultRow,
    StoredRows,
    pack_value,
    unpack_value,
)
from termite.engine.tree.logic.attrs import AttrTree
from tests.unit.engine.recall.recall_trees import directory, file, link, tree_of
from tests.unit.tables import each_row

IDENTITY = CommandIdentity(
    (b"gcc", b"-O2", b"-c", b"a.c", b"-o", b"a.o"), b"gcc", True, b"/w", (b"PATH=/bin", b"LANG=C"), 0o022, b"w"
)
WEAK = weak_fingerprint(IDENTITY)
TREE = {
    b"bin": directory(),
    b"bin/gcc": file("gcc 12", 0o755),
    b"w/a.c": file("a"),
    b"w/inc": directory(),
    b"w/inc2": directory(),
    b"w/inc2/a.h": file("h"),
    b"w/cur": link(b"inc2"),
}
PATH_SET = PathSet(
    (
        Dependency(b"bin/gcc", Use.READ | Use.EXEC),
        Dependency(b"w/a.c", Use.READ | Use.STAT),
        Dependency(b"w/cur", Use.LINK),
        Dependency(b"w/inc/a.h", Use.ABSENT),
        Dependency(b"w/inc2", Use.ENTER | Use.LIST),
        Dependency(b"w/inc2/a.h", Use.READ),
        Dependency(b"w/out.o", Use.FRESH, stat.S_IFREG | 0o644),
    )
)
SET_ID, _ = pack_path_set(PATH_SET)
SHAPE = b"s" * 16


def tree(**changes: Attr | None) -> AttrTree:
    """Return the tree with changes, whose names have _ for / and __ for a dot."""
    named = {name.replace("__", ".").replace("_", "/").encode(): attr for name, attr in changes.items()}
    return tree_of({path: attr for path, attr in {**TREE, **named}.items() if attr is not None})


def stored(from_tree: AttrTree) -> StoredRows:
    """Return the rows that a run in this tree has left."""
    facts = TreeFacts(from_tree)
    timed, blind = states(PATH_SET, facts, with_times=True), states(PATH_SET, facts, with_times=False)
    row = ResultRow(
        strong_fingerprint(WEAK, SET_ID, timed, with_times=True),
        strong_fingerprint(WEAK, SET_ID, blind, with_times=False),
        SET_ID,
        RecordedResult((), (), 1, 2, job="job 7"),
        SHAPE,
    )
    return StoredRows((PathSetRow(SET_ID, PATH_SET),), (row,))


def last_of(from_tree: AttrTree, *, obstacle: str = "", detail: bytes = b"") -> LastRun:
    """Return the last run if it was in this tree."""
    found = states(PATH_SET, TreeFacts(from_tree), with_times=True)
    observation = Observation(DependencySet(PATH_SET, (), (), False), PathSetRow(SET_ID, PATH_SET), found, b"t", b"b")
    return last_run(IDENTITY, WEAK, observation, obstacle=obstacle, detail=detail)


def answer(now: AttrTree, rows: StoredRows, *, is_blind: bool = False) -> Hit | Miss:
    return recall(WEAK, rows, TreeFacts(now), lambda row: is_blind)


def cause(now: AttrTree, last: LastRun | None, identity: CommandIdentity = IDENTITY) -> Difference:
    return explain_miss(identity, last, PATH_SET, TreeFacts(now))


def test_the_same_tree_is_a_hit() -> None:
    rows = stored(tree())
    assert answer(tree(), rows) == Hit(rows.results[0], by_times=True)
    assert isinstance(answer(tree(w_other=file("x")), rows), Hit)
    assert isinstance(answer(tree(w_out__o=file("old", mtime_ns=3)), rows), Hit)


def test_new_times_are_a_hit_only_for_commands_that_are_blind_to_them() -> None:
    rows, touched = stored(tree()), tree(w_a__c=file("a", mtime_ns=5))
    assert answer(touched, rows) == Miss()
    assert cause(touched, last_of(tree())) == Difference(MissCause.TIMES, b"/w/a.c")
    assert answer(touched, rows, is_blind=True) == Hit(rows.results[0], by_times=False)


def test_new_times_are_a_hit_if_a_table_vouches_for_that() -> None:
    rows, touched = stored(tree()), tree(w_a__c=file("a", mtime_ns=5))
    vouched = recall(WEAK, rows, TreeFacts(touched), lambda row: row is rows.results[0])
    assert vouched == Hit(rows.results[0], by_times=False)
    assert recall(WEAK, rows, TreeFacts(touched), lambda row: False) == Miss()
    assert recall(WEAK, rows, TreeFacts(tree(w_a__c=file("b"))), lambda row: True) == Miss()


@each_row(
    ("changes", "expected"),
    [
        ({"w_a__c": file("b")}, Difference(MissCause.CONTENT, b"/w/a.c")),
        ({"w_a__c": file("a", 0o600)}, Difference(MissCause.CONTENT, b"/w/a.c", b"644", b"600", DifferenceKind.MODE)),
        ({"w_a__c": None}, Difference(MissCause.SHADOW, b"/w/a.c", kind=DifferenceKind.WENT)),
        ({"w_cur": link(b"inc")}, Difference(MissCause.CONTENT, b"/w/cur", b"inc2", b"inc", DifferenceKind.TARGET)),
        ({"w_inc_a__h": file("h")}, Difference(MissCause.SHADOW, b"/w/inc/a.h", kind=DifferenceKind.CAME)),
        ({"w_inc2_b__h": file()}, Difference(MissCause.LISTING, b"/w/inc2", b"", b"+b.h")),
        ({"w_out__o": file("", 0o444)}, Difference(MissCause.CONTENT, b"/w/out.o")),
        ({"bin_gcc": file("gcc 13", 0o755)}, Difference(MissCause.TOOL, b"/bin/gcc")),
        ({"bin_gcc": file("gcc 13", 0o755), "w_a__c": file("b")}, Difference(MissCause.TOOL, b"/bin/gcc")),
        ({"w_a__c": file("b"), "w_inc2_b__h": file()}, Difference(MissCause.CONTENT, b"/w/a.c")),
    ],
)
def test_the_first_difference_of_the_tree_is_named(changes: dict[str, Attr | None], expected: Difference) -> None:
    assert isinstance(answer(tree(**changes), stored(tree()), is_blind=True), Miss)
    found = cause(tree(**changes), last_of(tree()))
    assert (found.cause, found.name) == (expected.cause, expected.name)
    if expected.old or expected.kind is not DifferenceKind.OTHER:
        assert found == expected


@each_row(
    ("identity", "expected"),
    [
        (
            {"argv": (b"gcc", b"-O3", *IDENTITY.argv[2:])},
            Difference(MissCause.ARGUMENT, b"-O3", b"-O2", b"-O3", DifferenceKind.WORD),
        ),
        ({"argv": (*IDENTITY.argv, b"-g")}, Difference(MissCause.ARGUMENT, b"-g", b"", b"-g", DifferenceKind.CAME)),
        ({"env": (b"PATH=/bin", b"LANG=de")}, Difference(MissCause.VARIABLE, b"LANG")),
        ({"env": (b"PATH=/bin",)}, Difference(MissCause.VARIABLE, b"LANG", kind=DifferenceKind.WENT)),
        ({"env": (*IDENTITY.env, b"NEW=1")}, Difference(MissCause.VARIABLE, b"NEW", kind=DifferenceKind.CAME)),
        ({"umask": 0o077}, Difference(MissCause.ARGUMENT, b"umask")),
        ({"stdin": b"x" * 32}, Difference(MissCause.ARGUMENT, b"stdin")),
    ],
)
def test_the_first_difference_of_the_command_is_named(identity: dict[str, object], expected: Difference) -> None:
    other = dataclasses.replace(IDENTITY, **identity)  # type: ignore[arg-type]
    assert weak_fingerprint(other) != WEAK
    assert recall_name(other) == recall_name(IDENTITY)
    assert cause(tree(), last_of(tree()), other) == expected


@each_row(
    ("old", "new", "expected"),
    [
        ("curl --password hunter2 x", "curl --password other x", "*** -> *** word"),
        ("curl --token x", "curl --token x -v", " -> -v came"),
        ("curl -v", "curl -v --token hunter2", " -> *** came"),
        ("curl -v --token hunter2", "curl -v", "*** ->  went"),
        ("curl -u me:hunter2 x", "curl -u me x", "*** -> *** word"),
        ("curl plain", "curl --api-key=hunter2", "*** -> *** word"),
        ("curl --token hunter2 a", "curl --token hunter2 b", "a -> b word"),
        ("sh -c 'curl --token hunter2 a'", "sh -c 'curl --token hunter2 b'", "*** -> *** word"),
    ],
)
def test_no_word_of_a_difference_is_a_credential(old: str, new: str, expected: str) -> None:
    then, now = (dataclasses.replace(IDENTITY, argv=tuple(map(str.encode, shlex.split(text)))) for text in (old, new))
    last = last_run(then, weak_fingerprint(then), None)
    found = explain_miss(now, last, None, TreeFacts(tree()))
    assert f"{found.old.decode()} -> {found.new.decode()} {found.kind}" == expected
    assert b"hunter2" not in found.name


def test_a_job_that_was_never_seen_or_was_evicted_says_so() -> None:
    assert answer(tree(), NO_ROWS) == Miss()
    assert cause(tree(), None) == Difference(MissCause.NEVER)
    assert cause(tree(), last_of(tree())) == Difference(MissCause.EVICTED)
    no_states = explain_miss(IDENTITY, last_of(tree()), None, TreeFacts(tree(w_a__c=file("b"))))
    assert no_states == Difference(MissCause.EVICTED)


@pytest.mark.parametrize(
    ("obstacle", "expected"), [("gap", MissCause.GAP), ("changed", MissCause.GAP), ("shape", MissCause.SHAPE)]
)
def test_a_result_that_was_not_stored_says_why(obstacle: str, expected: MissCause) -> None:
    last = last_of(tree(), obstacle=obstacle, detail=b"mount")
    assert cause(tree(), last) == Difference(expected, b"mount", obstacle.encode())
    assert cause(tree(w_a__c=file("b")), last).cause is MissCause.CONTENT
    unknown = last_run(IDENTITY, WEAK, None, obstacle=obstacle, detail=b"mount")
    assert explain_miss(IDENTITY, unknown, None, TreeFacts(tree())).cause is expected


def test_several_path_sets_are_tried_but_not_too_many() -> None:
    rows = stored(tree())
    others = tuple(
        PathSetRow(b"%032d" % at, PathSet((Dependency(b"w/a.c", Use.ABSENT),))) for at in range(MOST_PATH_SETS)
    )
    few = dataclasses.replace(rows, path_sets=(*others[:-1], *rows.path_sets))
    many = dataclasses.replace(rows, path_sets=(*others, *rows.path_sets))
    assert isinstance(answer(tree(), few), Hit)
    assert isinstance(answer(tree(), many), Miss)


def test_missing_facts_are_asked_for_and_not_taken_for_a_difference() -> None:
    unserved = tree_of(TREE, unserved=[b"w/inc2", b"w/inc"])
    with pytest.raises(FactsMissing) as missing:
        answer(unserved, stored(tree()))
    assert missing.value.directories == {b"w/inc"}
    unhashed = tree(w_a__c=msgspec.structs.replace(file("a"), digest=None))
    with pytest.raises(FactsMissing) as missing:
        answer(unhashed, stored(tree()))
    assert missing.value.contents == {b"w/a.c"}


def test_a_path_set_that_cannot_fit_asks_for_no_contents() -> None:
    unhashed = msgspec.structs.replace(file("a"), digest=None)
    found = answer(tree(w_a__c=unhashed, w_inc_a__h=file("h")), stored(tree()))
    assert found == Miss((Difference(MissCause.SHADOW, b"/w/inc/a.h", kind=DifferenceKind.CAME),))


# -- fingerprints and rows --------------------------------------------------------------------------------------------


@each_row(
    "word",
    [b"SSH_AUTH_SOCK=/x", b"SHLVL=3", b"_=/bin/make", b"TERM_PROGRAM=x", b"HISTSIZE=5", b"TERMITE_X=1"],
)
def test_variables_of_the_session_are_not_in_the_fingerprint(word: bytes) -> None:
    assert weak_fingerprint(dataclasses.replace(IDENTITY, env=(*IDENTITY.env, word))) == WEAK


@each_row(
    "word",
    [
        *(b"TERM=xterm", b"SSH=1", b"__=1", b"CFLAGS=-g", b"HOME=/root", b"LINES=5", b"COLUMNS=80", b"DISPLAY=:1"),
        *(b"HISTORY=x", b"TERM_X=1", b"MAIL=a", b"PS1=$", b"SSH_KEY=x", b"LS_COLORS=x", b"TMUX_X=1"),
    ],
)
def test_all_other_variables_are(word: bytes) -> None:
    assert weak_fingerprint(dataclasses.replace(IDENTITY, env=(*IDENTITY.env, word))) != WEAK


def test_the_order_of_variables_does_not_matter_and_every_other_part_does() -> None:
    assert weak_fingerprint(dataclasses.replace(IDENTITY, env=IDENTITY.env[::-1])) == WEAK
    other: dict[str, object] = {
        "argv": (b"gcc",),
        "exe": b"cc",
        "search": False,
        "cwd": b"/w/b",
        "env": (),
        "umask": 0o077,
        "root": b"v",
        "stdin": b"s",
        "merge": True,
        "network": True,
        "ids": (1,),
        "limits": "3:1:2 0",
        "nice": 5,
        "ignored": 4,
        "terminal": (24, 80, 0, 0, 0, 1, 1, 0),
        "machine": b"m",
    }
    assert other.keys() == {field.name for field in dataclasses.fields(CommandIdentity)}
    found = {
        weak_fingerprint(dataclasses.replace(IDENTITY, **{name: value}))  # type: ignore[arg-type]
        for name, value in other.items()
    }
    assert len(found | {WEAK}) == len(other) + 1


def test_jobs_without_an_output_are_named_by_their_files() -> None:
    def name(*words: bytes) -> bytes:
        return recall_name(dataclasses.replace(IDENTITY, argv=words))

    assert name(b"ar", b"rcs", b"lib.a", b"x.o") == name(b"/usr/bin/ar", b"rc", b"lib.a", b"x.o")
    assert name(b"ar", b"rcs", b"lib.a", b"x.o") != name(b"ar", b"rcs", b"lib2.a", b"x.o")
    assert name(b"gcc", b"-o", b"a.o", b"a.c") != name(b"gcc", b"-o", b"b.o", b"a.c")


def test_damaged_values_are_missing() -> None:
    rows = stored(tree())
    values: Iterable[tuple[msgspec.Struct, type[msgspec.Struct]]] = (
        (rows.path_sets[0], PathSetRow),
        (rows.results[0], ResultRow),
        (last_of(tree()), LastRun),
    )
    for value, kind in values:
        packed = pack_value(value)
        assert unpack_value(packed, kind) == value
        for at in range(len(packed)):
            assert unpack_value(packed[:at], kind) is None
            assert unpack_value(packed[:at] + bytes([packed[at] ^ 4]) + packed[at + 1 :], kind) is None
    assert unpack_value(pack_value([1, 2]), ResultRow) is None
