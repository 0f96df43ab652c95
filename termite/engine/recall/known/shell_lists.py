"""Read lists of commands as a shell does: `&&`, `||`, `;`, pipes, groups, `if`, `case` and `for`.

All commands that may run are returned, in the order of the text. Loops but for `for`, functions and
jobs in the background are refused. A construct that is not understood is never a fault: nobody
vouches for its command then. The grammar is that of POSIX, XCU chapter 2.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from termite.engine.recall.known.shell_values import SAFE
from termite.engine.recall.known.shell_words import BLANK, NotSimple, SimpleCommand, WordReader

MOST_CHARS = 1 << 17
MOST_COMMANDS = 20_000  # loops in loops have many
MOST_DEPTH = 20

_SEPARATORS = re.compile(r"(?:[ \t\n]|\\\n|;(?!;))+")
_NEWLINES = re.compile(r"(?:[ \t\n]|\\\n)+")
_AND_OR = re.compile(r"&&|\|\|")
_PIPE = re.compile(r"\|(?!\|)")
_BEFORE_END = re.compile(r"[;\n)]|\Z")
_KEYWORD = re.compile(r"(?:if|then|else|elif|fi|for|do|done|case|esac|[{}!])(?=[ \t\n;)]|\Z)")
_SUBSHELL = re.compile(r"\((?!\()")
_CLOSED = re.compile(r"\)")
_NEXT_CASE = re.compile(r";;")
_LOOP_HEAD = re.compile(r"[ \t]+([a-z][a-z0-9_]*)[ \t]+in[ \t]+")
_CASE_HEAD = re.compile(rf"[ \t]+(?:{SAFE}+|'[^']*'|(\"?)\$\{{?[A-Za-z_]\w*\}}?\1)[ \t\n]+in(?=[ \t\n])", re.ASCII)
_CASE_PATTERN = re.compile(r"\(?[^()<>;&`$\"\\#\n]+\)")


def parse_list(text: str, *, ends_on_error: bool = False) -> tuple[SimpleCommand, ...]:
    """Return the commands of a list. Raise NotSimple if it has anything else.

    `ends_on_error`: the shell has the option -e.
    """
    if len(text) > MOST_CHARS:
        raise NotSimple("a very long command")
    return tuple(_Parser(text).parse({""}, ends_on_error=ends_on_error))


class _Parser:
    """A parser of one text.

    Each method reads a construct and returns its commands. Those that may fail although the
    construct succeeds are marked.
    """

    def __init__(self, text: str) -> None:
        self._reader = WordReader(text)
        self._count = 0
        self._depth = 0

    def parse(self, ends: Collection[str], *, ends_on_error: bool = False) -> list[SimpleCommand]:
        """Read a list up to one of the keywords or signs `ends`, which is not read."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise NotSimple("a deep command")
        reader, parts = self._reader, list[list[SimpleCommand]]()
        while True:
            reader.match(_SEPARATORS)
            if self._is_at(ends):
                break
            parts.append(self._parse_choice())
            reader.match(BLANK)
            if not _BEFORE_END.match(reader.text, reader.at):
                raise NotSimple(f"the sign {reader.text[reader.at : reader.at + 1]!r}")
        self._depth -= 1
        commands: list[SimpleCommand] = []
        for number, part in enumerate(parts, 1):
            is_told = number == len(parts) or (ends_on_error and _is_one(part))  # -e forgives the others of `a && b`
            commands += part if is_told else _unseen(part)
            ends_on_error |= _is_one(part) and part[-1].words == ("set", "-e")
        return commands

    def _is_at(self, ends: Collection[str]) -> bool:
        reader = self._reader
        if reader.at >= len(reader.text):
            if "" not in ends:
                raise NotSimple("a list without its end")
            return True
        found = _KEYWORD.match(reader.text, reader.at) or _NEXT_CASE.match(reader.text, reader.at)
        return (found[0] if found else reader.text[reader.at]) in ends

    def _parse_choice(self) -> list[SimpleCommand]:
        """Read pipelines between which are `&&` and `||`."""
        nodes, operators = [self._parse_pipeline()], list[str]()
        while True:
            self._reader.match(BLANK)
            if not (found := self._reader.match(_AND_OR)):
                break
            self._reader.match(_NEWLINES)
            operators.append(found[0])
            nodes.append(self._parse_doubtful(self._parse_pipeline))
        is_told = _ends_the_shell(nodes, operators) or _makes_directory(nodes, operators)
        # If one fails, the command behind the next `||` may succeed.
        last = max((at for at, operator in enumerate(operators) if operator == "||"), default=-1)
        commands: list[SimpleCommand] = []
        for at, node in enumerate(nodes):
            commands += _unseen(node) if at <= last and not is_told else node
        return commands

    def _parse_doubtful(self, parse: Callable[[], list[SimpleCommand]]) -> list[SimpleCommand]:
        """Read what may not run.

        Afterwards a variable is known only if it has the same text in any case.
        """
        before = dict(self._reader.variables)
        commands = parse()
        now = self._reader.variables
        self._reader.variables = {name: text for name, text in before.items() if now.get(name) == text}
        return commands

    def _parse_apart(self, parse: Callable[[], list[SimpleCommand]]) -> list[SimpleCommand]:
        """Read what a shell of its own runs. Its variables are not seen afterwards."""
        before = dict(self._reader.variables)
        commands = parse()
        self._reader.variables = before
        return commands

    def _parse_pipeline(self) -> list[SimpleCommand]:
        before = dict(self._reader.variables)
        parts = [self._parse_command()]
        while self._reader.match(_PIPE):  # no blank is before it: a command has read them all
            self._reader.match(_NEWLINES)
            self._reader.variables = dict(before)
            parts.append(self._parse_command())
        if len(parts) == 1:
            return parts[0]
        self._reader.variables = before
        unseen = [command for part in parts[:-1] for command in _unseen(part)]
        return [replace(command, is_piped=True) for command in (*unseen, *parts[-1])]

    def _parse_command(self) -> list[SimpleCommand]:
        reader = self._reader
        self._count += 1
        if self._count > MOST_COMMANDS:
            raise NotSimple("a very long command")
        if reader.match(_SUBSHELL):
            commands = self._parse_apart(lambda: self.parse({")"}))
            reader.match(_CLOSED)
            return self._redirected(commands)
        if not (keyword := reader.match(_KEYWORD)):
            begin, command = reader.at, reader.read_command()
            if not reader.text[begin : reader.at].strip():
                raise NotSimple(f"the sign {reader.text[begin : begin + 1]!r}")
            inner = [SimpleCommand((), words, (), may_fail=True) for words in command.inner]
            return [*inner, replace(command, inner=())] if inner else [command]
        if keyword[0] == "{":
            commands = self.parse({"}"})
            reader.match(_KEYWORD)
        elif keyword[0] == "if":
            commands = self._parse_if()
        elif keyword[0] == "for":
            commands = self._parse_loop()
        elif keyword[0] == "case":
            commands = self._parse_case()
        else:
            raise NotSimple(f"the word {keyword[0]} of a shell")
        return self._redirected(commands)

    def _redirected(self, commands: list[SimpleCommand]) -> list[SimpleCommand]:
        """Read the redirections of a construct, which are those of its commands, too."""
        written: list[str] = []
        self._reader.read_redirections(written)
        return [replace(command, written=(*command.written, *written)) for command in commands] if written else commands

    def _parse_if(self) -> list[SimpleCommand]:
        commands = _unseen(self.parse({"then"}))
        while (keyword := self._keyword()) != "fi":
            if keyword == "elif":
                commands += _unseen(self._parse_doubtful(lambda: self.parse({"then"})))
            else:
                ends = {"fi"} if keyword == "else" else {"elif", "else", "fi"}
                commands += self._parse_doubtful(lambda: self.parse(ends))  # noqa: B023 - it is called at once
        return commands

    def _parse_loop(self) -> list[SimpleCommand]:
        """Read a loop over words, and return its commands as often as they run."""
        reader = self._reader
        if not (head := reader.match(_LOOP_HEAD)):
            raise NotSimple("a loop of a shell")
        values = []
        while not _BEFORE_END.match(reader.text, reader.at):
            values.append(reader.read_word())
            reader.match(BLANK)
        reader.match(_SEPARATORS)
        if self._keyword() != "do" or not values:
            raise NotSimple("a loop of a shell")
        begin, turns = reader.at, list[list[SimpleCommand]]()
        for value in values:
            reader.at = begin
            turns.append([reader.set_variable(head[1], value), *self.parse({"done"})])
        self._keyword()
        return [*(command for turn in turns[:-1] for command in _unseen(turn)), *turns[-1]]

    def _parse_case(self) -> list[SimpleCommand]:
        reader, commands = self._reader, list[SimpleCommand]()
        if not reader.match(_CASE_HEAD):
            raise NotSimple("a case of a shell")
        while True:
            reader.match(_NEWLINES)
            if self._is_at({"esac"}):
                self._keyword()
                return commands
            if not reader.match(_CASE_PATTERN):
                raise NotSimple("a case of a shell")
            commands += self._parse_doubtful(lambda: self.parse({";;", "esac"}))
            reader.match(_NEXT_CASE)

    def _keyword(self) -> str:
        found = self._reader.match(_KEYWORD)
        if found is None:
            raise NotSimple("a list without its end")
        return found[0]


