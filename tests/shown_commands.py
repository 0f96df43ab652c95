"""Read the blocks of commands that the documents for users show, and compare what they print.

A fence `sh` has commands. A comment directly above it may say how it is run:

    <!-- test: not run, because REASON -->
    <!-- test: daemon -->                it runs until the document ends; it prints that it is ready
    <!-- test: Ctrl-C -->                it is interrupted when it has printed a line
    <!-- test: exit code 0 or 104 -->

A fence `text` directly below the commands shows what they print, in any order of lines. `...`
stands for anything, and figures need not be the same.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs" / "use").glob("*.md"))]

_MARK = re.compile(r"<!-- test: (.*) -->")
_NOT_RUN = re.compile(r"not run, because .{10,}")
_EXIT_CODES = re.compile(r"exit code \d+( or \d+)*")
_NUMBER = r"(?<![\w])[+-]?\d+|\d+"
_UNIT = r"(?: ?(?:ms|s|bytes|KiB|MiB|GiB)\b)?"
_FIGURE = re.compile(rf"\d{{4}}-\d\d-\d\d[T ][\d:.]+Z?|(?:{_NUMBER})(?:\.\d+)?{_UNIT}")


class How(Enum):
    """The way in which a block of commands is run."""

    TO_ITS_END = "to its end"
    NOT = "not"
    DAEMON = "daemon"
    CTRL_C = "Ctrl-C"


@dataclass(frozen=True, slots=True)
class ShownCommands:
    """A block of commands. `line` is that of its fence, from 1.

    `prints` is None if the document does not show what they print.
    """

    line: int
    script: str
    how: How
    codes: frozenset[int]
    prints: str | None

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
            how, codes = _mark(before)
            line = token.map[0] + 1 if token.map else 0
            prints = after.content if after and after.type == "fence" and after.info == "text" else None
            yield ShownCommands(line, token.content, how, codes, prints)


def _mark(before: Token | None) -> tuple[How, frozenset[int]]:
    found = _MARK.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
    words = found[1] if found else ""
    if not words:
        return How.TO_ITS_END, frozenset({0})
    if _NOT_RUN.fullmatch(words):
        return How.NOT, frozenset()
    if _EXIT_CODES.fullmatch(words):
        return How.TO_ITS_END, frozenset(map(int, re.findall(r"\d+", words)))
    return How(words), frozenset({0})


def _general(line: str) -> str:
    """Return a line without its figures, and with single spaces."""
    return " ".join(_FIGURE.sub("#", line).split())


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, _general(line).split("..."))))
