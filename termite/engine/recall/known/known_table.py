"""Judge whether the result of a command may be used again after one execution.

The table has the known tools of the plugins. A command is known if each of the tools that it calls
is vouched for, and if it really executed the programs of these tools. The trace has the programs,
and their files are searched for marks. A wrapper of the same name has none.
"""

import functools
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase, translate

from termite.engine.decide.known_tools import KnownTool, ToolCall, Vouch
from termite.engine.paths import is_within, split
from termite.engine.recall.known.shell_tools import SHELL_TOOLS, SPECIAL_BUILTINS, shell_commands, started_words
from termite.engine.recall.known.shell_words import LOCAL_NAME, NotSimple, SimpleCommand
from termite.engine.recall.logic.dependencies import MADE_BY_SANDBOX, DependencySet
from termite.engine.recall.logic.interpreters import ELF_HEAD
from termite.engine.recall.logic.tree_facts import TreeFacts, UnservedDirectory
from termite.engine.recall.logic.uses import EXEC, READ, WHOLE
from termite.engine.recall.look_up.evidence import Shape
from termite.engine.recall.look_up.fingerprints import CommandIdentity
from termite.engine.recall.look_up.stored_rows import ResultRow

# They make the loader run other code in each program, or tell process ids.
_LOADER_VARIABLES = ("LD_PRELOAD", "LD_AUDIT", "LD_DEBUG", "LD_PROFILE")
_READ_OR_WHOLE = READ | WHOLE
# Two runs on one day are equal if a text has the date only.
_CLOCKS = (b"__DATE__", b"__TIME__")
_LIBRARY = re.compile(rb".*\.so(?:\.[0-9.]+)?")


@dataclass(frozen=True, slots=True)
class Known:
    """The result may be used whenever its inputs are the same.

    If it `is_blind`, the times of its inputs do not matter. `entries` are those of the table that
    vouch for it. A ResultRow has both.
    """

    is_blind: bool
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotKnown:
    """The result has to prove itself, for a reason for people.

    If `is_tool_known`, the table has the tool, but nobody vouches for these words or inputs.
    `clock` is a file with a macro for the date or the time, or b"". `blind` are the entries that
    vouch that the times of its inputs do not matter, or ().
    """

    reason: str
    is_tool_known: bool = False
    clock: bytes = b""
    blind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """All that is known of a command that has ended with 0.

    `messages` is all that it wrote to its standard output and error.
    """

    identity: CommandIdentity
    dependencies: DependencySet
    messages: bytes


class _NotVouched(Exception):
    """Nobody vouches for a command. The first argument is the reason.

    `clock` is that of NotKnown.
    """

    def __init__(self, reason: str, clock: bytes = b"") -> None:
        super().__init__(reason)
        self.clock = clock


class KnownTable:
    """The known tools, by the names of their commands and programs.

    `refused` has the names of entries that cannot be used, each with the error of its regexp.
    """

    def __init__(self, tools: Iterable[KnownTool]) -> None:
        """Take the tools of the plugins.

        Entries with the same name are left out, and those whose names are no regexps.
        """
        found: dict[str, list[KnownTool]] = {}
        self.refused: list[tuple[str, str]] = []
        for tool in (*SHELL_TOOLS, *tools):
            if error := _regexp_error(tool):
                self.refused.append((tool.name, error))
            else:
                found.setdefault(tool.name, []).append(tool)
        self.tools: Mapping[str, KnownTool] = {name: same[0] for name, same in found.items() if len(same) == 1}
        self._called: dict[str, KnownTool | None] = {}

    def tool_called(self, name: str) -> KnownTool | None:
        """Return the tool that a command of this name calls, or None if no or more than one is."""
        if name not in self._called:
            fitting = [tool for tool in self.tools.values() if re.fullmatch(tool.called, name)]
            self._called[name] = fitting[0] if len(fitting) == 1 else None
        return self._called[name]

    def below(self, tools: Iterable[KnownTool]) -> dict[str, KnownTool]:
        """Return the tools, and those that they may execute."""
        found: dict[str, KnownTool] = {}
        waiting = list(tools)
        while waiting:
            tool = waiting.pop()
            if tool.name not in found:
                found[tool.name] = tool
                waiting += [self.tools[name] for name in tool.helpers if name in self.tools]
        return found

    def still_vouches(self, row: ResultRow) -> bool:
        """Return whether this table has the entries that vouched for a stored result."""
        return self._has_entries(row.known)

    def _has_entries(self, entries: Collection[str]) -> bool:
        return bool(entries) and all(
            (tool := self.tools.get(entry.partition(" ")[0])) is not None and _named(tool) == entry for entry in entries
        )

    def is_vouched_blind(self, row: ResultRow, shape: Shape) -> bool:
        """Return whether the times of inputs do not matter for a stored result.

        Evidence of its shape goes before the table.
        """
        if shape.sees_times or shape.refused:
            return False
        return (row.is_known_blind and self.still_vouches(row)) or self._has_entries(row.blind_by)


