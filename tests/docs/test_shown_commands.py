"""The documents for users: each block is of a known kind, and each command in the text exists.

tests/e2e/test_shown_commands.py runs the blocks.
"""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from termite.cli.subcommands.registry import FOLDERS, subcommand_parser
from termite.engine.decide.logic.rules import parse_rules
from tests.docs.test_reference import PARSERS
from tests.shown_commands import CHECKOUT, DOCUMENTS, How, Mark, ShownCommands, shown_commands

LANGUAGES = {"sh", "text", "python", "toml", "yaml"}
CODE = re.compile(r"`([^`\n]+)`")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@every_document
def test_each_block_says_what_it_is(document: Path) -> None:
    """A block that is only indented would hide its commands from the test that runs them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(document.read_text())
    assert [token.content for token in tokens if token.type == "code_block"] == []
    assert {token.info for token in tokens if token.type == "fence"} <= LANGUAGES


def test_most_blocks_are_run() -> None:
    blocks = [block for document in DOCUMENTS for block in shown_commands(document.read_text())]
    assert len(blocks) > 40
    assert len([block for block in blocks if block.how is How.NOT]) < len(blocks) / 6


@every_document
def test_each_block_that_is_not_run_needs_root_or_names_the_test_that_does_the_same(document: Path) -> None:
    for block in shown_commands(document.read_text()):
        file, _, name = block.mark.covered_by.partition("::")
        if file:
            assert f"\ndef {name}(" in (CHECKOUT / file).read_text(), block
        elif block.how is How.NOT:
            assert re.search(r"^sudo ", block.script, re.MULTILINE), block


PROGRAM = re.compile(r"termite(-[a-z]+)?")
PROGRAMS = {f"termite{end}" for end in ("", "-shell", "-sandbox", "-front-end", "-redo", "-ctl")} | set(PARSERS)
FRONT_ENDS = {f"termite-{tool}" for tool in ("make", "ninja", "cmake", "build")}
# What stands before a command, or is no word of its own: an assignment, a redirection.
NO_WORD = re.compile(r"[A-Z_]+=.*|\d?[<>].*|&|2>&1")


def simple_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line, without assignments, sudo and directories."""
    parser = shlex.shlex(line, posix=True, punctuation_chars="|;()")
    parser.whitespace_split = True
    words: list[str] = []
    for word in [*parser, ";"]:
        if word in ("|", ";", "&&", "||", "(", ")", "!", "do", "then"):
            if words:
                yield words
            words = []
        elif not (NO_WORD.fullmatch(word) or (word in ("sudo", "exec", "$") and not words)):
            words.append(word if words else word.rpartition("/")[2])


def parser_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]] | None:
    """Return the parser of a command line of termite's own, and the words that it parses."""
    if words[0] in FRONT_ENDS:
        return None
    assert not PROGRAM.fullmatch(words[0]) or words[0] in PROGRAMS, f"there is no program {words[0]}"
    is_of_ctl = words[0] == "termite-ctl" and len(words) > 1 and re.match("[a-z]", words[1])
    if is_of_ctl and words[1] != "help":
        assert words[1] in FOLDERS, f"termite-ctl has no command {words[1]}"
        return subcommand_parser(words[1]), words[2:]
    return (PARSERS[words[0]](), words[1:]) if words[0] in PARSERS else None


def unknown_flags(line: str) -> list[str]:
    """Return the flags of termite's own commands in a line that their parsers do not know."""
    try:
        commands = list(simple_commands(line))
    except ValueError:  # a part of a quoted text of several lines
        return []
    return [flag for words in commands for flag in unknown_flags_of(words)]


def unknown_flags_of(words: list[str]) -> list[str]:
    own = [word for word in words if word.startswith("--termite") or word == "--at"]
    if words[0] in FRONT_ENDS:
        return [flag for flag in own if flag not in ("--termite-help", "--at")]
    found = parser_of(words)
    if found is None or words[:2] == ["termite-ctl", "why"]:
        return []
    known = {option.lstrip("-") for option in found[0]._option_string_actions}  # argparse has no other list
    rest = found[1][: found[1].index("--")] if "--" in found[1] else found[1]
    flags = [word for word in rest if re.match(r"\[?--?[a-z]", word)]
    return [flag for flag in flags if flag.strip("[]").lstrip("-").partition("=")[0] not in known]


