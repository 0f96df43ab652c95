"""Read simple lists of commands as a shell does: words, quotes, redirections, `&&`, `||` and `;`.

A variable is read if the list itself has given it a text that is known. Everything else that
expands is refused, such as other variables, substitutions and patterns. Pipes, loops, functions and
jobs in the background are refused, too. A construct that is not understood is never a fault: nobody
vouches for its command then. The grammar is that of POSIX, XCU chapter 2.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

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
_BLANK = re.compile(r"(?:[ \t]|\\\n)+")
_OPERATOR = re.compile(r"&&|\|\||;(?!;)|\n\s*")
_REDIRECTION = re.compile(r"(\d*)(>>|>\||>&|>(?!\()|<(?![<&>(]))(?:[ \t]|\\\n)*")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
# A shell does nothing of its own with the others, such as IFS and PATH.
LOCAL_NAME = re.compile(r"(?!histchars|auto_resume)[a-z][a-z0-9_]*")
_MEANT = frozenset(r"$`\"" + "\\\n")  # what a backslash escapes between double quotes
# Words that are no commands.
_RESERVED = re.compile("if|then|else|elif|fi|for|while|until|do|done|case|esac|in|select|function|time|coproc")
_NULL = "/dev/null"
MOST_CHARS = 1 << 17


class NotSimple(Exception):
    """A text is no simple list of commands. The argument names the reason."""


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """One command of a list: its assignments, words, and the files that its output is written to.

    /dev/null and other descriptors are no such files. If it `may_fail`, the list may succeed
    although the command fails. `inner` has the words of commands that substitutions run before it;
    the commands of a list have none, because these stand before them.
    """

    assignments: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    written: tuple[str, ...]
    may_fail: bool = False
    inner: tuple[tuple[str, ...], ...] = ()


def parse_list(text: str, *, ends_on_error: bool = False) -> tuple[SimpleCommand, ...]:
    """Return the commands of a list. Raise NotSimple if it has anything else.

    `ends_on_error`: the shell has the option -e.
    """
    if len(text) > MOST_CHARS:
        raise NotSimple("a very long command")
    parts: list[list[SimpleCommand]] = [[]]  # between semicolons
    has_or, begun = [False], 0
    variables: dict[str, str] = {}
    while begun < len(text):
        reader = _Reader(text, begun, variables)
        command = reader.read()
        begun = reader.at
        if command.words or command.written or command.assignments:
            _learn(variables, command, is_certain=not parts[-1])
            parts[-1].append(command)
        has_or[-1] |= reader.operator == "||"
        if parts[-1] and reader.operator not in ("&&", "||"):
            parts.append([])
            has_or.append(False)
    commands: list[SimpleCommand] = []
    count = sum(map(bool, parts))
    for number, (part, is_choice) in enumerate(zip(parts, has_or, strict=True), 1):
        is_told = number == count or (ends_on_error and len(part) == 1)  # -e forgives the others of `a && b`
        for command in part:
            commands += [SimpleCommand((), words, (), may_fail=True) for words in command.inner]
            commands.append(replace(command, may_fail=is_choice or not is_told, inner=()))
        ends_on_error |= any(command.words == ("set", "-e") for command in part)
    return tuple(commands)


def _learn(variables: dict[str, str], command: SimpleCommand, *, is_certain: bool) -> None:
    """Note the variables that a command of a list sets, and forget those whose text is doubtful.

    `is_certain`: no `&&` or `||` before it decides whether it runs.
    """
    for name, value in command.assignments:
        if is_certain and not command.words and LOCAL_NAME.fullmatch(name) and _SAFE_WORD.fullmatch(value):
            variables[name] = value
        else:
            variables.pop(name, None)


class _Reader:
    """A reader of one command of a list.

    `at` is where the next one begins, and `operator` stands before that one. `variables` are those
    whose texts are known.
    """

    def __init__(self, text: str, at: int, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._inner: list[tuple[str, ...]] = []
        self.at = at
        self.operator = ""

    def read(self) -> SimpleCommand:
        assignments: list[tuple[str, str]] = []
        words: list[str] = []
        written: list[str] = []
        for word, is_assignment in self._words(written):
            if not words and is_assignment:
                name, _, value = word.partition("=")
                assignments.append((name, value))
            elif not words and _RESERVED.fullmatch(word):
                raise NotSimple(f"the word {word} of a shell")
            else:
                words.append(word)
        return SimpleCommand(tuple(assignments), tuple(words), tuple(written), inner=tuple(self._inner))

    def _words(self, written: list[str]) -> Iterator[tuple[str, bool]]:
        """Yield each word, and whether it begins as an assignment does. Files go to `written`."""
        while True:
            self._match(_BLANK)
            operator = self._match(_OPERATOR)
            if operator or self.at >= len(self._text):
                self.operator = operator[0].strip() if operator else ""
                self._match(_BLANK)
                return
            redirection = self._match(_REDIRECTION)
            if redirection is None:
                is_assignment = _ASSIGNMENT.match(self._text, self.at) is not None
                yield self._word(), is_assignment
                continue
            target = self._word()
            is_number = target.isdigit() and self._text[self.at : self.at + 1] in ("<", ">")
            if len(redirection[1]) > 1 or is_number:
                raise NotSimple("another descriptor")
            if redirection[2] == ">&":
                if target not in ("1", "2"):
                    raise NotSimple("another descriptor")
            elif target.startswith("/dev/") and target != _NULL:
                raise NotSimple(f"the file {target}")
            elif redirection[2] != "<" and target != _NULL:
                written.append(target)

    def _word(self) -> str:
        """Return the next word without its quotes."""
        parts: list[str] = []
        start, raw = self.at, ""
        while True:
            if part := self._match(_PART):
                parts.append(_unquoted(part[0]))
                raw += part[0]
            elif part := self._match(_EXPANSION):
                parts.append(self._expanded(part, is_first=not raw))
                raw += "x"  # its text has no sign
            else:
                break
        if start == self.at or (self.at < len(self._text) and self._text[self.at] not in " \t\n;&|<>"):
            raise NotSimple(f"the sign {self._text[self.at : self.at + 1]!r}")
        if self._text[self.at : self.at + 1] in ("&", "|") and not _OPERATOR.match(self._text, self.at):
            raise NotSimple("a pipe or a job in the background")
        if raw not in ("[", "]") and _SIGN.search(_QUOTED.sub("", raw)):
            raise NotSimple(f"the pattern {raw}")
        return "".join(parts)

    def _expanded(self, part: re.Match[str], *, is_first: bool) -> str:
        """Return what a shell puts in the place of a variable or a substitution."""
        if part["text"] is None:
            name = part["name"] or part["long"]
            if name not in self._variables:
                raise NotSimple(f"the variable {name}")
            return self._variables[name]
        found = substituted(part["text"])
        is_operand = is_first and _OPERAND.match(self._text, self.at)
        if found is None or (found.is_prefix and not is_operand):
            raise NotSimple("a substitution")
        self._inner += found.commands
        return found.text

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self.at)
        if found is not None:
            self.at = found.end()
        return found


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
