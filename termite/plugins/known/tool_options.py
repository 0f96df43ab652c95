"""Read the options of a call as getopt_long(3) does. Options that are not listed are refused."""

import functools
from collections.abc import Sequence
from typing import NamedTuple


class ToolOptions(NamedTuple):
    """The options of a call without their texts, such as `-f` or `--force`, and its other words."""

    names: frozenset[str]
    operands: tuple[str, ...]

    def has_any(self, *names: str) -> bool:
        """Return whether one of the options was given."""
        return not self.names.isdisjoint(names)


@functools.cache
def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def read_options(
    args: Sequence[str], flags: str, valued: str = "", long: str = "", long_valued: str = ""
) -> ToolOptions | str:
    """Return the options and operands of a call, or the reason if one is not listed.

    `flags` are options of one letter, and those in `valued` take a text. The words in `long` may
    have a text behind `=`; those in `long_valued` must have one there or in the next word.
    """
    names: set[str] = set()
    operands: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            operands += words
        elif word.startswith("--"):
            name, equals, _ = word[2:].partition("=")
            if name in word_set(long_valued) and not equals:
                next(words, "")
            elif name not in word_set(long) | word_set(long_valued):
                return f"the option {word}"
            names.add(f"--{name}")
        elif word.startswith("-") and len(word) > 1:
            for at, letter in enumerate(word[1:], 2):
                if letter not in flags and letter not in valued:
                    return f"the option -{letter} in {word}"
                names.add(f"-{letter}")
                if letter in valued:
                    if at == len(word):
                        next(words, "")
                    break
        else:
            operands.append(word)
    return ToolOptions(frozenset(names), tuple(operands))
