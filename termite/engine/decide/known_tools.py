"""The form in which plugins vouch for tools whose results may be used again after one execution.

A tool may be vouched for if its results are a function of its words, its environment and the files
that it reads. The trace has the files, and the table in `termite/engine/recall/known/` asks the
tools. Whoever vouches has a test that executes the tool twice and compares the results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

NOT_CALLED = "(?!)"  # matches nothing


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool: the last part of its name, its other words, and its environment."""

    name: str
    args: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Vouch:
    """The conditions under which a call does the same whenever its inputs are the same.

    If it `is_blind`, the times of files do not matter either, unless the job reads a file whose
    name matches one of the `timed_inputs`, which are shell patterns. `unwanted_messages` is a
    regexp, such as one for random names. It must not match anything on standard output and error;
    "" matches nothing. If it `asks_machine`, the result holds for one kind of machine, as with
    `-march=native`. If it `makes_text`, the call writes a file that is no copy of an input.

    `unwanted_texts` must not be in any file that the job reads. Program files, and libraries
    outside the tree, are not searched. `unwanted_inputs` are shell patterns for the names of files
    that the job must not read. `program_texts` must all be in the file of the program.

    If the call `may_fail`, inputs alone decide whether it fails. For others, a full disk does:
    their results count only if a failure would be seen.
    """

    is_blind: bool = True
    timed_inputs: tuple[str, ...] = ()
    unwanted_messages: str = ""
    asks_machine: bool = False
    makes_text: bool = False
    unwanted_texts: tuple[str, ...] = ()
    unwanted_inputs: tuple[str, ...] = ()
    program_texts: tuple[str, ...] = ()
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class KnownTool:
    """An entry of the table of known tools.

    `name` is that of the entry. Raise `revision` if a changed entry vouches for less. `called` is a
    regexp for the names by which commands call the tool, without directories. A tool that only
    other tools call has NOT_CALLED. `programs` is a regexp for the names of its program files,
    behind all links; "" means `called`. Each program file is an ELF file that contains one of the
    `marks`. A script or another program of the same name does not.

    `judge` returns the conditions of a call, or the reason for which nobody vouches for it.
    `helpers` are the names of entries whose programs the tool may execute. `asks` are shell
    patterns for files of /proc, /sys and /dev whose content does not matter.
    """

    name: str
    called: str
    marks: tuple[str, ...]
    judge: Callable[[ToolCall], Vouch | str]
    programs: str = ""
    helpers: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    revision: int = 1


def refuse_all(call: ToolCall) -> str:
    """Return the reason of a tool that only other tools may call."""
    return f"{call.name} is only known below another tool"
