"""Turn an invocation into the command that should run, without the help of a plugin.

A command line is never parsed. A shell's `-c` word is found by the rules for a shell's own options,
and is used for matching only.
"""

import re
from collections.abc import Callable

from termite.engine.model import Command, Invocation

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox-sh", "termite-shell"})
_TAKES_A_WORD = frozenset({"--rcfile", "--init-file"})
_PLAIN_FLAGS = frozenset("ce")  # with any other flag (-x, -v, ...) even `true` may print something
_WORD_OF_MAKE = re.compile(r"\s*(?:\\.|[^\\\s])+|\s+|\\", re.DOTALL)
_DEFINED = re.compile(r"\s*([^:?+!=\s]+)[:?+!]*=")
_JOBS = re.compile(r"-j\d*|-l[\d.]*|--jobserver-(?:auth|fds|style)=.*")


def plain_command(invocation: Invocation) -> Command:
    """Return the invocation unchanged, as a command.

    The command's text is the word after a shell's `-c`, else all words joined by single spaces.
    """
    text, _ = shell_text(invocation.argv)
    return Command(
        argv=invocation.argv,
        exe=invocation.exe,
        search=invocation.search,
        cwd=invocation.cwd,
        env=invocation.env,
        text=" ".join(invocation.argv) if text is None else text,
    )


def is_no_op(command: Command) -> bool:
    """Return True for `:`, `true` and blank commands, which succeed without being run."""
    text, flags = shell_text(command.argv)
    if text is None:
        return command.argv == ("true",)
    return flags <= _PLAIN_FLAGS and text.strip() in ("", ":", "true", "exec true")


def shell_text(argv: tuple[str, ...]) -> tuple[str | None, frozenset[str]]:
    """Return the word after a shell's `-c` and the shell's flags.

    The word is None if `argv` does not call a shell with `-c`.
    """
    if not argv or argv[0].rpartition("/")[2].removeprefix("-") not in _SHELLS:
        return None, frozenset()
    flags: set[str] = set()
    words = iter(argv[1:])
    for word in words:
        if word.startswith("--") and len(word) > 2:
            if word in _TAKES_A_WORD:
                next(words, None)
            flags.add(word)
        elif word[:1] in ("-", "+") and len(word) > 1 and word != "--":
            flags |= set(word[1:])
            if word[-1] in "oO":
                next(words, None)
        else:
            text = next(words, None) if word in ("--", "-") else word
            return (text if "c" in flags else None), frozenset(flags)
    return None, frozenset(flags)


def without_jobserver(makeflags: str) -> str:
    """Return MAKEFLAGS without `-jN` and the jobserver, whose descriptors do not exist on a worker.

    With `-jN` alone, a remote make would run N jobs in its one slot; with the jobserver alone, it
    would warn. The words after `--` are variables and are kept.
    """
    head, separator, variables = f" {makeflags} ".partition(" -- ")
    kept = [word for word in head.split(" ") if not _JOBS.fullmatch(word)]
    if separator:
        return (" ".join(kept) + separator + variables).removeprefix(" ").removesuffix(" ")
    return " ".join(kept).removeprefix(" ").removesuffix(" ")


def without_definitions(makeflags: str, is_hidden: Callable[[str], bool]) -> str:
    """Return the text of MAKEFLAGS without definitions `NAME=TEXT` whose names are hidden.

    A backslash keeps a space in a word (GNU make, "Communicating Options to a Sub-make").
    """
    if "=" not in makeflags:
        return makeflags
    kept = []
    for word in _WORD_OF_MAKE.findall(makeflags):
        defined = _DEFINED.match(word)
        if defined is None or not is_hidden(defined[1]):
            kept.append(word)
    return "".join(kept)
