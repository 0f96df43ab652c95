"""Read the words and redirections of a shell's text, up to the end of one simple command.

A variable is read if the text itself has given it a value that is known. Everything else that
expands is refused, such as other variables, substitutions and patterns. The grammar is that of
POSIX, XCU chapter 2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from termite.engine.recall.known.shell_values import SAFE, substituted

# A quoted part, an escaped character, or characters that mean themselves anywhere in a word.
_PART = re.compile(r"'[^']*'|\"(?:[^\"\\$`]|\\.)*\"|\\.|[^\s;&|<>()$`\\\"'*?\[\]{}~#!]+|[\[\]{}~#!]", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.", re.DOTALL)
# What a shell puts something else for. A variable is read if its text needs no quotes. A name goes
# on behind a line break with a backslash.
_EXPANSION = re.compile(
    r"\$(?:(?P<name>[A-Za-z_]\w*)(?![\w\\])|\{(?P<long>[A-Za-z_]\w*)\})|`(?P<text>[^`\"\\]*(?:\\\.[^`\"\\]*)*)`",
    re.ASCII,
)
_OPERAND = re.compile(r"[A-Za-z0-9_./]")  # the first character of no option
_SAFE_WORD = re.compile(f"{SAFE}+")
_SIGN = re.compile(r"[\[\]{}~#!]")
BLANK = re.compile(r"(?:[ \t]|\\\n)+")
_END = re.compile(r"[;|\n)]|&&|\Z")  # of a simple command
_REDIRECTION = re.compile(r"(\d*)(>>|>\||>&|>(?!\()|<(?![<&>(]))(?:[ \t]|\\\n)*")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
# A shell does nothing of its own with the others, such as IFS and PATH.
LOCAL_NAME = re.compile(r"(?!histchars|auto_resume)[a-z][a-z0-9_]*")
_MEANT = frozenset(r"$`\"" + "\\\n")  # what a backslash escapes between double quotes
# Words that are no commands.
_RESERVED = re.compile(
    r"if|then|else|elif|fi|for|while|until|do|done|case|esac|in|select|function|time|coproc|[{}!]|\[\["
)
_NULL = "/dev/null"


class NotSimple(Exception):
    """A text has something that is not understood. The argument names the reason."""


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """One command of a list: its assignments, words, and the files that its output is written to.

    /dev/null and other descriptors are no such files. If it `may_fail`, the list may succeed
    although the command fails. If it `is_piped`, it runs at the same time as another one. `inner`
    has the words of commands that substitutions run before it; the commands of a list have none,
    because these stand before them.
    """

    assignments: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    written: tuple[str, ...]
    may_fail: bool = False
    is_piped: bool = False
    inner: tuple[tuple[str, ...], ...] = ()


class WordReader:
    """A reader of a text. `at` is where it goes on, and `variables` are those with known texts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.variables: dict[str, str] = {}
        self._inner: list[tuple[str, ...]] = []

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what matches, and return the match, or None if nothing does."""
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def read_command(self) -> SimpleCommand:
        """Read a simple command up to the operator behind it, and learn the variables that it sets.

        Raise NotSimple if there is something else.
        """
        assignments: list[tuple[str, str]] = []
        words: list[str] = []
        written: list[str] = []
        self._inner = []
        for word, is_assignment in self._words(written):
            if not words and is_assignment:
                name, _, value = word.partition("=")
                assignments.append((name, value))
            elif not words and _RESERVED.fullmatch(word):
                raise NotSimple(f"the word {word} of a shell")
            else:
                words.append(word)
        for name, value in assignments:
            self._learn(name, value if not words else "")
        return SimpleCommand(tuple(assignments), tuple(words), tuple(written), inner=tuple(self._inner))

    def _learn(self, name: str, value: str) -> None:
        if LOCAL_NAME.fullmatch(name) and _SAFE_WORD.fullmatch(value):
            self.variables[name] = value
        else:
            self.variables.pop(name, None)

    def set_variable(self, name: str, value: str) -> SimpleCommand:
        """Let a variable have a value as by an assignment, which is returned. Raise NotSimple."""
        if not (LOCAL_NAME.fullmatch(name) and _SAFE_WORD.fullmatch(value)):
            raise NotSimple(f"the variable {name}")
        self.variables[name] = value
        return SimpleCommand(((name, value),), (), ())

    def _words(self, written: list[str]) -> Iterator[tuple[str, bool]]:
        """Yield each word, and whether it begins as an assignment does. Files go to `written`."""
        while True:
            self.read_redirections(written)
            if _END.match(self.text, self.at):
                return
            is_assignment = _ASSIGNMENT.match(self.text, self.at) is not None
            yield self.read_word(), is_assignment

    def read_redirections(self, written: list[str]) -> None:
        """Read blanks and redirections, and add the files of output to `written`.

        Raise NotSimple if one of them is not understood.
        """
        while True:
            self.match(BLANK)
            redirection = self.match(_REDIRECTION)
            if redirection is None:
                return
            target = self.read_word()
            is_number = target.isdigit() and self.text[self.at : self.at + 1] in ("<", ">")
            if len(redirection[1]) > 1 or is_number:
                raise NotSimple("another descriptor")
            if redirection[2] == ">&":
                if target not in ("1", "2"):
                    raise NotSimple("another descriptor")
            elif target.startswith("/dev/") and target != _NULL:
                raise NotSimple(f"the file {target}")
            elif redirection[2] != "<" and target != _NULL:
                written.append(target)

    def read_word(self) -> str:
        """Return the next word without its quotes.

        Raise NotSimple if it expands to something unknown.
        """
        parts: list[str] = []
        start, raw = self.at, ""
        while True:
            if part := self.match(_PART):
                parts.append(_unquoted(part[0]))
                raw += part[0]
            elif part := self.match(_EXPANSION):
                parts.append(self._expanded(part, is_first=not raw))
                raw += "x"  # its text has no sign
            else:
                break
        if start == self.at or (self.at < len(self.text) and self.text[self.at] not in " \t\n;&|<>)"):
            raise NotSimple(f"the sign {self.text[self.at : self.at + 1]!r}")
        if self.text[self.at : self.at + 1] == "&" and self.text[self.at : self.at + 2] != "&&":
            raise NotSimple("a job in the background")
        # A bracket that nothing closes is one, as in `rm -f src/[`.
        if raw != "]" and _SIGN.search(_QUOTED.sub("", raw).removesuffix("[")):
            raise NotSimple(f"the pattern {raw}")
        return "".join(parts)

    def _expanded(self, part: re.Match[str], *, is_first: bool) -> str:
        """Return what a shell puts in the place of a variable or a substitution."""
        if part["text"] is None:
            name = part["name"] or part["long"]
            if name not in self.variables:
                raise NotSimple(f"the variable {name}")
            return self.variables[name]
        found = substituted(part["text"])
        is_operand = is_first and _OPERAND.match(self.text, self.at)
        if found is None or (found.is_prefix and not is_operand):
            raise NotSimple("a substitution")
        self._inner += found.commands
        return found.text


def _unquoted(part: str) -> str:
    if part.startswith("'"):
        return part[1:-1]
    if part.startswith('"'):
        return re.sub(r"\\(.)", lambda escaped: _unescaped(escaped[1]), part[1:-1], flags=re.DOTALL)
    if part.startswith("\\"):
        return part[1:].replace("\n", "")
    return part


def _unescaped(char: str) -> str:
    if char == "\n":
        return ""
    return char if char in _MEANT else "\\" + char
