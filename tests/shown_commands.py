"""Read the blocks of commands that the documents for users show, and compare what they print.

A fence `sh` has commands. A comment directly above it may say how it is run:

    <!-- test: daemon -->                it runs until the document ends; it prints that it is ready
    <!-- test: Ctrl-C -->                it is interrupted when it has printed a line
    <!-- test: exit code 0 or 104 -->
    <!-- test: on a terminal, exit at 2 prompts -->
    <!-- test: after a build with a missing dependency -->    PREPARATIONS of the test has such names
    <!-- test: not run, because REASON; FILE::TEST does it -->
    <!-- test: not run, because it needs sudo -->

Several of them may follow each other, with semicolons between. A block that is not run names a test
that does the same, or has sudo in it.

A fence `text` directly below the commands shows what they print, in any order of lines. `...`
stands for anything, and figures need not be the same.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs" / "use").glob("*.md"))]

_MARK = re.compile(r"<!-- test: (.*) -->", re.DOTALL)
_NOT_RUN = re.compile(r"not run, because [^;]{10,}")
_COVERED = re.compile(r"(tests/[\w/]+\.py::\w+) does it")
_EXIT_CODES = re.compile(r"exit code \d+( or \d+)*")
_TERMINAL = re.compile(r"on a terminal, exit at (\d+) prompts")
_AFTER = re.compile(r"after (.+)")
_NUMBER = r"(?<![\w])[+-]?\d+|\d+"
_UNIT = r"(?: ?(?:ms|s|bytes|KiB|MiB|GiB)\b)?"
_FIGURE = re.compile(rf"\d{{4}}-\d\d-\d\d[T ][\d:.]+Z?|(?:{_NUMBER})(?:\.\d+)?{_UNIT}")


class How(Enum):
    """The way in which a block of commands is run."""

    TO_ITS_END = "to its end"
    NOT = "not"
    DAEMON = "daemon"
    CTRL_C = "Ctrl-C"
    ON_TERMINAL = "on a terminal"


@dataclass(frozen=True, slots=True)
class Mark:
    """The words of a comment above a block.

    `prompts` is how often `exit` is typed on a terminal. `after` is the name of a preparation, or
    "". `covered_by` is the file and the name of the test that does what a block shows that is not
    run, or "".
    """

    how: How = How.TO_ITS_END
    codes: frozenset[int] = frozenset({0})
    prompts: int = 0
    after: str = ""
    covered_by: str = ""


@dataclass(frozen=True, slots=True)
class ShownCommands:
    """A block of commands. `line` is that of its fence, from 1.

    `prints` is None if the document does not show what they print.
    """

    line: int
    script: str
    mark: Mark
    prints: str | None

    @property
    def how(self) -> How:
        """The way in which the block is run."""
        return self.mark.how

    def missing_from(self, printed: str) -> list[str]:
        """Return the shown lines that `printed` does not have."""
        have = [_general(line) for line in printed.splitlines()]
        shown = [line for line in (self.prints or "").splitlines() if line.strip() != "..."]
        return [line for line in shown if not any(_pattern(line).fullmatch(each) for each in have)]


def shown_commands(text: str) -> Iterator[ShownCommands]:
    """Yield the blocks of commands of a document. Raise ValueError for a mark without meaning."""
    tokens = [token for token in MarkdownIt("commonmark").enable("table").parse(text) if token.nesting == 0]
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.type == "fence" and token.info == "sh":
            line = token.map[0] + 1 if token.map else 0
            prints = after.content if after and after.type == "fence" and after.info == "text" else None
            yield ShownCommands(line, token.content, _mark(before), prints)


def _mark(before: Token | None) -> Mark:
    found = _MARK.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
    mark = Mark()
    for words in " ".join(found[1].split()).replace(":: ", "::").split("; ") if found else ():
        if _NOT_RUN.fullmatch(words):
            mark = replace(mark, how=How.NOT, codes=frozenset())
        elif covered := _COVERED.fullmatch(words):
            mark = replace(mark, covered_by=covered[1])
        elif _EXIT_CODES.fullmatch(words):
            mark = replace(mark, codes=frozenset(map(int, re.findall(r"\d+", words))))
        elif terminal := _TERMINAL.fullmatch(words):
            mark = replace(mark, how=How.ON_TERMINAL, prompts=int(terminal[1]))
        elif after := _AFTER.fullmatch(words):
            mark = replace(mark, after=after[1])
        else:
            mark = replace(mark, how=How(words))
    return mark


def _general(line: str) -> str:
    """Return a line without its figures, and with single spaces."""
    return " ".join(_FIGURE.sub("#", line).split())


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, _general(line).split("..."))))
