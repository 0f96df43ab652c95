"""Simple lists of commands are read as a shell reads them, and everything else is refused."""

import pytest

from termite.engine.recall.known.shell_lists import MOST_CHARS, parse_list
from termite.engine.recall.known.shell_words import NotSimple, SimpleCommand
from tests.unit.tables import each_row


def command(*words: str, written: tuple[str, ...] = (), may_fail: bool = False, **assignments: str) -> SimpleCommand:
    return SimpleCommand(tuple(assignments.items()), words, written, may_fail)


def failing(*words: str) -> SimpleCommand:
    return command(*words, may_fail=True)


@each_row(
    ("text", "commands"),
    [
        ("", ()),
        (" \n ;", ()),
        ("gcc -c x.c", (command("gcc", "-c", "x.c"),)),
        ("cd a && gcc x.c;mv b c", (failing("cd", "a"), failing("gcc", "x.c"), command("mv", "b", "c"))),
        ("rm -f x || true\n\ncp a b\n", (failing("rm", "-f", "x"), failing("true"), command("cp", "a", "b"))),
        ("a 'b c' \"d e\" f\\ g h\"i\"'j'", (command("a", "b c", "d e", "f g", "hij"),)),
        ('a "\\$x \\\\ \\a \\"" \'\\n\' \\$y', (command("a", '$x \\ \\a "', "\\n", "$y"),)),
        ("gcc \\\n  -c x\\\ny.c", (command("gcc", "-c", "xy.c"),)),
        ("a > b 2>&1", (command("a", written=("b",)),)),
        ("a >b2>>c </d 2>/dev/null >|'e f'", (command("a", written=("b2", "c", "e f")),)),
        ("a x2>b >&2", (command("a", "x2", written=("b",)),)),
        ("LC_ALL=C A='b c' sort x", (command("sort", "x", LC_ALL="C", A="b c"),)),
        ("gcc A=b", (command("gcc", "A=b"),)),
        ("'A=b' c", (command("A=b", "c"),)),
        ("A=b", (command(A="b"),)),
        ("> x", (command(written=("x",)),)),
        ("[ -f x ] && test -d y", (command("[", "-f", "x", "]"), command("test", "-d", "y"))),
        ("a '*' \"?\" '{b,c}' '~' '#d' 'é'", (command("a", "*", "?", "{b,c}", "~", "#d", "é"),)),
        ("echo if [ a/[", (command("echo", "if", "[", "a/["),)),
        ("x=a; b $x ${x}.o c$x/", (command(x="a", may_fail=True), command("b", "a", "a.o", "ca/"))),
        (": && gcc x && :", (command(":"), command("gcc", "x"), command(":"))),
    ],
)
def test_a_simple_list_is_read(text: str, commands: tuple[SimpleCommand, ...]) -> None:
    assert parse_list(text) == commands


