"""Tests of suggested rules: each is valid, and finds the commands that it is meant for."""

from termite.engine.decide.logic.rules import first_match, parse_rules
from termite.engine.decide.logic.suggested_rule import MAX_SHOWN, suggest_rule
from tests.unit.tables import each_row

COMPILE = "cc -O2 -c -o y.o y.c"


@each_row(
    ("texts", "names", "others"),
    [
        (["cp a /srv/x/bin"], ["/srv/x"], [COMPILE, "cp a /srv/xy", "cp a b"]),
        (
            ["cp a '/srv/x/bin'", "ln -s b /srv/x/c", "cd d && (cat e) >/srv/x"],
            ["/srv/x"],
            ["cc -DP='\"/srv/x\"' -c y.c", "cc '-DP=\"/srv/x\"' -c y.c", "cc y.o -Wl,-rpath,/srv/x/lib"],
        ),
        (
            ["cc -c -o obj/a.o a.c", "ar r ./obj/a.a obj/a.o"],
            ["/srv/o", "obj"],
            [COMPILE, "cc -c object/x.c", "cp x.obj y"],
        ),
        (["git describe --dirty"], ["/srv/.git"], ["git log", "git describe", COMPILE]),
        (["install -m 644 a $D/a", "install -m 644 b $D/b"], ["/srv/x"], ["install -m 755 a b", COMPILE]),
        (["./gen  a", "./gen b"], [], ["./generate a", "x ./gen a"]),
        (["python3 a.py 1", "python3 a.py 2"], [], ["python3 b.py 1", "python3 a.py 3"]),
        (["sh -c 'echo (a) >$D/b'", "./gen 1", "./gen 2"], [], ["sh -c 'echo'", "sh x"]),
        (["echo \udcff >$D"], [], ["echo x >$D"]),
        (["a\n b"], [], ["a", "a c"]),
    ],
)
def test_the_rule_makes_these_commands_local_and_no_others(
    texts: list[str], names: list[str], others: list[str]
) -> None:
    rules = parse_rules(f"[{suggest_rule(texts, names)}]")
    assert [text for text in texts if not first_match(text, rules).local] == []
    assert [text for text in others if first_match(text, rules).local] == []


def test_if_no_short_rule_finds_the_commands_there_is_none() -> None:
    assert suggest_rule([f"sh -c 'echo {number} >$D'" for number in range(MAX_SHOWN + 1)], ["/srv/x"]) == ""


def test_commands_of_several_programs_are_alternatives() -> None:
    line = suggest_rule(["./b 1", "./b 2", "./a"], ["/srv/x"])
    assert line == '{"Regexp": "^\\\\s*(?:\\\\./b|\\\\./a)(?=\\\\s|$)", "Local": true}'


def test_a_credential_never_stands_in_a_rule() -> None:
    texts = ["upload --token abcdefgh123 /srv/x"]
    assert suggest_rule(texts, ["/srv/y"]) == ""
    assert "abcdefgh123" not in suggest_rule(texts, ["/srv/x"]) != ""
