"""Compute what some substitutions of a shell stand for, without running them.

They are those that automake puts into each makefile: the place of a file of dependencies, and the
directory of a source. Everything else is unknown, and nobody vouches for its command then.
"""

import re
from typing import NamedTuple

# Characters that mean themselves in a word, and that no shell splits or takes for a pattern.
SAFE = r"[A-Za-z0-9_./+,:@%=-]"
_ECHO_AND_SED = re.compile(
    rf"\s*echo[ \t]+((?!-){SAFE}+)[ \t]*\|[ \t]*sed[ \t]+(?:-e[ \t]+)?'([^'\\]*(?:\\\.[^'\\]*)*)'\s*"
)
_SOURCE_PLACE = re.compile(
    rf"\s*test[ \t]+-f[ \t]+('?)((?!-){SAFE}+)\1[ \t]*\|\|[ \t]*echo[ \t]+('?)((?!-){SAFE}*/)\3\s*"
)
# One command of sed: `s`, a mark, an old part, the mark, a new part, and the mark.
_SUBSTITUTION = re.compile(r"\s*s([|/,:])((?:(?!\1).)*)\1((?:(?!\1).)*)\1\s*(?:;|\Z)")
_OLD_PART = re.compile(r"\^?(?:(?:[A-Za-z0-9_/,:-]|\\\.|\.|\[\^/\])\*?)+\$?")
_NEW_PART = re.compile(r"[A-Za-z0-9_./,:&-]*")


class Substituted(NamedTuple):
    """The text for which a substitution stands, and the commands that it runs.

    If it `is_prefix`, it stands for the directory of the file whose name follows, or for nothing.
    """

    text: str
    commands: tuple[tuple[str, ...], ...]
    is_prefix: bool = False


def substituted(text: str) -> Substituted | None:
    """Return what stands for the substitution of a text, or None if that is unknown."""
    if found := _ECHO_AND_SED.fullmatch(text):
        value = _edited(found[1], found[2])
        return Substituted(value, (("echo", found[1]), ("sed", found[2]))) if value else None
    if found := _SOURCE_PLACE.fullmatch(text):
        return Substituted("", (("test", "-f", found[2]), ("echo", found[4])), is_prefix=True)
    return None


def _edited(line: str, script: str) -> str | None:
    """Return a line after the script of sed, or None if that is unknown or needs quotes."""
    at = 0
    while at < len(script):
        command = _SUBSTITUTION.match(script, at)
        if command is None or not _OLD_PART.fullmatch(command[2]) or not _NEW_PART.fullmatch(command[3]):
            return None
        # POSIX takes the longest match, and Python that of the first star. With one star both are
        # the same.
        if command[2].count("*") > 1:
            return None
        old = re.compile(re.sub(r"\$\Z", r"\\Z", command[2]))
        new = command[3]
        line = old.sub(lambda match: new.replace("&", match[0]), line, count=1)  # noqa: B023 - it is called at once
        at = command.end()
    return line if re.fullmatch(rf"(?!-){SAFE}+", line) else None