def proof_of_table(table: KnownTable, command: CommandFacts, facts: TreeFacts) -> Known | NotKnown:
    """Return whether the table vouches for the result of a command, before it is published.

    Raise FactsMissing if a fact of the tree or a search in a file is missing.
    """
    try:
        known: Known | NotKnown = _proof(table, command, facts)
    except (_NotVouched, NotSimple) as reason:
        clock = reason.clock if isinstance(reason, _NotVouched) else b""
        return NotKnown(str(reason), _calls_known_tool(table, command.identity), clock)
    except UnservedDirectory:
        known = NotKnown("")
    facts.check()
    return known


def _calls_known_tool(table: KnownTable, identity: CommandIdentity) -> bool:
    name = split(identity.argv[0])[1].decode(errors="surrogateescape") if identity.argv else ""
    return table.tool_called(name) is not None


def _proof(table: KnownTable, command: CommandFacts, facts: TreeFacts) -> Known | NotKnown:
    objections: list[str] = []
    judged = list(_judged(table, command.identity, objections))
    vouches = [vouch for _, vouch in judged]
    for pattern in {vouch.unwanted_messages for vouch in vouches if vouch.unwanted_messages}:
        try:
            found = re.search(pattern.encode(), command.messages)
        except re.error as error:  # in the entry of a plugin
            raise _NotVouched(f"{pattern!r} is no regexp: {error}") from error
        if found:
            raise _NotVouched(f"the job wrote {found[0].decode(errors='backslashreplace')!r}")
    if any(vouch.asks_machine for vouch in vouches) and not command.identity.machine:
        raise _NotVouched("the result holds for one kind of machine")
    tools = table.below(tool for tool, _ in judged)
    executed = _check_programs(tools, judged, command, facts)
    _check_asked(executed, command.dependencies)
    _check_inputs(vouches, command, facts)
    used = {_named(tool) for tool in (*executed, *(tool for tool, _ in judged))}
    entries, is_blind = tuple(sorted(used)), _is_blind(vouches, command, facts)
    if objections:
        is_tool_known = _calls_known_tool(table, command.identity)
        return NotKnown(objections[0], is_tool_known, blind=entries if is_blind else ())
    return Known(is_blind, entries)


