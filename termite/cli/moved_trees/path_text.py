"""Translate the paths of a tree in texts: messages, commands, compile_commands.json.

A path counts if it begins where a word begins. It may also follow the letters of a flag
(`-I/build/p`), the two slashes of an address (`file:///build/p`), a quotation mark, a bracket, or
one of the characters `= : , ; @ < > | &`. A path ends before a slash, before the end of a word, or
before one of these characters.
"""

import os
import re
from collections.abc import Mapping

_BEFORE = rb"(?P<before>(?:^|(?<=[\s\"'`=:,;@()\[\]{}<>|&]))(?:-[A-Za-z-]+|//)?)"
_AFTER = rb"(?=$|[/\s\"'`=:,;@()\[\]{}<>|&\\])"


class PathText:
    """A translation of texts, in which the path `old` of a tree becomes its path `new`."""

    def __init__(self, old: str, new: str) -> None:
        self._new = os.fsencode(new)
        self._pattern = re.compile(_BEFORE + re.escape(os.fsencode(old)) + _AFTER, re.MULTILINE)

    def translate(self, text: bytes) -> bytes:
        """Return a text with the paths in it translated."""
        return self._pattern.sub(lambda found: found["before"] + self._new, text)

    def word(self, text: str) -> str:
        """Return a word of a command line, or the content of a variable, translated."""
        return os.fsdecode(self.translate(os.fsencode(text)))

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with the paths in its variables translated."""
        return {name: self.word(text) for name, text in env.items()}
