"""Tests of rules: the format of the file, the rule that decides, and messages for a bad file."""

import contextlib

import pytest
from hypothesis import given

from termite.engine.decide.logic.rules import (
    BUILT_IN,
    RuleBook,
    command_regexp,
    first_match,
    parse_rules,
    readable_regexp,
)
from termite.engine.errors import UserError
from termite.engine.model import Rule
from tests.unit.mutations import mutations
from tests.unit.tables import each_row


def place(text: str, rules: tuple[Rule, ...]) -> tuple[bool, bool, bool]:
    verdict = first_match(text, rules)
    rule = verdict.rule
    return verdict.local, bool(rule and rule.recurse), bool(rule and rule.skip_refresh)


LOCAL, REMOTE = (True, False, False), (False, False, False)


def test_the_first_matching_rule_decides() -> None:
    rules = parse_rules('[{"Regexp": ".*foo", "Local": false}, {"Regexp": "o.*bar", "Local": true}]')
    assert place("xfoobar", rules) == REMOTE
    assert place("o bar", rules) == LOCAL
    assert first_match("neither", rules).rule is None


def test_lines_that_begin_with_a_comment_sign_are_comments() -> None:
    text = '# one\n// two\n[ {"Regexp": "# no comment",\n# three\n"Local": true} ]\n'
    assert place("x # no comment", parse_rules(text)) == LOCAL


def test_a_comment_does_not_move_the_line_numbers_of_errors() -> None:
    with pytest.raises(UserError, match="line 3"):
        parse_rules('# one\n[\n{"Regexp": oops}]')


def test_keys_are_taken_in_any_case() -> None:
    (rule,) = parse_rules('[{"REGEXP": "x", "skiprefresh": true, "LOCAL": true, "Timeout": 2.5}]')
    assert (rule.local, rule.skip_refresh, rule.recurse, rule.timeout_s) == (True, True, False, 2.5)
    assert (rule.cache, rule.ignore_env) == (True, ())


def test_a_rule_may_forbid_to_store_results_and_name_variables_that_do_not_matter() -> None:
    (rule,) = parse_rules('[{"Regexp": "x", "cache": false, "ignoreenv": ["CI_*", "BUILD_ID"]}]')
    assert (rule.cache, rule.ignore_env) == (False, ("CI_*", "BUILD_ID"))