def _judged(table: KnownTable, identity: CommandIdentity, objections: list[str]) -> Iterator[tuple[KnownTool, Vouch]]:
    """Yield the tools that a command calls with their vouches.

    Reasons for which a second run must prove the result are added to `objections`. They have
    nothing to do with times of files.
    """
    if not identity.argv or split(identity.exe)[1] != split(identity.argv[0])[1]:
        raise _NotVouched("the program has another name than the command")
    words = tuple(word.decode(errors="surrogateescape") for word in identity.argv)
    has_text = False
    for command, env in _commands(SimpleCommand((), words, ()), _variables(identity.env)):
        if not command.words:
            if any(not LOCAL_NAME.fullmatch(name) or name in env or "IFS" in env for name, _ in command.assignments):
                raise _NotVouched("a variable of a shell")
            has_text = has_text or bool(command.written)  # a redirection without a command
            continue
        name = command.words[0].rpartition("/")[2]
        tool = table.tool_called(name)
        if tool is None:
            raise _NotVouched(f"{name} is not in the table")
        if command.assignments and name in SPECIAL_BUILTINS:
            raise _NotVouched("a variable of a shell")  # it outlives the command
        _check_loader(env, identity.root)
        answer = _ask(tool, ToolCall(name, command.words[1:], env))
        if answer.unwanted_texts and has_text:
            raise _NotVouched(f"{name} may read a text that the job itself has made")
        if command.may_fail and not (answer.may_fail and not command.written):
            objections.append(f"nobody would know if {name} had failed")
        if command.is_piped:
            objections.append("a pipe")
        has_text = has_text or command.is_piped or answer.makes_text or bool(command.written)
        yield tool, answer


def _commands(command: SimpleCommand, env: Mapping[str, str]) -> Iterator[tuple[SimpleCommand, Mapping[str, str]]]:
    """Yield a command, and then the commands that it runs: a launcher's, or those of a shell.

    Each comes with its environment.
    """
    env = {**env, **dict(command.assignments)} if command.assignments and command.words else env
    yield command, env
    if started := started_words(command.words):
        yield from _commands(SimpleCommand((), started, (), command.may_fail, command.is_piped), env)
    for found in shell_commands(command.words) or ():
        may_fail, is_piped = found.may_fail or command.may_fail, found.is_piped or command.is_piped
        yield from _commands(replace(found, may_fail=may_fail, is_piped=is_piped), env)


def _ask(tool: KnownTool, call: ToolCall) -> Vouch:
    try:
        answer = tool.judge(call)
    except Exception as error:  # the judge of one plugin: the command is not known
        raise _NotVouched(f"the entry {tool.name} has failed: {error!r}") from error
    if isinstance(answer, str):
        raise _NotVouched(answer)
    return answer


def _check_loader(variables: Mapping[str, str], root: bytes) -> None:
    for name in _LOADER_VARIABLES:
        if variables.get(name):
            raise _NotVouched(f"{name} is set")
    for place in filter(None, variables.get("LD_LIBRARY_PATH", "").split(":")):
        if not place.startswith("/") or _is_in_tree(place.encode(errors="surrogateescape"), root):
            raise _NotVouched("LD_LIBRARY_PATH has a directory of the tree")


def _check_programs(
    tools: Mapping[str, KnownTool], judged: Sequence[tuple[KnownTool, Vouch]], command: CommandFacts, facts: TreeFacts
) -> Sequence[KnownTool]:
    """Check that each executed file is the program of one of the tools, and return these tools."""
    executed = []
    if not command.dependencies.tools:
        raise _NotVouched("the trace has no program")
    wanted: dict[str, tuple[str, ...]] = {}
    for called, vouch in judged:
        wanted[called.name] = (*wanted.get(called.name, ()), *vouch.program_texts)
    for path in command.dependencies.tools:
        shown = path.decode(errors="backslashreplace")
        if _is_in_tree(path, command.identity.root):
            raise _NotVouched(f"the program /{shown} is in the tree")
        name = split(path)[1].decode(errors="surrogateescape")
        tool = next((found for found in tools.values() if re.fullmatch(found.programs or found.called, name)), None)
        if tool is None:
            raise _NotVouched(f"the job executed /{shown}, which its tools do not")
        executed.append(tool)
        needed = wanted.get(tool.name, ())
        sought = (ELF_HEAD, *_encoded(tuple(dict.fromkeys((*tool.marks, *needed)))))
        found = _texts_in(path, sought, facts)
        if found is None:
            continue
        is_marked = not tool.marks or any(mark.encode() in found for mark in tool.marks)
        if ELF_HEAD not in found or not is_marked or any(text.encode() not in found for text in needed):
            raise _NotVouched(f"/{shown} is not the {tool.name} that the table knows")
    return executed


