"""Each cause of a miss is one sentence that a person understands."""

from termite.cli.display.miss_text import _OBSTACLES, _PARTS, miss_text
from termite.engine.history.logic.job_record import MissDetail
from termite.engine.master.reuse.result_look_up import miss_detail
from termite.engine.recall.logic.dependencies import Obstacle
from termite.engine.recall.look_up.differences import Difference, DifferenceKind, MissCause
from termite.engine.recall.look_up.fingerprints import CommandIdentity
from tests.unit.tables import each_row

OLD, NEW = b"0123456789ab", b"ba9876543210"


@each_row(
    ("difference", "text"),
    [
        (Difference(MissCause.NEVER), "This job has not run before, or what it used is forgotten."),
        (
            Difference(MissCause.ARGUMENT, b"-O3", b"-O2", b"-O3", DifferenceKind.WORD),
            "The command has the word -O3 in place of -O2.",
        ),
        (
            Difference(MissCause.ARGUMENT, b"-g -x", b"", b"-g -x", DifferenceKind.CAME),
            "The command has more words: -g -x.",
        ),
        (
            Difference(MissCause.ARGUMENT, b"-g", b"-g", b"", DifferenceKind.WENT),
            "The command has fewer words: it lacks -g.",
        ),
        (Difference(MissCause.ARGUMENT, b"user"), "The user or group of the command is another one."),
        (Difference(MissCause.VARIABLE, b"LANG"), "The variable LANG has another value."),
        (Difference(MissCause.VARIABLE, b"LANG", kind=DifferenceKind.CAME), "The variable LANG is set, and was not."),
        (Difference(MissCause.VARIABLE, b"LANG", kind=DifferenceKind.WENT), "The variable LANG is not set, and was."),
        (
            Difference(MissCause.TOOL, b"/usr/bin/gcc", OLD, NEW),
            "The program /usr/bin/gcc is another one (0123456789ab -> ba9876543210).",
        ),
        (
            Difference(MissCause.CONTENT, b"/w/a.h", OLD, NEW, DifferenceKind.CONTENT),
            "/w/a.h has another content (0123456789ab -> ba9876543210).",
        ),
        (
            Difference(MissCause.CONTENT, b"/w/a", b"644", b"600", DifferenceKind.MODE),
            "/w/a has another mode, kind or size (644 -> 600).",
        ),
        (
            Difference(MissCause.CONTENT, b"/w/l", b"one", b"two", DifferenceKind.TARGET),
            "/w/l leads to two in place of one.",
        ),
        (
            Difference(MissCause.CONTENT, b"/w/l", OLD, NEW, DifferenceKind.TARGET),
            "/w/l leads to ba9876543210 in place of 0123456789ab.",
        ),
        (
            Difference(MissCause.CONTENT, b"/w/l", b"600", b"644", DifferenceKind.TARGET),
            "/w/l leads to 644 in place of 600.",
        ),
        (Difference(MissCause.CONTENT, b"/w/l"), "/w/l has another state."),
        (Difference(MissCause.SHADOW, b"/w/i/a.h", kind=DifferenceKind.CAME), "/w/i/a.h is there now, and was absent."),
        (Difference(MissCause.SHADOW, b"/w/a.h", kind=DifferenceKind.WENT), "/w/a.h is gone, and was there."),
        (Difference(MissCause.LISTING, b"/w/d", b"", b"+a -b"), "The directory /w/d has other names: +a -b."),
        (Difference(MissCause.TIMES, b"/w/a"), "/w/a has another time, and the job asks for times."),
        (Difference(MissCause.EVICTED), "Nothing differs, but the result is not in the store any more."),
        (Difference(MissCause.SHAPE), "Such commands have not shown yet that they give the same result twice."),
        (
            Difference(MissCause.SHAPE, b"/w/x.o differs", b"shape"),
            "Two equal runs of such a command gave different results: /w/x.o differs.",
        ),
        (
            Difference(MissCause.GAP, b"/w/a.h", b"changed"),
            "The last run left no result: an input changed while it ran (/w/a.h).",
        ),
        (
            Difference(MissCause.OWNERS),
            "The command may show the owners of files, and some belong to other users.",
        ),
    ],
)
def test_a_miss_is_told_in_one_sentence(difference: Difference, text: str) -> None:
    assert miss_text(difference.cause.value, miss_detail(difference, ())) == text


@each_row("cause", MissCause)
def test_each_cause_is_a_sentence_and_a_foreign_one_is_shown_as_it_is(cause: MissCause) -> None:
    assert miss_text(cause.value, MissDetail()).endswith(".")
    assert miss_text("later", MissDetail()) == "later"


def test_each_obstacle_and_each_part_of_a_command_has_words() -> None:
    assert {str(obstacle) for obstacle in Obstacle} <= _OBSTACLES.keys() | {"shape"}
    identity = CommandIdentity((b"x",), b"x", True, b"/w", (), 0o22, b"w")
    assert identity.others.keys() <= _PARTS.keys()
