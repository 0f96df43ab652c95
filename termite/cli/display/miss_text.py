"""Say in one sentence why no stored result was used for a job.

Each sentence tells what differs from the last run of the same job.
"""

from collections.abc import Mapping

from termite.engine.history.logic.job_record import MissDetail
from termite.engine.recall.look_up.differences import DifferenceKind, MissCause

# Why the last run left no result, by the value of an `Obstacle`.
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


def miss_text(cause: str, missed: MissDetail) -> str:
    """Return why no stored result was used, as one sentence.

    `cause` is the value of a `MissCause`. One of another version of termite is returned as it is.
    """
    name, old, new = missed.name, missed.old, missed.new
    match cause:
        case MissCause.NEVER:
            return "This job has not run before, or what it used is forgotten."
        case MissCause.ARGUMENT:
            return _argument_text(missed)
        case MissCause.VARIABLE:
            return f"The variable {name} {_variable_end(missed.kind)}."
        case MissCause.TOOL:
            return f"The program {name} is another one{_states(old, new)}."
        case MissCause.CONTENT:
            return _content_text(missed)
        case MissCause.SHADOW:
            is_new = missed.kind == DifferenceKind.CAME
            return f"{name} is there now, and was absent." if is_new else f"{name} is gone, and was there."
        case MissCause.LISTING:
            return f"The directory {name} has other names: {new}."
        case MissCause.TIMES:
            return f"{name} has another time, and the job asks for times."
        case MissCause.EVICTED:
            return "Nothing differs, but the result is not in the store any more."
        case MissCause.SHAPE:
            return _shape_text(name)
        case MissCause.GAP:
            why = _OBSTACLES.get(old, old)
            return f"The last run left no result: {why}{f' ({name})' if name else ''}."
        case MissCause.OWNERS:
            return "The command may show the owners of files, and some belong to other users."
    return cause


def _argument_text(missed: MissDetail) -> str:
    match missed.kind:
        case DifferenceKind.WORD:
            return f"The command has the word {missed.new} in place of {missed.old}."
        case DifferenceKind.CAME:
            return f"The command has more words: {missed.new}."
        case DifferenceKind.WENT:
            return f"The command has fewer words: it lacks {missed.old}."
    return f"The {_PARTS.get(missed.name, missed.name)} of the command is another one."


def _variable_end(kind: str) -> str:
    if kind == DifferenceKind.OTHER:
        return "has another value"
    return "is set, and was not" if kind == DifferenceKind.CAME else "is not set, and was"


def _content_text(missed: MissDetail) -> str:
    name, states = missed.name, _states(missed.old, missed.new)
    match missed.kind:
        case DifferenceKind.CONTENT:
            return f"{name} has another content{states}."
        case DifferenceKind.MODE:
            return f"{name} has another mode, kind or size{states}."
        case DifferenceKind.TARGET:
            return f"{name} leads to {missed.new} in place of {missed.old}."
    return f"{name} has another state{states}."


def _shape_text(name: str) -> str:
    if name:
        return f"Two equal runs of such a command gave different results: {name}."
    return "Such commands have not shown yet that they give the same result twice."


def _states(old: str, new: str) -> str:
    return f" ({old} -> {new})" if old and new else ""
