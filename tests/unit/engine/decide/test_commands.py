"""Tests of how an invocation becomes a command."""

import os

import pytest

from termite.engine.decide.environment import Environment, encoded_words
from termite.engine.decide.logic.commands import is_no_op, plain_command, without_jobserver
from termite.engine.model import Command, How, Invocation
from tests.unit.tables import each_row


def command(*argv: str) -> Command:
    return plain_command(Invocation(argv, argv[0], True, "/", {}, How.DIRECT))


@each_row(
    ("argv", "text"),
    [
        (("gcc", "-c", "x.c"), "gcc -c x.c"),
        (("/bin/sh", "-c", "a && b"), "a && b"),
        (("sh", "-ec", "a"), "a"),
        (("bash", "-eu", "-o", "pipefail", "-c", "a b"), "a b"),
        (("bash", "-euo", "pipefail", "-c", "a b"), "a b"),
        (("bash", "--norc", "-c", "a"), "a"),
        (("bash", "--rcfile", "-c", "x"), "bash --rcfile -c x"),
        (("bash", "-c", "-e", "a"), "a"),
        (("sh", "-c", "--", "a", "zero"), "a"),
        (("sh", "script", "-c", "x"), "sh script -c x"),
        (("python3", "-c", "print()"), "python3 -c print()"),
        (("sh",), "sh"),
    ],
)
def test_the_text_is_the_word_after_c_of_a_shell_else_all_words(argv: tuple[str, ...], text: str) -> None:
    assert command(*argv).text == text


@pytest.mark.parametrize(
    "argv", [("sh", "-c", ":"), ("sh", "-ec", " true\n"), ("sh", "-c", ""), ("true",), ("sh", "-c", "exec true")]
)
def test_what_does_nothing_is_seen(argv: tuple[str, ...]) -> None:
    assert is_no_op(command(*argv))


@pytest.mark.parametrize(
    "argv", [("sh", "-xc", "true"), ("sh", "-c", ": > x"), ("sh", "true"), ("true", "x"), ("sh", "-c", "true;false")]
)
def test_what_may_do_something_is_run(argv: tuple[str, ...]) -> None:
    assert not is_no_op(command(*argv))


@each_row(
    ("flags", "kept"),
    [
        ("k -j4 --jobserver-auth=3,4 -- A=x\\ -j5", "k -- A=x\\ -j5"),
        (" -j4 --jobserver-auth=fifo:/tmp/x", ""),
        ("w -j --jobserver-fds=3,4", "w"),
        ("-k -j4 --jobserver-auth=3,4", "-k"),
        (" -j8 -l2.5 --jobserver-auth=3,4 --output-sync", "--output-sync"),
        ("ks", "ks"),
        (" -- A=1", " -- A=1"),
        ("", ""),
    ],
)
def test_a_remote_make_does_not_look_for_the_jobserver(flags: str, kept: str) -> None:
    assert without_jobserver(flags).strip() == kept.strip()


def test_what_leads_to_this_machine_stays_here() -> None:
    env = {"PATH": "/bin", "TERMITE_LOCAL": "never", "MAKE_SHELL": "x", "MAKEFLAGS": " -j2 --jobserver-auth=3,4"}
    assert Environment(env).remote == {"PATH": "/bin", "MAKEFLAGS": ""}
    assert Environment({"CARGO_MAKEFLAGS": "-j --jobserver-fds=6,7 --jobserver-auth=6,7"}).remote == {
        "CARGO_MAKEFLAGS": ""
    }


@pytest.mark.parametrize("words", [(), ("",), ("cc", "", "a b"), ("\udcff", "\xe4"), ("a\0b", "c")])
def test_words_are_encoded_as_one_by_one(words: tuple[str, ...]) -> None:
    assert encoded_words(words) == tuple(map(os.fsencode, words))