def commands_in(document: Path) -> Iterator[str]:
    """Yield the command lines in the text and the blocks of a document."""
    text = document.read_text()
    yield from (code.replace("\\|", "|") for code in CODE.findall(text))
    for block in shown_commands(text):
        yield from block.script.splitlines()


@every_document
def test_each_command_and_each_flag_in_the_text_exists(document: Path) -> None:
    assert {command: flags for command in commands_in(document) if (flags := unknown_flags(command))} == {}


@every_document
def test_each_rule_in_the_text_is_one(document: Path) -> None:
    for code in CODE.findall(document.read_text()):
        if code.startswith("{") and "Regexp" in code:
            assert len(parse_rules(f"[{code}]")) == 1


def test_a_flag_that_does_not_exist_is_found() -> None:
    assert unknown_flags("termite-ctl jobs -slowest 3 -fast") == ["-fast"]
    assert unknown_flags("termite-worker -cache-sise 3G") == ["-cache-sise"]
    assert unknown_flags("cd x && sudo ./termite-ctl doctor -quick | cat") == ["-quick"]
    assert unknown_flags("TERMITE_VERBOSE=1 termite-make --termite-hlp -j4") == ["--termite-hlp"]
    assert unknown_flags("termite-ctl shell 12 -- env -i") == []
    with pytest.raises(AssertionError, match="no command jbos"):
        unknown_flags("A=b termite-ctl jbos")
    with pytest.raises(AssertionError, match="no program termite-mke"):
        unknown_flags("(cd x; termite-mke -j4)")


DOCUMENT = """\
Text.

<!-- test: exit code 0 or 104 -->
```sh
doctor
```

```text
ok  a job ran in 81 ms
...
at /home/you: token=... (Ctrl-C)
```

1. In a list:

   <!-- test: daemon -->
   ```sh
   serve
   ```

   It prints nothing.

<!-- test: not run, because it needs another machine;
     tests/e2e/test_x.py::test_y does it -->
```sh
scp a b:
```

<!-- test: after a fall; on a terminal, exit at 2 prompts; exit code 3 -->
```sh
ask
```
"""


def test_blocks_are_read_with_their_marks_and_their_output() -> None:
    first, second, third, fourth = shown_commands(DOCUMENT)
    assert (first.line, first.script, first.mark) == (4, "doctor\n", Mark(codes=frozenset({0, 104})))
    assert (second.script, second.how, second.prints) == ("serve\n", How.DAEMON, None)
    assert (third.how, third.mark.covered_by) == (How.NOT, "tests/e2e/test_x.py::test_y")
    assert fourth.mark == Mark(How.ON_TERMINAL, frozenset({3}), prompts=2, after="a fall")
    with pytest.raises(ValueError, match="slowly"):
        list(shown_commands("<!-- test: slowly -->\n```sh\ntrue\n```\n"))


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        ("ok a job ran in 1.5 s\nat /home/you: token=abc (Ctrl-C)\n", []),
        ("more\nat /home/you: token=abc (Ctrl-C)\nok     a job ran in 12 ms\n", []),
        ("ok a job ran in 1.5 s\n", ["at /home/you: token=... (Ctrl-C)"]),
        ("a job ran in 1.5 s\nat /home/you: token=abc (Ctrl-C)\n", ["ok  a job ran in 81 ms"]),
    ],
)
def test_what_is_printed_may_differ_in_figures_only(printed: str, missing: list[str]) -> None:
    (first, *_) = shown_commands(DOCUMENT)
    assert first.missing_from(printed) == missing


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("2026-11-30 07:08:55.612 INFO lease", "2027-01-01 00:00:00.000 INFO lease"),
        ('"time": "2026-11-30T07:10:11.774Z"', '"time": "2027-01-01T00:00:00.000Z"'),
        ("its clock differs by +0 ms", "its clock differs by -12 ms"),
        ("0.0 jobs/s, 0 bytes/s sent", "1.5 jobs/s, 2.3 KiB/s sent"),
        ("used 69.1 GiB", "used 512 MiB"),
    ],
)
def test_figures_with_their_units_are_alike(shown: str, printed: str) -> None:
    block = ShownCommands(1, "", Mark(), shown)
    assert block.missing_from(printed) == []


def test_the_documents_are_those_for_users() -> None:
    names = {str(path.relative_to(CHECKOUT)) for path in DOCUMENTS}
    assert {"README.md", "docs/use/README.md", "docs/use/troubleshooting.md"} <= names
