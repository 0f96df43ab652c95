"""The known tools of shells: the shells, their builtins, and termite's own launcher.

A shell is known only as `sh -c` with a simple list of commands (`shell_lists.py`).
"""

import re

from termite.engine.decide.known_tools import NOT_CALLED, KnownTool, ToolCall, Vouch
from termite.engine.decide.logic.commands import shell_text
from termite.engine.recall.known.shell_lists import parse_list
from termite.engine.recall.known.shell_words import SimpleCommand

_SHELL_NAMES = frozenset({"sh", "dash", "bash"})
_BASH_VARIABLES = ("BASH_ENV", "SHELLOPTS", "BASHOPTS")
# A variable in front of one of these is one of the shell afterwards (POSIX, XCU 2.14).
SPECIAL_BUILTINS = frozenset({":", "exit", "set"})
_FLAGS = frozenset("ce")
_LAUNCHER_NAME = "termite"
_NOTE = re.compile(r"--(?!preload=|exe=|search=)\w[^=]*=.*", re.DOTALL)


def shell_commands(words: tuple[str, ...]) -> tuple[SimpleCommand, ...] | None:
    """Return the commands that a shell is to run by `-c`, or None if the words are no such call.

    Raise NotSimple if the text after `-c` is no simple list.
    """
    text, flags = _script(words)
    return None if text is None else parse_list(text, ends_on_error="e" in flags)


def _script(words: tuple[str, ...]) -> tuple[str | None, frozenset[str]]:
    if not words or words[0].rpartition("/")[2] not in _SHELL_NAMES:
        return None, frozenset()
    text, flags = shell_text(words)
    return (text if flags <= _FLAGS else None), flags


def started_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that a launcher or `exec` starts, or () if the words are neither."""
    name = words[0].rpartition("/")[2] if words else ""
    if name == "exec":
        return () if words[1:2] and words[1].startswith("-") else words[1:]
    if name != _LAUNCHER_NAME:
        return ()
    at = 1
    while at < len(words) and _NOTE.fullmatch(words[at]):
        at += 1
    return words[at + 1 :] if words[at : at + 1] == ("--",) else words[at:]


def _judge_shell(call: ToolCall) -> Vouch | str:
    if _script((call.name, *call.args))[0] is None:
        return "a shell without -c, or with other options"
    # Code, functions and options from elsewhere, which bash reads at its start.
    if any(call.env.get(name) for name in _BASH_VARIABLES) or any(name.startswith("BASH_FUNC_") for name in call.env):
        return "a shell with functions from its environment"
    return Vouch(may_fail=True)


def _judge_builtin(call: ToolCall) -> Vouch | str:
    is_plain = {
        ":": True,
        "cd": len(call.args) == 1 and not call.args[0].startswith("-"),
        "exit": not call.args or (len(call.args) == 1 and call.args[0].isdecimal()),
        "set": call.args == ("-e",),
        "exec": bool(call.args) and not call.args[0].startswith("-"),
    }
    return Vouch(may_fail=True) if is_plain[call.name] else f"{call.name} with these words"


def _judge_launcher(call: ToolCall) -> Vouch | str:
    return Vouch(may_fail=True) if started_words((call.name, *call.args)) else "the launcher without a command"


SHELL_TOOLS = (
    # Every shell has this variable; it is what a program with the name of one is known by.
    KnownTool("shell", "sh|dash|bash", ("OPTIND",), _judge_shell),
    KnownTool("builtins", ":|cd|exit|set|exec", (), _judge_builtin, programs=NOT_CALLED),
    KnownTool("launcher", _LAUNCHER_NAME, ("TERMITE_LOCAL",), _judge_launcher),
)
