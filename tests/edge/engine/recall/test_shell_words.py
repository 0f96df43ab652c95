"""Lists of commands that are read without a shell have the words that a shell reads."""

import random
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from termite.engine.recall.known.shell_lists import parse_list
from termite.engine.recall.known.shell_words import NotSimple, SimpleCommand

PIECES = [
    *"ab=-:/%,1é \t\n'\"\\;&|<>$`*?[]{}()~#!",
    "w ",
    " w ",
    " && ",
    "; ",
    "'a b'",
    '"c d"',
    "\\\n",
    "2>&1 ",
    ">f ",
]
PIECES += [">>f ", "<g ", "A=1 ", "\\\\", '\\"', "\\$", "''", '""', "2", "if ", " [ ", "cd "]
# Variables, and the substitutions of automake; `g` is there.
EDITED, PLACE = "`echo a/b.o | sed 's|[^/]*$|.d/&|;s|\\.o$||'`", "`test -f 'g' || echo './'`"
VALUES = [
    "x=a; ",
    "; x=b; ",
    "x=1 ",
    "&& x=c ",
    "$x",
    " ${x}",
    '"$x"',
    EDITED,
    f"; y={EDITED}; ",
    "$y",
    PLACE,
    " ",
    " w ",
]
SIMPLE = ("w", "w $x", "x=b", "w ${x}y >f", "x=c w $y", "w 'a b' \\$x", "y=$x", ":", "w in do")
CONSTRUCTS = (
    *("{{ {0}; {1}; }}", "( {0}; {1} )", "if {0}; then {1}; fi", "if {0}\nthen {1}; else {2}; fi >f", "{0} && {1}"),
    *("for x in 1 2 $x; do {0}; {1}; done", "case $x in a|b) {0};; *) {1}; esac", "{0}; {1}", "{{ {0}\n}} && {1}; {2}"),
    *("if {0}; then {1}; elif {2}; then {0}; fi; {1}", "( {0} ) && {1}", "case $y in (a) {0} ;; 'b c') ;; esac\n{1}"),
)
TEXTS = 4_000
MOST_PIECES = 8
CALLED = (("w",), (":",), ("echo",), ("sed",), ("test",), ())  # the last one is an assignment
# A call of `w` writes its words to descriptor 9, with a NUL behind each, and one more at the end.
HEAD = "w() { for w_word do printf '%s\\0' \"$w_word\" >&9; done; printf '\\n\\0' >&9; }; exec 2>/dev/null\n"


def pieced(pieces: Sequence[str], begin: str) -> Callable[[random.Random], str]:
    return lambda rng: begin + "".join(rng.choices(pieces, k=rng.randint(1, MOST_PIECES)))


def constructed(rng: random.Random) -> str:
    """Return constructs in constructs, and sometimes a fault in them."""
    text = "x=a; y=d; " + nested(rng, rng.randint(1, 3))
    at = rng.randrange(len(text))
    return text if rng.random() < 0.7 else text[:at] + text[at + 1 :]


def nested(rng: random.Random, depth: int) -> str:
    if not depth:
        return rng.choice(SIMPLE)
    return rng.choice(CONSTRUCTS).format(*(nested(rng, rng.randrange(depth)) for _ in range(3)))


def simple_texts(rng: random.Random, make_text: Callable[[random.Random], str]) -> dict[str, tuple[SimpleCommand, ...]]:
    """Return random texts that are lists of calls of `w`, each with what was read in it."""
    found = {}
    for _ in range(TEXTS):
        text = make_text(rng)
        try:
            commands = parse_list(text)
        except NotSimple:
            continue
        # A shell may leave out the command behind `||`, and one without the file behind `<` or `>`.
        # The commands of a pipe run at the same time.
        if (
            "||" not in text.replace(PLACE, "").replace(EDITED, "")
            and "<" not in text.replace("<g ", "")
            and not any(command.is_piped for command in commands)
            and all(command.words[:1] in CALLED for command in commands)
            and not any("/" in name for command in commands for name in command.written)
        ):
            found[text] = tuple(command for command in commands if command.words[:1] == ("w",))
    return found


@pytest.mark.parametrize(
    "make_text",
    [pieced(PIECES, "w "), pieced(PIECES + 3 * VALUES, f"x=a; y={EDITED}; w "), constructed],
    ids=["plain", "values", "constructs"],
)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_shell_reads_the_same_words(shell: str, make_text: Callable[[random.Random], str], tmp_path: Path) -> None:
    texts = simple_texts(random.Random(1), make_text)
    (tmp_path / "g").write_text("")
    lines = [f"( eval {shlex.quote(text)} ) >/dev/null; printf '%s\\f\\0' $? >&9" for text in texts]
    script = tmp_path / "script"
    script.write_text(HEAD + "\n".join(lines))
    subprocess.run(["sh", "-c", f"exec {shell} {script} 9>{tmp_path}/words"], cwd=tmp_path, check=True)
    read = (tmp_path / "words").read_text().split("\f\0")[:-1]
    assert len(read) == len(texts)
    expected = [["\0".join([*command.words[1:], "\n\0"]) for command in found] for found in texts.values()]
    # If a text is none of its language, a shell ends with an error, and the job has no result.
    ended_well = [(text, words[:-1]) for text, words in zip(texts, read, strict=True) if words.endswith("0")]
    assert len(ended_well) > TEXTS / 40
    right = dict(zip(texts, expected, strict=True))
    assert [(text, words) for text, words in ended_well if not is_right(text, words, right[text])] == []


def is_right(text: str, words: str, calls: Sequence[str]) -> bool:
    """Return whether a shell has made these calls. It may have left some of a choice out."""
    if words == "".join(calls) or ("if " not in text and "case " not in text):
        return words == "".join(calls)
    waiting = iter(calls)
    return all(f"{made}\n\0" in waiting for made in words.split("\n\0")[:-1])


@pytest.mark.parametrize("name", ["src/ar.o", "ar.o", "a/b.c/x.y.o", "x.lo", "a.b", "./x.o", "a+b_c.o", ".o", "o/.o.o"])
def test_a_substitution_is_what_a_shell_makes_of_it(name: str) -> None:
    script = "s|[^/]*$|.deps/&|;s|\\.o$||"
    text = f"x=`echo {name} | sed '{script}'`; a $x"
    told = subprocess.run(["sh", "-c", text.replace("; a ", "; echo ")], capture_output=True, text=True, check=True)
    commands = parse_list(text)
    assert commands[-1] == SimpleCommand((), ("a", told.stdout.strip()), ())
    assert [one.words for one in commands[:2]] == [("echo", name), ("sed", script)]
    assert all(one.may_fail for one in commands[:-1])