@each_row(
    "text",
    [
        *("a $x", 'a "$x"', "a ${x}", "a $(b)", "a `b`", 'a "`b`"', "a $((1))", "$x", "a\\\n$x"),
        *("x=a && b $x; c || x=d; e $x", "x=1; x=2 a; b $x", "X=a; b $X", "x='a b'; c $x", "x=; c $x", "x=1; c $x2"),
        *("x=1; c $x\\\n2", "x=1 | c $x", "(x=1); c $x", "if a; then x=1; fi; c $x", "case a in b) x=1;; esac; c $x"),
        *("x=1; c ${x:-2}", "x=1; c \"$x\"", "`test -f a || echo -`b", "a `test -f a || echo ./`-b", "a `echo b`"),
        *("a b`test -f c || echo ./`c", "x=`echo a | sed s/a/b/`; c $x", "x=`echo a | sed 's/a/-b/'`; c $x"),
        *("a |& b", "a &", "a&", "a & b", "((a))", "(a", "a)", ")", "{ a; ", "{a; }", "! a", "a() { b; }"),
        *("a;;b", "{ a; } b", "(a) b", "a && if b", "if a; then b", "if a; fi", "fi", "then a", "}", "a () { b; }"),
        "x=1 if a; then b; fi",
        *("for x; do a; done", "for x in; do a; done", "for x in $y; do a; done", "for x in 'a b'; do c; done"),
        *("for X in a; do b; done", "while a; do b; done", "until a; do b; done", "case $(a) in b) c;; esac"),
        *("case a in b) c;; esac d", "case a in `b`) c;; esac", "case a in b) c", "'if' a; then b; fi", "[[ a ]]"),
        "(" * 30 + "a" + ")" * 30,
        *("a *", "a x*.c", "a ?", "a [b]", "a b[[", "a [b[", "a ~", "a ~/b", "a {b,c}", "a # b", "a b#c", "A=~ b"),
        *("a << b", "a <<< b", "a <> b", "a <& 3", "a >& b", "a >&3", "a &> b", "a >(b)", "a <(b)", "a 12> b"),
        *("a > /dev/tcp/b/1", "a > /dev/stderr", "a >2>&1", "a < /dev/urandom", "a >", "a <"),
        *("a 'b", 'a "b', "a \\", "a \"b$\"", "time a", "function a b", "coproc a"),
        "a" * (MOST_CHARS + 1),
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(NotSimple):
        parse_list(text)


@each_row(
    ("text", "may_fail"),
    [
        ("a", ""),
        ("a;", ""),
        ("a && b && c", ""),
        ("a; b", "a"),
        ("a\nb && c; d\n", "a b c"),
        ("a || b", "a"),
        ("a; b || c; d && e", "a b c"),
        ("a && b || c && d", "a b"),
        ("a || b || c", "a b"),
        ("a && b || exit 1", ""),
        ("a || b || exit 1", "a b"),
        ("a || exit 0", "a"),
        ("mkdir x || test -d x", ""),
        ("mkdir -p x 2>/dev/null || [ -d x ]", ""),
        ("mkdir x || test -d y", "mkdir"),
        ("mkdir x y || test -d x", "mkdir"),
        ("mkdir x || test -e x", "mkdir"),
        ("{ a; b; } && c", "a"),
        ("{ a && b; } > x && c", ""),
        ("(a || true) > x", "a"),
        ("a | b && c", "a"),
        ("if a; then b; else c; fi", "a"),
        ("if a; then b; fi; c", "a b"),
        ("for x in 1 2; do a; done && b", "a"),  # unseen in the first turn
        ("case x in y|z) a; b;; *) c;; esac", "a"),
        ("set -e; { a; b; }; c", "set a b"),
        ("set -e; a; b && c; d", "set b c"),
        ("a && set -e; b; c", "a set b"),
    ],
)
def test_commands_are_told_apart_that_may_fail_unseen(text: str, may_fail: str) -> None:
    words = [one.words[0] for one in parse_list(text) if one.may_fail and one.words]
    assert words == may_fail.split()


def test_all_commands_of_a_construct_are_read() -> None:
    found = parse_list("x=a; if b $x; then x=c; d $x; elif e; then f; fi >g; for y in 1 2; do h $y $y; done")
    assert [(one.words, one.written) for one in found if one.words] == [
        (("b", "a"), ("g",)),
        (("d", "c"), ("g",)),
        (("e",), ("g",)),
        (("f",), ("g",)),
        (("h", "1", "1"), ()),
        (("h", "2", "2"), ()),
    ]
    assert [one.is_piped for one in parse_list("a; b | c")] == [False, True, True]


def test_a_shell_with_e_ends_at_the_first_failure() -> None:
    commands = parse_list("a; b && c; d || e; f", ends_on_error=True)
    assert [one.words[0] for one in commands if one.may_fail] == ["b", "c", "d", "e"]


def test_the_place_of_a_source_is_its_name_with_or_without_its_directory() -> None:
    commands = parse_list("gcc -c `test -f 'x.c' || echo './'`x.c")
    assert [one.words for one in commands] == [("test", "-f", "x.c"), ("echo", "./"), ("gcc", "-c", "x.c")]
