"""Say in one sentence why no stored result was used for a job.

Each sentence tells what differs from the last run of the same job.
"""

import re
from collections.abc import Mapping

from termite.engine.recall.look_up.differences import Difference, MissCause
from termite.engine.wire.protocol.foreign_text import printable

# Digests are cut to twelve digits for people (SHOWN_DIGITS); modes are octal numbers.
_DIGEST = re.compile(r"[0-9a-f]{12}")
_MODE = re.compile(r"[0-7]{3,6}")
# Why the last run left no result: values of `Obstacle`, and words of rules and switches.
_OBSTACLES: Mapping[str, str] = {
    "gap": "its trace does not have everything that it used",
    "lost": "a signal disturbed its trace",
    "changed": "an input changed while it ran",
    "relative": "a script named its interpreter by a relative path",
    "hidden": "it used a file through a path below /proc, or changed one with several names",
    "program": "a program that it executed is of an unknown kind",
    "facts": "a file or directory that it named cannot be read",
    "exit": "it did not end with 0",
    "dropped": "it wrote outside the tree",
    "conflict": "others changed the files that it wrote",
    "size": "its files or its output were too large",
    "clock": "it executed a program that reads a clock",
    "rule": "a rule forbids it",
    "network": "a rule gives it the network",
    "local": "it ran on the master's machine",
}
# Parts of a command that are no words: names of `CommandIdentity.others`.
_PARTS: Mapping[str, str] = {
    "program": "program",
    "umask": "umask",
    "stdin": "standard input",
    "streams": "way of joining its output streams",
    "network": "access to the network",
    "user": "user or group",
    "limits": "resource limits",
    "niceness": "niceness",
    "signals": "ignored signals",
    "terminal": "terminal",
    "machine": "kind of machine that it asks for",
    "tree": "tree",
}


def miss_text(difference: Difference) -> str:
    """Return why no stored result was used, as one sentence that a terminal can print."""
    name, old, new = map(_text, (difference.name, difference.old, difference.new))
    match difference.cause:
        case MissCause.NEVER:
            return "This job has not run before, or what it used is forgotten."
        case MissCause.ARGUMENT:
            return _argument_text(name, old, new)
        case MissCause.VARIABLE:
            return f"The variable {name} {_variable_end(old, new)}."
        case MissCause.TOOL:
            return f"The program {name} is another one{_states(old, new)}."
        case MissCause.CONTENT:
            return _content_text(name, old, new)
        case MissCause.SHADOW:
            is_new = new == "there"
            return f"{name} is there now, and was absent." if is_new else f"{name} is gone, and was there."
        case MissCause.LISTING:
            return f"The directory {name} has other names: {new}."
        case MissCause.TIMES:
            return f"{name} has another time, and the job asks for times."
        case MissCause.EVICTED:
            return "Nothing differs, but the result is not in the store any more."
        case MissCause.SHAPE:
            return _shape_text(name)
        case MissCause.GAP | MissCause.RULE:
            why = _OBSTACLES.get(old, old)
            return f"The last run left no result: {why}{f' ({name})' if name else ''}."


def _argument_text(name: str, old: str, new: str) -> str:
    if old and new:
        return f"The command has the word {new} in place of {old}."
    if new:
        return f"The command has more words: {new}."
    if old:
        return f"The command has fewer words: it lacks {old}."
    return f"The {_PARTS.get(name, name)} of the command is another one."


def _variable_end(old: str, new: str) -> str:
    if old and new:
        return "has another value"
    return "is set, and was not" if new else "is not set, and was"


def _content_text(name: str, old: str, new: str) -> str:
    if _DIGEST.fullmatch(old) and _DIGEST.fullmatch(new):
        return f"{name} has another content{_states(old, new)}."
    if _MODE.fullmatch(old) and _MODE.fullmatch(new):
        return f"{name} has another mode, kind or size{_states(old, new)}."
    if old and new:
        return f"{name} leads to {new} in place of {old}."
    return f"{name} has another state{_states(old, new)}."


def _shape_text(name: str) -> str:
    if name:
        return f"Two equal runs of such a command gave different results: {name}."
    return "Such commands have not shown yet that they give the same result twice."


def _states(old: str, new: str) -> str:
    return f" ({old} -> {new})" if old and new else ""


def _text(part: bytes) -> str:
    return printable(part.decode(errors="surrogateescape"))