def _check_asked(tools: Iterable[KnownTool], dependencies: DependencySet) -> None:
    allowed = [pattern for tool in tools for pattern in tool.asks]
    for asked in dependencies.asked:
        name = asked.decode(errors="surrogateescape")
        if not any(fnmatchcase(name, pattern.strip("/")) for pattern in allowed):
            raise _NotVouched(f"the job asked /{name}")
    for dependency in dependencies.path_set.dependencies:
        if dependency.path.partition(b"/")[0] in MADE_BY_SANDBOX:  # through a symlink
            raise _NotVouched(f"the job asked /{dependency.path.decode(errors='backslashreplace')}")


def _check_inputs(vouches: Sequence[Vouch], command: CommandFacts, facts: TreeFacts) -> None:
    """Check the names and the contents of all that the job has read."""
    patterns = frozenset(pattern for vouch in vouches for pattern in vouch.unwanted_inputs)
    texts = _encoded(tuple(dict.fromkeys(text for vouch in vouches for text in vouch.unwanted_texts)))
    if not patterns and not texts:
        return
    is_unwanted = _names_pattern(patterns).search
    for dependency in command.dependencies.path_set.dependencies:
        path, use = dependency.path, dependency.use
        if not use & _READ_OR_WHOLE or use & EXEC:
            continue
        if is_unwanted(path):
            raise _NotVouched(f"the job read /{path.decode(errors='backslashreplace')}")
        if not texts or (b".so" in path and _LIBRARY.fullmatch(path) and not _is_in_tree(path, command.identity.root)):
            continue
        if found := _texts_in(path, texts, facts):
            text = next(text for text in texts if text in found)
            shown = f"{text.decode()} is in /{path.decode(errors='backslashreplace')}"
            raise _NotVouched(shown, path if text in _CLOCKS else b"")


def _is_blind(vouches: Sequence[Vouch], command: CommandFacts, facts: TreeFacts) -> bool:
    """Return whether the times of inputs do not matter."""
    if not all(vouch.is_blind for vouch in vouches):
        return False
    patterns = frozenset(pattern for vouch in vouches for pattern in vouch.timed_inputs)
    if not patterns:
        return True
    is_timed = _names_pattern(patterns).search
    read = (found.path for found in command.dependencies.path_set.dependencies if found.use & _READ_OR_WHOLE)
    return not any(is_timed(path) and facts.find(path) is not None for path in read)


def _texts_in(path: bytes, texts: tuple[bytes, ...], facts: TreeFacts) -> frozenset[bytes] | None:
    """Return which of the texts are in a file, or None if that is not known yet.

    Names that were looked for and are not there have none, and neither have directories.
    """
    attr = facts.find(path)
    if attr is None or not stat.S_ISREG(attr.mode):
        return frozenset()
    return facts.texts_in(path, facts.sha256(path, attr), texts)


@functools.lru_cache(maxsize=64)  # so that thousands of searches share one tuple
def _encoded(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


@functools.lru_cache(maxsize=64)
def _names_pattern(patterns: frozenset[str]) -> re.Pattern[bytes]:
    """Return what finds a path whose last name matches one of the shell patterns."""
    names = "|".join(translate(pattern) for pattern in sorted(patterns)) or "(?!)"
    return re.compile(rf"(?s)(?:\A|/)(?=[^/]*\Z)(?:{names})".encode())


@functools.lru_cache(maxsize=64)  # most commands of a build have the same
def _variables(env: tuple[bytes, ...]) -> Mapping[str, str]:
    words = (word.decode(errors="surrogateescape").partition("=") for word in env)
    return {name: text for name, _, text in words}


def _is_in_tree(path: bytes, root: bytes) -> bool:
    return is_within(path.strip(b"/"), root.strip(b"/"))


def _regexp_error(tool: KnownTool) -> str:
    """Return why the regexps of an entry cannot be used, or "" if they can."""
    try:
        for pattern in (tool.called, tool.programs):
            re.compile(pattern)
    except (re.error, TypeError) as error:
        return str(error)
    return ""


def _named(tool: KnownTool) -> str:
    return f"{tool.name} {tool.revision}"