def _is_one(part: Sequence[SimpleCommand]) -> bool:
    """Return whether a part is one command, perhaps with those of its substitutions."""
    return len(part) == 1


def _unseen(commands: Sequence[SimpleCommand]) -> list[SimpleCommand]:
    return [replace(command, may_fail=True) for command in commands]


def _ends_the_shell(nodes: Sequence[Sequence[SimpleCommand]], operators: Sequence[str]) -> bool:
    """Return whether a choice is `a && b || exit 1`: the shell fails if one of them does."""
    last = nodes[-1][0].words if len(nodes[-1]) == 1 else ()
    is_exit = len(last) == 2 and last[0] == "exit" and re.fullmatch("[1-9][0-9]?", last[1]) is not None
    return is_exit and operators.count("||") == 1 and operators[-1] == "||"


def _makes_directory(nodes: Sequence[Sequence[SimpleCommand]], operators: Sequence[str]) -> bool:
    """Return whether a choice is `mkdir a || test -d a`: it fails unless the directory is there."""
    if list(operators) != ["||"] or any(len(node) != 1 for node in nodes):
        return False
    make, look = (node[0] for node in nodes)
    looked = look.words[:-1] if look.words[:1] == ("[",) else look.words
    return (
        make.words in (("mkdir", *looked[2:]), ("mkdir", "-p", *looked[2:]))
        and looked[1:2] == ("-d",)
        and (look.words[0] in ("test", "[") and len(looked) == 3)
    )