@each_row(
    ("text", "said"),
    [
        ("{}", "must be a JSON array"),
        ('[{"Local": true}]', "entry 1: needs a Regexp"),
        ('[{"Regexp": "a"}, 7]', "entry 2: must be an object"),
        ('[{"Regexp": "a"}, {"Regexp": "("}]', r"entry 2: bad Regexp '\('"),
        ('[{"Regexp": "a", "Local": "yes"}]', "entry 1: Local must be true or false, not 'yes'"),
        ('[{"Regexp": "a", "Local": 1}]', "entry 1: Local must be true or false"),
        ('[{"Regexp": "a", "local": {"a": 1}}]', "entry 1: Local must be true or false"),
        ('[{"Regexp": "a", "IgnoreEnv": "CI"}]', "entry 1: IgnoreEnv must be an array of names of variables, not 'CI'"),
        ('[{"Regexp": "a", "IgnoreEnv": ["A=B"]}]', "entry 1: IgnoreEnv must be an array of names of variables"),
        ('[{"Regexp": "a", "Cache": 0}]', "entry 1: Cache must be true or false"),
        ('[{"Regexp": "a", "Timeout": -1}]', "entry 1: Timeout must be a number"),
        ('[{"Regexp": "a", "Memory": true}]', "entry 1: Memory must be a number"),
        ('[{"Regexp": "a", "Memory": 1e999}]', "entry 1: Memory must be a number"),
        ('[{"Regexp": 7}]', "entry 1: Regexp must be a text, not 7"),
        ('[{"Regexp": "a"}, {"Regexp": "b", "Locl": true}]', "entry 2: there is no key Locl: write Local$"),
        ('[{"Regexp": "a", "skip_refresh": true}]', "entry 1: there is no key skip_refresh: write SkipRefresh"),
        ('[{"Regex": "a"}]', "entry 1: there is no key Regex: write Regexp"),
        ('[{"Regexp": "a", "Comment": 1}]', "entry 1: there is no key Comment"),
        ('[{"Regexp": "a", "Local": true, "local": false}]', "entry 1: Local is given twice"),
        ('[{"Regexp": "[[:alpha:]]"}]', "entry 1: bad Regexp"),  # has another meaning in Python
        ('[{"Regexp": "a\\\\z"}]', "entry 1: bad Regexp"),
        ('[{"Regexp": "a(?i)b"}]', "entry 1: bad Regexp"),
    ],
)
def test_a_bad_file_is_reported_with_entry_and_reason(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_rules(text)


def test_without_a_file_only_the_wrapper_runs_locally_even_after_line_breaks() -> None:
    assert place("foo \n bar \n  termite-make ; \ndone", BUILT_IN) == (True, True, True)
    assert place("gcc -c x.c", BUILT_IN) == REMOTE


def test_a_dot_stops_at_a_line_break_unless_the_rule_says_otherwise() -> None:
    assert place("a\nb", parse_rules('[{"Regexp": "a.b", "Local": true}]')) == REMOTE
    assert place("a\nb", parse_rules('[{"Regexp": "(?s)a.b", "Local": true}]')) == LOCAL


def test_a_bad_file_leaves_the_last_good_one_in_force() -> None:
    book = RuleBook((Rule("plugin", local=True),))
    book.replace('[{"Regexp": "good", "Local": true}]')
    with pytest.raises(UserError):
        book.replace("[")
    assert book.decide("good").local
    assert book.decide("plugin").local
    assert not book.decide("termite-make").local
    book.replace(None)
    assert book.decide("termite-make").local


# Rules like those in the example files of the program from which the format comes.
ANDROID = r"""
# read-only scans are faster locally, but their redirected output must reach the tree
[ { "Regexp": ".*termite-make", "Local": true, "Recurse": true, "SkipRefresh": true },
  { "Regexp": "find.*2> /dev/null", "Local": true, "SkipRefresh": true },
  { "Regexp": "find.*>", "Local": false },
  { "Regexp": "^cd [^&; ]* [&;]* find[^;&|]*", "Local": true, "SkipRefresh": true },
  { "Regexp": "^find [^;&]*$", "Local": true, "SkipRefresh": true },
  { "Regexp": "^if \\[ -d [^ ]* \\] ; then cd [^ ]* ; find ./ -type f -and -not -type l ; fi",
    "Local": true, "SkipRefresh": true },
  { "Regexp": "^build/tools/findleaves.py[^;&|]*$", "Local": true, "SkipRefresh": true } ]
"""
GCC = r"""
// build in a directory of its own
[ {"Regexp": ".*termite-make", "Local": true, "Recurse": true, "SkipRefresh": true},
  {"Regexp": ".*./config.status", "Local": true},
  {"Regexp": ".*/configure[ ]", "Local": true} ]
"""
LLVM = r"""
[ {"Regexp": ".*termite-make", "Local": true, "Recurse": true, "SkipRefresh": true},
# { "Regexp": ".*cmake -E cmake_link_script", "Local": false },
  {"Regexp": ".*/cmake", "Local": true, "SkipRefresh": true} ]
"""


@each_row(
    ("file", "text", "expected"),
    [
        (ANDROID, "termite-make -C x", (True, True, True)),
        (ANDROID, "find . 2> /dev/null", (True, False, True)),
        (ANDROID, "find . -name x > out", REMOTE),
        (ANDROID, "cd a && find . -name x", (True, False, True)),
        (ANDROID, "find a b", (True, False, True)),
        (ANDROID, "find a; rm x", REMOTE),
        (ANDROID, "if [ -d x ] ; then cd x ; find ./ -type f -and -not -type l ; fi", (True, False, True)),
        (ANDROID, "build/tools/findleaves.py --prune=out .", (True, False, True)),
        (ANDROID, "gcc -c x.c", REMOTE),
        (GCC, "cd x && ./config.status --recheck", LOCAL),
        (GCC, "../gcc/configure --prefix=/x", LOCAL),
        (GCC, "../gcc/configure", REMOTE),
        (LLVM, "/usr/bin/cmake -E cmake_link_script link.txt", (True, False, True)),
        (LLVM, "c++ -c x.cpp", REMOTE),
    ],
)
def test_the_examples_of_the_old_program_decide_as_they_did(
    file: str, text: str, expected: tuple[bool, bool, bool]
) -> None:
    assert place(text, parse_rules(file)) == expected


@each_row(
    ("text", "found"),
    [
        ("'/a b/make' -C x", True),
        ('cd /a\\ b && "/a b/c d/make" -C x', True),
        ("/a\\ b/make", True),
        ("'make'", True),
        ("echo '/a b/make'", False),
        ("'/a b/make x' y", False),
        ("'/a b/remake'", False),
        ("echo 'x; /a b/c' make", False),
    ],
)
def test_a_program_in_a_directory_with_spaces_is_found_as_a_shell_would(text: str, found: bool) -> None:
    assert bool(first_match(text, (Rule(command_regexp("make"), local=True),)).local) is found


def test_a_rule_that_names_commands_is_shown_by_their_names() -> None:
    two = rf"(?:{command_regexp('meson(?:[.]py)?')}|{command_regexp('python[0-9.]*')}\s)x"
    assert readable_regexp(two) == r"(?:COMMAND(meson(?:[.]py)?)|COMMAND(python[0-9.]*)\s)x"
    assert readable_regexp("^cp (a|b)") == "^cp (a|b)"


@given(mutations(ANDROID.encode()))
def test_a_damaged_file_is_rules_or_a_users_error(damaged: bytes) -> None:
    with contextlib.suppress(UserError):
        for rule in parse_rules(damaged.decode(errors="replace")):
            assert isinstance(rule.regexp, str)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '[{"Regexp": "x", "Memory": Infinity}]', '[{"Regexp": "x", "Timeout": NaN}]', "[" + "9" * 5000],
    ids=["deep", "infinite", "no number", "long"],
)
def test_an_absurd_file_is_a_users_error(text: str) -> None:
    with pytest.raises(UserError):
        parse_rules(text)
